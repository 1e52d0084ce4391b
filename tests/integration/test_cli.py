"""The command line, start and stop, reload, and what the agent says of itself."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest

from support import archive_output, config, documents, file_input, folder, ledger, loki_output, total, wait_rest, without_override
from tailrace_test import FIVE, Agent, Loggen, Reply, assert_arrived, binary, free_port, request, run, wait_until, write

TOO_OLD = ("entry for stream '{}' has timestamp too old: 2020-01-01T00:00:00Z, oldest acceptable timestamp is: "
           "2026-01-01T00:00:00Z")
COMMANDS = ("run", "check", "explain", "health", "status", "queue", "archive", "version")


def simple(tmp_path, **more):
    """One file to one archive."""
    return config({"app": file_input(tmp_path / "app.log", multiline="off")},
                  {"out": archive_output(tmp_path / "out.ndjson")}, **more)


def saved(tmp_path, conf, name="tailrace.yaml"):
    path = tmp_path / name
    if isinstance(conf, dict):
        conf = json.dumps({"state_dir": str(tmp_path / "state"), "admin": {"listen": "127.0.0.1:0"}, **conf}, indent=1)
    path.write_text(conf)
    return path


# --- commands ---


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["help"]])
def test_help(argv):
    r = run(*argv)
    assert r.returncode == 0 and r.stderr == ""
    for command in COMMANDS:
        assert re.search(rf"^  {command}\s+\S", r.stdout, re.M), command


@pytest.mark.parametrize("command", [c for c in COMMANDS])
def test_help_of_each_command(command):
    r = run(command, "--help")
    assert r.returncode == 0 and r.stderr == "" and r.stdout.startswith(f"usage: tailrace {command}"), r
    assert all(len(line) <= 120 for line in r.stdout.splitlines())
    if command != "version":
        assert "--config" in r.stdout or "-c" in r.stdout


@pytest.mark.parametrize("argv, word", [
    ([], "usage"), (["rnu"], "rnu"), (["run", "--nothing"], "nothing"), (["run", "extra"], "files"), (["check", "extra"], "extra"),
    (["run", "--stdout"], "file"), (["explain", "extra"], "extra"), (["status", "extra"], "extra"), (["version", "extra"], "extra"),
    (["queue"], "ls, verify, cat, export, dead or skip"), (["run", "-c"], "-c|argument|'c'"),
])
def test_misuse(argv, word):
    r = run(*argv)
    assert r.returncode == 2 and r.stdout == "" and re.search(word, r.stderr), r
    assert "Segmentation" not in r.stderr


def test_misuse_of_health():
    assert run("health", "sideways").returncode == 64
    assert run("health", "--format", "xml").returncode == 64
    assert run("health", "--nothing").returncode == 64


def test_version():
    r = run("version")
    assert r.returncode == 0 and re.match(r"tailrace \d+\.\d+\.\d+", r.stdout), r
    assert "curl" in r.stdout and run("--version").stdout == r.stdout


def test_missing_config(tmp_path):
    for command in ("run", "check", "status", "explain"):
        r = run(command, "-c", tmp_path / "nothing.yaml", stdin="")
        assert r.returncode == 2 and "nothing.yaml" in r.stderr and r.stderr.count("\n") == 1, r


# --- check ---


def test_check_prints_what_is_in_effect(tmp_path):
    path = saved(tmp_path, config(
        {"app": file_input(tmp_path / "app.log")},
        {"loki": loki_output("http://127.0.0.1:1", auth={"basic": {"username": "u", "password": "hush-hush"}}, headers={"X-Token": "v"})}))
    r = run("check", "-c", path)
    assert r.returncode == 0, r
    assert "hush-hush" not in r.stdout + r.stderr and "***" in r.stdout
    assert re.search(r"max_age: \"?(168h|7d)\b", r.stdout)  # defaults too
    assert "warning: " in r.stderr and "unencrypted" in r.stderr
    assert re.search(re.escape(str(path)) + r":\d+:\d+: outputs\.loki", r.stderr)
    quiet = run("check", "-c", path, "--quiet")
    assert quiet.returncode == 0 and quiet.stdout == "" and quiet.stderr == r.stderr
    # What it prints is a configuration that says the same.
    again = run("check", "-c", saved(tmp_path, r.stdout.replace('"***"', "x").replace("***", "x"), "again.yaml"))
    assert again.returncode == 0, again
    assert again.stdout.replace("again.yaml", "tailrace.yaml") == r.stdout


@pytest.mark.parametrize("name", ["tailrace.yaml", "kubernetes.yaml"])
def test_check_of_the_sample_configs(tmp_path, name):
    root = binary().parents[2] / "conf" / name
    if not root.exists():
        root = os.path.join(os.path.dirname(__file__), "..", "..", "conf", name)
    r = run("check", "-c", root)
    assert r.returncode == 0 and "warning" not in r.stderr, r.stderr


MISTAKES = """\
state_dir: {state}
admin: {{ listen: "127.0.0.1:0" }}
limts: {{ memory: 32MiB }}
limits: {{ memory: much }}
inputs:
  app:
    type: fiel
    include: ["logs/*.log"]
    format: xml
    timezone: Europe/Atlantis
    levels: "info,kv=loud"
    tenant: {{record.org}}
  other:
    type: file
    include: ["/var/log/a.log"]
    tenant: "{{recrod.org}}"
