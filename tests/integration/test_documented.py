"""What the program takes and what it says is written down, and what is written down is so: keys of the configuration, flags,
metrics, events. Each side is read from where it is: the program's own answers where it gives them, else the sources."""

import json
import pathlib
import re

import pytest

from support import archive_output, config, file_input, loki_output, search_output
from tailrace_test import binary, run

ROOT = pathlib.Path(__file__).resolve().parents[2]
METRICS = (ROOT / "docs/METRICS.md").read_text()
MANUAL = (ROOT / "packaging/man/tailrace.1").read_text().replace("\\-", "-")
SAMPLES = (ROOT / "conf/tailrace.yaml").read_text() + (ROOT / "conf/kubernetes.yaml").read_text()
UNKNOWN = "qqqqqqqqqqqq"
COMMANDS = ("run", "check", "explain", "health", "levels", "status", "queue", "archive")


def sources(*folders):
    return "\n".join(p.read_text() for f in folders for p in sorted((ROOT / f).rglob("*.c")))


def long_options(text):
    """Those that a source's getopt_long() takes."""
    return set(re.findall(r'\{ "(\w+)", (?:no|required|optional)_argument', text))


def keys_of_each_section(tmp_path):
    """{the section's path: its keys}, as the program lists them when one is unknown."""
    bad = {UNKNOWN: 1}
    http = {"url": "http://127.0.0.1:1", "auth": {"basic": bad, **bad}, "tls": bad, "queue": bad, **bad}
    one_input = {"include": ["/tmp/x/*.log"], "keys": bad, **bad}
    conf = {**bad, "state_dir": str(tmp_path), "admin": bad, "limits": {"held": bad, **bad}, "tenants": bad, "metrics": bad,
            "kubernetes": bad,
            "inputs": {"a": {"type": "file", "multiline": bad, "overrides": [bad], **one_input},
                       "b": {"type": "kubernetes", **one_input}},
            "outputs": {"a": {"type": "loki", **http},
                        "b": {"type": "elasticsearch", "data_stream": bad, "document": bad, **http},
                        "c": {"type": "file", "path": str(tmp_path / "out"), "retain": bad, **bad},
                        "d": {"type": "stdout", **bad}},
            "routes": [{**bad, "match": bad, "to": ["a"]}],
            "counters": [{**bad, "name": "one"}]}
    path = tmp_path / "tailrace.yaml"
    path.write_text(json.dumps(conf))
    said = run("check", "-c", str(path)).stderr
    return {m[1]: set(m[2].split(", ")) for m in
            re.finditer(rf"^tailrace: \S+: (?:(\S+)\.)?{UNKNOWN}: unknown key; expected one of (.+)$", said, re.M)}


def test_each_key_is_in_a_sample(tmp_path):
    sections = keys_of_each_section(tmp_path)
    known = set().union(*sections.values())
    in_tables = set(re.findall(r'\.key = "(\w+)"', sources("conf", "outputs", "parsers")))
    assert in_tables <= known, f"a section that this test does not ask for: {in_tables - known}"
    assert {"inputs", "routes", "counters", "overrides", "start", "to", "continue", "urls", "held"} <= known
    in_words = {"password", "bearer", "api_key"}
    assert "or password, bearer, api_key with ${VAR}" in SAMPLES
    missing = {k for k in known - in_words if not re.search(rf"(?<![\w.-]){k}:", SAMPLES)}
    assert not missing, missing


def test_each_choice_is_in_a_sample():
    """The words that an enumerated key may have."""
    text = sources("conf", "outputs")
    lists = dict(re.findall(r"static const char \*const (\w+)\[\]\s*=\s*\{([^}]*)\}", text))
    used = set(re.findall(r"\.choices = (\w+)", text))
    assert used and used <= set(lists), used - set(lists)
    for name in used:
        for word in re.findall(r'"([^"]+)"', lists[name]):
            assert re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", SAMPLES), f"{name}: {word}"


