"""The compose sample without Docker: each file is judged by the program that would read it."""

import pathlib
import re
import subprocess

import pytest
import yaml

from tailrace_test import Loki, run

HERE = pathlib.Path(__file__).resolve().parents[2] / "packaging/compose"
COMPOSE = yaml.safe_load((HERE / "docker-compose.yaml").read_text())


def good(*argv, **kw):
    got = subprocess.run([str(a) for a in argv], capture_output=True, text=True, check=False, **kw)
    assert got.returncode == 0, got.stdout + got.stderr
    return got.stdout + got.stderr


def test_services_and_what_they_mount():
    assert {"tailrace", "loki", "grafana", "prometheus", "alertmanager"} == set(COMPOSE["services"])
    for name, service in COMPOSE["services"].items():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            if source.startswith("."):  # alertmanager.yml is a copy of one of the samples; secrets are the operator's
                assert (HERE / source).exists() or source == "./alertmanager.yml", (name, source)
            elif not source.startswith("/"):
                assert source in COMPOSE["volumes"], (name, source)
        assert all(p.startswith("127.0.0.1:") for p in service["ports"]), "nothing is open by default"
        assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]
    tailrace = COMPOSE["services"]["tailrace"]
    assert tailrace["read_only"] and tailrace["cap_add"] == ["DAC_READ_SEARCH"]
    assert tailrace["image"] == "tailrace:" + (HERE.parents[1] / "VERSION").read_text().strip()


def test_tailrace_takes_its_configuration():
    assert run("check", "-c", HERE / "tailrace.yaml").returncode == 0


def test_loki_takes_its_configuration(tmp_path):
    config = tmp_path / "loki.yaml"
    config.write_text((HERE / "loki.yaml").read_text().replace("/loki", str(tmp_path)))
    good(Loki.binary("loki"), f"-config.file={config}", "-verify-config")


def test_prometheus_takes_its_configuration_and_the_rules(tmp_path):
    (tmp_path / "rules").symlink_to(HERE.parent / "prometheus")
    (tmp_path / "prometheus.yml").write_text((HERE / "prometheus.yml").read_text())
    assert "rules found" in good("promtool", "check", "config", tmp_path / "prometheus.yml")


@pytest.mark.parametrize("kind, receivers", [("slack", {"slack"}), ("pagerduty", {"slack", "pagerduty"}), ("mail", {"email"})])
def test_alertmanager_takes_each_sample(kind, receivers):
    path = HERE / f"alertmanager-{kind}.yml"
    good("amtool", "check-config", path)
    config = yaml.safe_load(path.read_text())
    assert {k.removesuffix("_configs") for r in config["receivers"] for k in r if k.endswith("_configs")} == receivers
    for severity, receiver in (("critical", "on-call"), ("warning", "team")):
        said = good("amtool", "config", "routes", "test", f"--config.file={path}", f"--verify.receivers={receiver}",
                    "alertname=TailraceDown", f"severity={severity}")
        assert receiver in said
    for secret in re.findall(r"/etc/alertmanager/(secrets/\S+)", path.read_text()):
        assert secret.split("/")[1] in path.read_text().splitlines()[0], "the head says which secrets it wants"


def test_grafana_is_told_of_what_is_there():
    sources = yaml.safe_load((HERE / "grafana/provisioning/datasources/datasources.yaml").read_text())["datasources"]
    assert {s["url"].split("//")[1].split(":")[0] for s in sources if "url" in s} <= set(COMPOSE["services"])
    boards = yaml.safe_load((HERE / "grafana/provisioning/dashboards/dashboards.yaml").read_text())
    assert f"../grafana:{boards['providers'][0]['options']['path']}:ro" in COMPOSE["services"]["grafana"]["volumes"]
