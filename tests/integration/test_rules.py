"""The alert rules as files: promtool, the pages, the metrics they use. On running agents: tests/packages/test_alerts.py."""

import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
RULES = ROOT / "packaging/prometheus/tailrace.rules.yaml"
UNIT = ROOT / "packaging/prometheus/tailrace.rules.test.yaml"


def names():
    return re.findall(r"^ +- alert: (\w+)", RULES.read_text(), re.M)


def test_promtool_takes_the_rules_and_their_tests():
    for argv in (["check", "rules", str(RULES)], ["test", "rules", str(UNIT)]):
        got = subprocess.run(["promtool", *argv], capture_output=True, text=True, check=False, cwd=ROOT)
        assert got.returncode == 0 and "FAILED" not in got.stdout + got.stderr, got.stdout + got.stderr


def test_every_alert_is_tested_explained_and_uses_metrics_that_exist():
    rules, unit, manual = RULES.read_text(), UNIT.read_text(), (ROOT / "docs/METRICS.md").read_text()
    for name in names():
        page = (ROOT / f"docs/runbooks/{name}.md").read_text()
        assert f"docs/runbooks/{name}.md" in rules
        assert page.startswith(f"# {name}\n") and "## What to do" in page and "## What it means" in page, name
        assert len(re.findall(rf"alertname: {name}\b", unit)) >= 2, f"{name}: a case that fires and one that does not"
    assert {p.stem for p in (ROOT / "docs/runbooks").glob("Tailrace*.md")} == set(names())
    for metric in set(re.findall(r"(?<!:)\b(tailrace_\w+)\b(?!\.|:)", rules)):
        assert f"`{metric}`" in manual or f"`{metric}" in manual, metric
    for annotation in ("summary", "description", "runbook"):
        assert rules.count(f"          {annotation}: ") == len(names())