@pytest.mark.parametrize("command", COMMANDS)
def test_each_flag_is_in_help_manual_and_completion(command):
    found = (ROOT / f"agent/cli/{command}.c").read_text()
    flags = long_options(found)
    assert "help" in flags and "config" in flags
    text = run(command, "--help").stdout
    said = set(re.findall(r"--(\w+)", text))
    assert said <= flags, f"help tells of what is not taken: {said - flags}"
    assert flags - {"help"} <= said, f"not in the help: {flags - said}"
    for flag in flags:
        assert f"--{flag}" in MANUAL, f"not in the manual: --{flag}"
    line = re.search(rf"^    {command}\) (.*)$", (ROOT / "packaging/completion/tailrace.bash").read_text(), re.M).group(1)
    assert set(re.findall(r"--(\w+)", line)) == flags


def test_the_manual_has_no_flag_of_its_own():
    taken = long_options(sources("agent/cli"))
    assert set(re.findall(r"--(\w+)", MANUAL)) <= taken


def test_metrics(agent, tmp_path):
    """What an agent with each kind of output exports is what docs/METRICS.md lists, and each has help and a type."""
    a = agent(config({"app": file_input(tmp_path / "app.log")},
                     {"loki": loki_output("http://127.0.0.1:1"), "es": search_output("http://127.0.0.1:1"),
                      "out": archive_output(tmp_path / "out.ndjson")},
                     counters=[{"name": "seen", "match": {"message": "*"}}]))
    text = a.get("/metrics").expect(200).text
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    assert set(types) == set(re.findall(r"^# HELP (\S+) \S+", text, re.M))
    for name, kind in types.items():
        assert name.endswith("_total") == (kind == "counter") or name == "process_cpu_seconds_total", (name, kind)
    exported = {n for n in types if not n.startswith("process_")} - {"tailrace_log_seen_total"}
    table = METRICS.split("## Events")[0]
    documented = set(re.findall(r"`(tailrace_[a-z_]+)`", table))
    assert exported == documented, (exported - documented, documented - exported)
    assert "tailrace_log_seen_total" in types and "tailrace_log_NAME_total" in table
    assert "process_open_fds" in types and "process_*" in table


def test_labels_of_metrics(agent, tmp_path):
    """The values of a label that are listed there are those that are exported, for labels that have all from the start."""
    a = agent(config({"app": file_input(tmp_path / "app.log")}, {"out": archive_output(tmp_path / "out.ndjson")}))
    text = a.get("/metrics").expect(200).text
    for name, label in (("tailrace_files", "state"), ("tailrace_altered_lines_total", "reason"),
                        ("tailrace_filtered_lines_total", "reason"), ("tailrace_queue_blocked", "reason"),
                        ("tailrace_lost_lines_total", "reason"), ("tailrace_memory_accounted_bytes", "kind"),
                        ("tailrace_kube_waits_total", "result")):
        row = next(line for line in METRICS.splitlines() if f"`{name}`" in line)
        listed = set(re.search(rf"{label} \(([^)]*)\)", row).group(1).split(", "))
        exported = set(re.findall(rf'^{name}\{{.*?\b{label}="([^"]*)"', text, re.M))
        assert exported == listed, (name, exported ^ listed)


def test_events():
    """Each event of the agent's own log is explained, and nothing is explained that is never said."""
    text = sources("agent", "outputs", "conf")
    said = set(re.findall(r'\blog_(?:at\(\w+, |error\(|warn\(|info\()\s*"\w+",\s*"([a-z_.]+)"', text))
    # Two places that choose between events.
    said |= set(re.findall(r'"(file\.(?:unreadable|stalled|skipped))"', text))
    rows = [line.split("|")[1] for line in METRICS.split("## Events")[1].split("## Health")[0].splitlines() if line.startswith("| `")]
    explained = set(re.findall(r"`([a-z_.]+)`", " ".join(rows)))
    assert said == explained, (said - explained, explained - said)


def test_environment():
    """The variables that the program asks for are in the manual."""
    asked = set(re.findall(r'getenv\("(\w+)"\)', sources("agent", "conf", "outputs")))
    told = set(re.findall(r"\b[A-Z][A-Z_]{3,}\b", MANUAL.split(".SH ENVIRONMENT")[1].split(".SH FILES")[0]))
    assert asked and asked <= told, asked - told


def test_program_is_of_this_tree():
    """Else the tests above compare with something else."""
    assert pathlib.Path(binary()).exists()
    assert (ROOT / "VERSION").read_text().strip() in run("version").stdout