outputs:
  loki:
    type: loki
    url: "ftp://127.0.0.1:3100"
    queue: {{ batch_wait: 1 parsec }}
routes:
  - {{ to: [lokki] }}
"""


def test_twelve_mistakes(tmp_path):
    path = saved(tmp_path, MISTAKES.format(state=tmp_path / "state"))
    r = run("check", "-c", path)
    assert r.returncode == 2 and r.stdout == ""
    found = re.findall(rf"^(?:tailrace: )?{re.escape(str(path))}:(\d+):(\d+): (.*)$", r.stderr, re.M)
    assert len(found) == len(r.stderr.splitlines()) == 12, r.stderr
    at = {int(line): text for line, _, text in found}
    text = MISTAKES.format(state=tmp_path / "state").splitlines()
    for number, key in ((3, "limts"), (4, "limits.memory"), (7, "inputs.app.type"), (8, "inputs.app.include"),
                        (9, "inputs.app.format"), (10, "inputs.app.timezone"), (11, "inputs.app.levels"), (12, "inputs.app.tenant"),
                        (16, "inputs.other.tenant"), (20, "outputs.loki.url"), (21, "outputs.loki.queue"), (23, "routes[0].to")):
        assert key in at[number], (number, at.get(number), text[number - 1])
    assert 'did you mean "limits"' in at[3] and 'did you mean "file"' in at[7] and 'did you mean "loki"' in at[23]
    assert "quote" in at[12]
    # All columns lie within their lines, in the order of the file.
    assert all(1 <= int(col) <= len(text[int(line) - 1]) + 1 for line, col, _ in found)
    assert [int(line) for line, _, _ in found] == sorted(int(line) for line, _, _ in found)
    # run says the same and starts nothing.
    r2 = run("run", "-c", path)
    assert r2.returncode == 2 and r2.stderr == r.stderr and not (tmp_path / "state").exists()


def test_check_connect(faults, tmp_path):
    """--connect tries each output; an empty push is answered 422 by a Loki that takes us."""
    good = faults(default=Reply(422, "error at least one valid stream is required for ingestion\n"))
    bad = faults(default=Reply(401, "no org id\n"))
    outputs = {"good": loki_output(good.url), "bad": loki_output(bad.url), "gone": loki_output(f"http://127.0.0.1:{free_port()}")}
    path = saved(tmp_path, config({"app": file_input(tmp_path / "app.log")}, outputs))
    r = run("check", "-c", path, "--connect", "--quiet")
    assert r.returncode == 1, r
    assert "outputs.good: reachable" in r.stderr and "outputs.bad: FAILED" in r.stderr and "outputs.gone: FAILED" in r.stderr
    assert "401" in r.stderr and good.requests and bad.requests
    only = saved(tmp_path, config({"app": file_input(tmp_path / "app.log")}, {"good": outputs["good"]}))
    assert run("check", "-c", only, "--connect", "--quiet").returncode == 0


# --- explain ---


def test_explain_each_logger(tmp_path):
    """Every step in words: format, level, module, time, message, tenant, levels, route, and what each output would send."""
    path = saved(tmp_path, config(
        {"app": file_input(tmp_path / "<service>.log", tenant="{record.org|'acme'}", levels="info,kv_storage=error,http=off",
                           fields={"service": "{path.service}", "pod": "p-1"})},
        {"loki": loki_output("http://127.0.0.1:1"),
         "search": {"type": "elasticsearch", "url": "http://127.0.0.1:2", "index": "tailrace-{tenant}-%Y"}},
        routes=[{"match": {"message": "*health*"}, "drop": True}, {"match": {"level": "error"}, "to": ["search"], "continue": True},
                {"to": ["loki"]}]))
    generator = Loggen(seed=51, shapes=FIVE)
    for shape in FIVE:
        module = {"tracing": "kv_storage::wal", "pino": "cache", "zap": "controller.pods"}.get(shape)
        line = generator.line(shape=shape, level="error", module=module)
        r = run("explain", "-c", path, "--path", tmp_path / "web.log", stdin=line.text + "\n")
        assert r.returncode == 0 and r.stderr == "", r
        said = re.sub(r" +", " ", r.stdout)
        for step in (f"input app, file {tmp_path}/web.log, offset 0", "format JSON object", "level error", f"module {line.module}",
                     "the record's own", "tenant acme", "route #2 matches, to search, and goes on", "route #3 matches, to loki",
                     "output loki", "output search", "index tailrace-acme-20", 'service_name="web"', f"module: {line.module}"):
            assert step in said, (step, r.stdout)
        t = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(line.ts // 10**9))
        assert f"time {t}.{line.ts % 10**9:09d}" in said
        directive = "kv_storage=error" if shape == "tracing" else "info"
        assert f"directive '{directive}' keeps" in said
        json_message = line.message.replace(" ", "_") if shape == "structlog" else line.message
        assert f'message "{json_message}"' in said
    out = run("explain", "-c", path, "--path", tmp_path / "web.log", stdin="\n".join([
        generator.line(shape="pino", level="fatal", module="http").text, generator.line(shape="zap", level="debug").text,
        '{"level":"info","msg":"GET /health"}', "just text", '{"level":"info","msg":"cut'])).stdout
    assert "directive 'http=off' drops" in out and "directive 'info' drops" in out
    assert "#1 matches and drops" in out and "format   text" in out and "begins like JSON, but is not valid" in out
    assert out.count("offset") >= 5


def test_explain_of_a_file(tmp_path):
    write(tmp_path / "web.log", Loggen(seed=52).lines(5))
    write(tmp_path / "web.txt", ["x"])
    path = saved(tmp_path, config({"app": file_input(tmp_path / "*.log", exclude=[str(tmp_path / "no*.log")])},
                                  {"loki": loki_output("http://127.0.0.1:1")}))
    r = run("explain", "-c", path, "--file", tmp_path / "web.log", "--lines", "2")
    assert r.returncode == 0 and "app" in r.stdout and r.stdout.count("offset") == 2, r
    for name, word in (("web.txt", "include"), ("none.log", "exclude")):
        write(tmp_path / name, ["x"])
        r = run("explain", "-c", path, "--file", tmp_path / name)
        assert r.returncode == 1 and word in r.stdout, r


def test_explain_of_hostile_lines(tmp_path):
    """Nothing in a line reaches the terminal as a command; a line without end costs no more than its first MiB."""
    path = saved(tmp_path, config({"app": file_input(tmp_path / "*.log", tenant="{record.tenant}")},
                                  {"loki": loki_output("http://127.0.0.1:1", metadata={"module": "{module}"})}))
    lines = ["", "esc \x1b[31mred \x07 \x9b2J gr\u00fc\u00df \x7f",
             r'{"level":"\u001b[2J","target":"\u001b]0;x\u0007","tenant":"\u009b1m","msg":"\u001b[m"}', "{" * 100_000]
    r = run("explain", "-c", path, stdin="\n".join(lines))
    assert r.returncode == 0 and r.stdout.count("offset") == 4, r
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", r.stdout), r.stdout
    assert "esc \\x1b[31mred \\x07 \\xc2\\x9b2J gr\u00fc\u00df \\x7f\n" in r.stdout, r.stdout
    assert "module   \\x1b]0;x\\x07" in r.stdout, r.stdout
    (tmp_path / "one.log").write_bytes(b"x" * (40 << 20))
    r = run("explain", "-c", path, "--file", tmp_path / "one.log")
    assert r.returncode == 0 and r.stdout.count("offset") == 1 and len(r.stdout) < 3 << 20, r


# --- starting ---


def test_port_taken(tmp_path):
    write(tmp_path / "app.log", ["one"])
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        r = run("run", "-c", saved(tmp_path, simple(tmp_path, admin={"listen": f"127.0.0.1:{port}"})), timeout=10)
    assert r.returncode == 1 and f"127.0.0.1:{port}" in r.stderr and "in use" in r.stderr, r
    assert r.stderr.count("\n") == 1 and r.stdout == ""


def test_state_folder_of_another(agent, tmp_path):
    """The second is refused in one sentence, whatever its outputs are called; the first is not disturbed."""
    write(tmp_path / "app.log", ["one"])
    a = agent(simple(tmp_path, state_dir=str(tmp_path / "state")))
    for outputs in ({"out": archive_output(tmp_path / "x.ndjson")}, {"other": archive_output(tmp_path / "y.ndjson")}):
        r = run("run", "-c", saved(tmp_path, config({"app": file_input(tmp_path / "app.log")}, outputs)), timeout=10)
        assert r.returncode == 1 and "another Tailrace" in r.stderr and str(tmp_path / "state") in r.stderr, r
        assert r.stderr.count("\n") == 1
    a.wait_delivered(1, "out")
    assert run("health", "-c", a.config_path).returncode == 0
    a.kill9()
    a.start()  # a lock of the dead holds nobody up
    assert total(wait_rest(a, read=1)[1], "delivered_lines") == 1


def test_state_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    r = run("run", "-c", saved(tmp_path, simple(tmp_path, state_dir=str(tmp_path / "file/state"))), timeout=10)
    assert r.returncode == 1 and str(tmp_path / "file") in r.stderr and r.stderr.count("\n") == 1, r


def test_state_folder_not_writable(tmp_path):
    """Root may write anywhere; as root the test gives up that right."""
    state = folder(tmp_path / "state")
    write(tmp_path / "app.log", ["one"])
    path = saved(tmp_path, simple(tmp_path, state_dir=str(state)))
    os.chmod(state, 0o555)
    argv = [*without_override(), str(binary()), "run", "-c", str(path)]
    r = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
    assert r.returncode == 1 and str(state) in r.stderr and "writable" in r.stderr and r.stderr.count("\n") == 1, r


def test_run_stdout(tmp_path):
    """Without a configuration: files to the terminal, paths or globs, until stopped; its scratch folder goes."""
    lines = Loggen(seed=53).lines(20)
    write(tmp_path / "a.log", lines[:10])
    write(tmp_path / "b.log", lines[10:])
    scratch = folder(tmp_path / "tmp")
    with open(tmp_path / "out", "wb") as out, open(tmp_path / "err", "wb") as err:
        p = subprocess.Popen([str(binary()), "run", "--stdout", "a.log", str(tmp_path / "b*.log")], stdout=out, stderr=err,
                             cwd=tmp_path, env=dict(os.environ, TMPDIR=str(scratch)), stdin=subprocess.DEVNULL)
        try:
            wait_until(lambda: (tmp_path / "out").read_bytes().count(b"\n") >= 20, 20, lambda: (tmp_path / "err").read_text())
            assert len(os.listdir(scratch)) == 1
            write(tmp_path / "a.log", ["one more"])
            wait_until(lambda: (tmp_path / "out").read_bytes().count(b"\n") >= 21, 20, lambda: (tmp_path / "err").read_text())
            p.send_signal(signal.SIGINT)
            assert p.wait(5) == 0
        finally:
            p.kill()
            p.wait()
    found = documents(tmp_path / "out")
    assert_arrived(lines, found)
    assert found[-1]["message"] == "one more" and os.listdir(scratch) == []


def test_own_log(agent, tmp_path):
    """JSON lines on stderr; TAILRACE_LOG sets the level by module."""
    write(tmp_path / "app.log", ["one"])
    a = agent(simple(tmp_path), env={"TAILRACE_LOG": "warn,main=info"})
    wait_rest(a, read=1)
    a.sigterm()
    assert a.log() and all({"timestamp", "level", "target", "event", "message", "fields"} <= set(e) for e in a.log())
    assert {e["target"] for e in a.log() if e["level"] == "info"} == {"main"}
    assert run("run", "-c", a.config_path, env={"TAILRACE_LOG": "main=loud"}).returncode == 2


# --- stopping ---


def test_sigterm(agent, tmp_path, faults):
    """Within two seconds, with a server that is silent and lines still waiting; everything read is committed."""
    server = faults(default=Reply(204, delay=600))
    lines = Loggen(seed=54).lines(20000)
    write(tmp_path / "app.log", lines)
    a = agent(config({"app": file_input(tmp_path / "app.log")},
                     {"loki": loki_output(server.url), "out": archive_output(tmp_path / "out.ndjson")}))
    server.wait_requests(1, 20)
    started = time.monotonic()
    a.sigterm(timeout=5)
    assert time.monotonic() - started < 2
    assert a.log()[-1]["event"] == "agent.stopped" and not (a.state_dir / "admin.addr").exists()
    server.default = Reply(204)
    a.start()
    _, outputs = wait_rest(a, read=20000)
    assert total(outputs, "delivered_lines", output="out") == 20000 == total(outputs, "delivered_lines", output="loki")
    assert_arrived(lines, documents(tmp_path / "out.ndjson"))
    assert_arrived(lines, server.lines(accepted_only=True), doubles=True)


def test_sigterm_while_starting(tmp_path):
    write(tmp_path / "app.log", ["one"])
    a = Agent(tmp_path / "a", simple(tmp_path))
    a.start(ready=False)
    wait_until(lambda: a._address_file.exists() or not a.running(), 10, "it begins")
    a.sigterm()


# --- what it says of itself ---


def test_metrics_are_well_formed(agent, tmp_path, faults):
    """promtool agrees; all counters are there at 0 from the start; the names are those of the manual."""
    server = faults(default=Reply(503))
    write(tmp_path / "app.log", Loggen(seed=55).lines(20) + ["text", '{"broken'])
    a = agent(config({"app": file_input(tmp_path / "app.log", tenant='we"ird\\ten\nant {record.org|"x"}'.replace('"x"', "'x'"))},
                     {"loki": loki_output(server.url), "out": archive_output(tmp_path / "out.ndjson")}))
    a.wait_delivered(22, "out")
    text = a.get("/metrics").expect(200).text
    r = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert r.returncode == 0 and r.stderr == "" and r.stdout == "", r
    assert a.get("/metrics").headers["Content-Type"].startswith("text/plain; version=0.0.4")
    names = set(re.findall(r"^# TYPE (\S+) ", text, re.M))
    for name in """read_lines_total read_bytes_total filtered_lines_total altered_lines_total files unread_bytes held_bytes
            inotify_overflows_total queue_bytes queue_limit_bytes queue_oldest_age_seconds queue_blocked accepted_lines_total
            delivered_lines_total route_keys_held requests_total request_duration_seconds delivery_delay_seconds output_up
            output_last_success_timestamp_seconds dead_letter_lines_total dead_letter_bytes lost_lines_total lost_bytes_total
            ledger_imbalance_lines certificate_expiry_timestamp_seconds state_free_bytes memory_bytes memory_limit_bytes
            state_min_free_bytes held_disk_bytes held_limit_bytes time_seconds
            config_reload_successful config_reload_timestamp_seconds health tenant_overflow_lines_total build_info""".split():
        assert f"tailrace_{name}" in names, name
    m = a.metrics()
    for name, labels in (("filtered_lines_total", {"reason": "level"}), ("altered_lines_total", {"reason": "late"}),
                         ("queue_blocked", {"reason": "disk_full"}), ("files", {"state": "stalled"})):
        assert any(n == f"tailrace_{name}" and set(labels.items()) <= l and v == 0 for (n, l), v in m.items()), name
    assert a.metric("output_up", output="out") == 1
    a.wait_metric("requests_total", 1, output="loki", code="503")
    assert a.metric("output_up", output="loki") == 0 and a.metric("memory_limit_bytes") == 32 << 20
    assert a.metric("queue_oldest_age_seconds", output="loki") > 0
    assert a.metric("state_min_free_bytes") == 512 << 20 and a.metric("held_limit_bytes") == 2 << 30
    assert abs(a.metric("time_seconds") - time.time()) < 2


def test_many_tenants_share_a_series(agent, tmp_path):
    write(tmp_path / "app.log", [json.dumps({"org": f"t{i}"}) for i in range(30)])
    a = agent(config({"app": file_input(tmp_path / "app.log", tenant="{record.org}")},
                     {"out": archive_output(tmp_path / "out.ndjson")}, metrics={"max_tenants": 5}))
    wait_rest(a, read=30)
    rows = {dict(l)["tenant"]: v for (n, l), v in a.metrics().items() if n == "tailrace_delivered_lines_total"}
    assert rows["_other"] >= 25 and sum(rows.values()) == 30 and len(rows) <= 7
    assert len(ledger(a)[1]) >= 30  # the ledger has them all


def test_endpoints(agent, tmp_path):
    write(tmp_path / "app.log", ["one"])
    a = agent(simple(tmp_path))
    wait_rest(a, read=1)
    assert a.get("/health/live").expect(200).text == "ok\n" == a.get("/health/ready").expect(200).text
    assert a.get("/nothing").status == 404 and "/metrics" in a.get("/").expect(200).text
    assert request("POST", a.admin + "/metrics", "x").status == 405
    assert request("HEAD", a.admin + "/metrics").expect(200).body == b""
    status = a.status()
    assert status["health"] == "Optimal" and status["inputs"]["app"]["files"]["open"] == 1
    (file,) = status["files"]
    assert file["path"] == str(tmp_path / "app.log") and file["size"] == 4 and file["outputs"]["out"]["position"] == 4
    assert status["queues"]["out"]["blocked"] is None and status["outputs"]["out"]["failing"] is False
    r = run("status", "-c", a.config_path)
    assert r.returncode == 0 and json.loads(r.stdout)["ledger"] == status["ledger"]
    a.sigterm()
    r = run("status", "-c", a.config_path)
    assert r.returncode == 1 and r.stdout == "" and r.stderr.count("\n") == 1, r


def test_health_levels(agent, tmp_path, faults):
    """Optimal while all is well, Degraded for what was lost to a refusal; codes, words and JSON agree."""
    server = faults()
    write(tmp_path / "app.log", ["one"])
    a = agent(config({"app": file_input(tmp_path / "app.log", multiline="off")}, {"loki": loki_output(server.url)}))
    wait_rest(a, read=1)
    r = run("health", "-c", a.config_path)
    assert r.returncode == 0 and r.stdout.startswith("Optimal\n") and a.metric("health") == 0
    assert "loki: up, last success" in r.stdout and "room: " in r.stdout
    server.script(Reply(400, TOO_OLD))
    write(tmp_path / "app.log", ["two"])
    a.wait_metric("dead_letter_lines_total", 1)
    r = run("health", "-c", a.config_path)
    assert r.returncode == 1 and r.stdout.startswith("Degraded\n") and "dead letters" in r.stdout and a.metric("health") == 2
    j = run("health", "-c", a.config_path, "--format", "json")
    assert j.returncode == 1 and json.loads(j.stdout)["level"] == "Degraded"
    assert json.loads(j.stdout)["checks"][0]["check"] == "output loki"
    for probe in ("live", "ready"):
        r = run("health", probe, "-c", a.config_path)
        assert (r.returncode, r.stdout) == (0, "ok\n")
    a.sigterm()
    r = run("health", "-c", a.config_path)
    assert r.returncode == 3 and r.stdout.startswith("Unhealthy")
    assert run("health", "live", "-c", a.config_path).returncode == 1
    assert json.loads(run("health", "-c", a.config_path, "--format", "json").stdout)["overall_status"] == "unreachable"


def test_unhealthy_when_reading_waits(agent, tmp_path):
    """A disk that is as good as full: reading waits, and everyone says so; the probes look at the agent alone."""
    write(tmp_path / "app.log", Loggen(seed=57).lines(100))
    more_than_all = shutil.disk_usage(tmp_path).total // 2**30 + 1
    a = agent(simple(tmp_path, limits={"min_free": f"{more_than_all}GiB"}))
    a.wait_metric("queue_blocked", 1, output="out", reason="disk_full")
    r = run("health", "-c", a.config_path)
    assert r.returncode == 2 and r.stdout.startswith("Unhealthy\n") and "min_free" in r.stdout
    assert a.get("/health").status == 503 and a.metric("health") == 3
    assert a.get("/health/live").status == 200 == a.get("/health/ready").status
    assert a.events("queue.blocked")
    conf = simple(tmp_path, limits={"min_free": "1MiB"})
    a.configure(conf)
    a.sighup()
    a.wait_event("config.reloaded")
    wait_rest(a, read=100)
    wait_until(lambda: a.health()["level"] == "Optimal", 10, lambda: f"all is well: {a.health()}")


def test_ledger_across_restarts(agent, tmp_path, faults):
    """Lines that were filtered, delivered, queued and dead: the rows stay what they were, by SIGTERM and by SIGKILL."""
    server = faults()
    server.script(Reply(400, TOO_OLD))
    write(tmp_path / "app.log", [json.dumps({"level": "info", "org": "a", "msg": "refused"})])
    a = agent(config({"app": file_input(tmp_path / "app.log", tenant="{record.org}", levels="info")},
                     {"loki": loki_output(server.url), "out": archive_output(tmp_path / "out.ndjson")},
                     routes=[{"match": {"message": "dropped"}, "drop": True},
                             {"match": {"tenant": "nobody"}, "to": ["out"], "levels": "off"},
                             {"match": {"message": ["*e*", "f"]}, "to": ["loki", "out"]}]))
    a.wait_metric("dead_letter_lines_total", 1, output="loki")
    a.wait_delivered(1, "out")
    for i in range(50):
        server_lines = [json.dumps({"level": level, "org": org, "msg": msg}) for level, org, msg in (
            ("info", "a", "one"), ("debug", "b", "one"), ("warn", "b", "dropped"), ("warn", "b", "three"), ("warn", "c", "nowhere"),
            ("info", "c", "x"))]
        write(tmp_path / "app.log", server_lines)
    server.wait_requests(2, 10)
    wait_rest(a, read=301)
    server.stop()
    write(tmp_path / "app.log", [json.dumps({"level": "info", "org": "d", "msg": "queued"})] * 10)
    a.wait_metric("accepted_lines_total", 10, output="loki", tenant="d")
    a.wait_delivered(10 + 151, "out")

    def rows():
        inputs, outputs = ledger(a)
        assert all(r["imbalance"] == 0 for r in inputs + outputs), (inputs, outputs)
        key = lambda r: sorted((k, str(v)) for k, v in r.items())  # noqa: E731
        return [sorted((r for r in part if any(isinstance(v, int) and v for v in r.values())), key=key) for part in (inputs, outputs)]

    before = rows()
    assert total(before[1], "queued_lines", output="loki") == 10 and total(before[1], "dead_lines", output="loki") == 1
    assert total(before[0], "filtered_rule") == 50 and total(before[0], "filtered_level") == 50
    assert total(before[0], "filtered_unrouted") == 50 and total(before[0], "kept_lines") == 161
    a.restart()
    assert rows() == before
    a.kill9()
    a.start()
    assert rows() == before
    server.start()
    _, outputs = wait_rest(a, read=311)
    assert total(outputs, "delivered_lines", output="loki") == 160 and total(outputs, "dead_lines") == 1


# --- reload ---


def test_reload(agent, tmp_path):
    """SIGHUP takes effect whole: routes, levels, inputs, a new output; nothing is read twice or left out."""
    write(tmp_path / "app.log", [json.dumps({"level": "debug", "n": 0}), json.dumps({"level": "info", "n": 1})])
    conf = simple(tmp_path)
    conf["inputs"]["app"]["levels"] = "info"
    a = agent(conf)
    wait_rest(a, read=2)
    at = a.metric("config_reload_timestamp_seconds")
    conf["inputs"]["app"]["levels"] = "debug"
    conf["inputs"]["more"] = file_input(tmp_path / "more.log", multiline="off", tenant="second")
    conf["outputs"]["two"] = archive_output(tmp_path / "two.ndjson")
    write(tmp_path / "more.log", ["from the start"])
    a.configure(conf)
    a.sighup()
    a.wait_event("config.reloaded")
    write(tmp_path / "app.log", [json.dumps({"level": "debug", "n": 2}), json.dumps({"level": "trace", "n": 3})])
    wait_rest(a, read=5)
    assert [d.get("n", d.get("message")) for d in documents(tmp_path / "out.ndjson") if "message" not in d] == [1, 2]
    assert [d["n"] for d in documents(tmp_path / "two.ndjson") if "n" in d] == [2]
    assert [d["message"] for p in ("out", "two") for d in documents(tmp_path / f"{p}.ndjson") if "message" in d] == ["from the start"] * 2
    assert a.metric("config_reload_successful") == 1 and a.metric("config_reload_timestamp_seconds") >= at
    assert a.metric("filtered_lines_total", reason="level") == 2


def test_reload_under_load(agent, tmp_path):
    """Ten reloads while lines are written: each arrives once."""
    generator, written = Loggen(seed=56), []
    conf = simple(tmp_path)
    a = agent(conf)
    for i in range(10):
        lines = generator.lines(1000)
        written += lines
        write(tmp_path / "app.log", lines)
        conf["fields"] = {"round": str(i)}
        a.configure(conf)
        a.sighup()
        a.wait_event("config.reloaded", count=i + 1)
    _, outputs = wait_rest(a, read=10000)
    assert_arrived(written, documents(tmp_path / "out.ndjson"))
    assert total(outputs, "delivered_lines") == 10000


def test_reload_of_outputs(agent, tmp_path):
    """Outputs that are removed, renamed or in another order keep their own numbers."""
    write(tmp_path / "a.log", ["one", "two"])
    write(tmp_path / "b.log", ["three", "four", "five"])
    inputs = {name: file_input(tmp_path / f"{name}.log", multiline="off", tenant=name) for name in ("a", "b")}
    outputs = {"x": archive_output(tmp_path / "x.ndjson"), "y": archive_output(tmp_path / "y.ndjson")}
    routes = [{"match": {"tenant": "a"}, "to": ["x"]}, {"to": ["y"]}]
    a = agent(config(inputs, outputs, routes=routes))
    wait_rest(a, read=5)
    a.configure(config({"b": inputs["b"], "a": inputs["a"]}, {"y": outputs["y"], "x": outputs["x"]}, routes=routes))
    a.sighup()
    a.wait_event("config.reloaded")

    def found():
        rows_in, rows_out = wait_rest(a, read=5)
        return ({(r["input"], r["tenant"]): r["read_lines"] for r in rows_in if r["read_lines"]},
                {(r["output"], r["tenant"]): r["delivered_lines"] for r in rows_out if r["delivered_lines"]})

    assert found() == ({("a", "a"): 2, ("b", "b"): 3}, {("x", "a"): 2, ("y", "b"): 3})
    a.restart()
    assert found() == ({("a", "a"): 2, ("b", "b"): 3}, {("x", "a"): 2, ("y", "b"): 3})
    a.configure(config({"b": inputs["b"]}, {"y": outputs["y"]}))
    a.sighup()
    a.wait_event("config.reloaded")
    rows_in, rows_out = ledger(a)
    assert {(r["output"], r["tenant"]): r["delivered_lines"] for r in rows_out if r["delivered_lines"]} == {("y", "b"): 3}
    assert {(r["input"], r["tenant"]): r["read_lines"] for r in rows_in if r["read_lines"]} == {("b", "b"): 3}
    # What comes back goes on where it was.
    write(tmp_path / "a.log", ["six"])
    a.configure(config(inputs, outputs, routes=routes))
    a.sighup()
    wait_until(lambda: len(documents(tmp_path / "x.ndjson")) >= 3, 20, a.describe)
    rows_in, rows_out = wait_rest(a, read=6)
    assert [d["message"] for d in documents(tmp_path / "x.ndjson")] == ["one", "two", "six"]
    assert [d["message"] for d in documents(tmp_path / "y.ndjson")] == ["three", "four", "five"]
    assert total(rows_out, "delivered_lines", output="x") == 3 == total(rows_out, "delivered_lines", output="y")


def test_a_bad_config_is_rejected(agent, tmp_path):
    """The old one goes on, the log, the metric and the health say so; the next good one counts."""
    write(tmp_path / "app.log", ["one"])
    a = agent(simple(tmp_path))
    wait_rest(a, read=1)
    good = a.config_path.read_text()
    bad = json.loads(good)
    bad["inputs"]["app"]["levels"] = "info,x=loud"
    bad["outputs"]["out"]["type"] = "fiel"
    moved = {**json.loads(good), "state_dir": str(tmp_path / "other")}
    other_type = json.loads(good)
    other_type["outputs"]["out"] = {"type": "stdout"}
    for n, text in enumerate((json.dumps(bad), "a: [", "", json.dumps(moved), json.dumps(other_type))):
        a.config_path.write_text(text)
        a.sighup()
        wait_until(lambda: a.metric("config_reload_successful") == 0, 5, f"{text} is rejected")
        if n == 0:
            (event,) = a.wait_event("config.rejected")
            assert all(word in event["fields"]["error"] for word in (str(a.config_path), "loud", "fiel"))
        health = a.health()
        assert health["level"] == "Degraded" and "rejected" in json.dumps(health)
        write(tmp_path / "app.log", ["more"])
        wait_rest(a, read=n + 2)
        a.config_path.write_text(good)
        a.sighup()
        wait_until(lambda: a.metric("config_reload_successful") == 1, 5, "the good one counts")
        assert a.health()["level"] == "Optimal"
    assert not (tmp_path / "other").exists() and len(documents(tmp_path / "out.ndjson")) == 6


def test_reload_by_itself(agent, tmp_path):
    """The file is changed, nothing is signalled; touching it alone does nothing."""
    write(tmp_path / "app.log", ["one"])
    conf = simple(tmp_path)
    a = agent(conf)
    wait_rest(a, read=1)
    conf["inputs"]["more"] = file_input(tmp_path / "more.log", multiline="off")
    write(tmp_path / "more.log", ["two"])
    a.configure(conf)
    a.wait_event("config.reloaded", timeout=15)
    wait_rest(a, read=2)


def test_config_folder(agent, tmp_path):
    """conf.d beside the file: maps merge, routes follow; the same name twice names both files."""
    write(tmp_path / "app.log", ["one"])
    main = saved(tmp_path, simple(tmp_path))
    d = folder(tmp_path / "conf.d")
    (d / "10-more.yaml").write_text(json.dumps({"outputs": {"two": archive_output(tmp_path / "two.ndjson")}}))
    r = run("check", "-c", main)
    assert r.returncode == 0 and "two.ndjson" in r.stdout and "out.ndjson" in r.stdout, r
    (d / "20-again.yaml").write_text(json.dumps({"outputs": {"two": archive_output(tmp_path / "x.ndjson")}}))
    r = run("check", "-c", main)
    assert r.returncode == 2 and "10-more.yaml" in r.stderr and "20-again.yaml" in r.stderr, r


def test_environment_in_the_config(agent, tmp_path):
    write(tmp_path / "app.log", ["one"])
    conf = simple(tmp_path)
    conf["inputs"]["app"]["tenant"] = "${WHO:-nobody}-$$x"
    a = agent(conf, env={"WHO": "acme"})
    wait_rest(a, read=1)
    assert documents(tmp_path / "out.ndjson")[0]["tenant"] == "acme-$x"
