"""What `tailrace health` says: the agent is brought into each state by its cause, and the end of the cause brings it back.

Thresholds of time are passed by the agent's wall clock, which the test sets ahead; each threshold to the second is
tests/unit/admin/test_health.c.
"""

import json
import os
import re
import resource

from kubeworld import Node, wait_synced
from support import (HOUR, SECOND, Clock, archive_output, config, file_input, folder, loki_output, search_output,
                     without_override)
from tailrace_test import BulkReply, Reply, run, wait_until, write
from test_outage import FULL_QUEUE, Incompressible

MINUTE = 60 * SECOND
CODES = {"Optimal": 0, "Healthy": 0, "Degraded": 1, "Unhealthy": 2}


def health(a):
    """What the command says, as (level, [(level, check, text)]): text, JSON, exit code, /health and the metric must agree."""
    text = run("health", "-c", a.config_path)
    told = run("health", "-c", a.config_path, "--format", "json")
    doc = json.loads(told.stdout)
    level, *lines = text.stdout.splitlines()
    checks = [(c["level"], c["check"], c["text"]) for c in doc["checks"]]
    reasons = [m.groups() for m in (re.match(r"  (\w+) +(.+?): (.*)$", line) for line in lines) if m]
    seconds = lambda rows: [(l, c, re.sub(r"\d+ s\b", "N s", t)) for l, c, t in rows]  # noqa: E731
    assert seconds(reasons) == seconds(checks), (text.stdout, doc)
    assert (text.returncode, told.returncode) == (CODES[level], CODES[level]) and doc["level"] == level, (text, told)
    assert doc["overall_status"] == level.lower() and (level == "Optimal") == (not checks)
    assert a.get("/health").status == (503 if level == "Unhealthy" else 200)
    assert a.metric("health") == list(CODES).index(level)
    return level, checks


def reach(a, level, check=None, words=None, timeout=30):
    """Waits until health says this level, with a reason of that level whose check and words are these; then looks at all forms."""
    def there():
        doc = a.health()
        return doc["level"] == level and (check is None or any(
            c["level"] == level and c["check"] == check and re.search(words, c["text"]) for c in doc["checks"]))

    wait_until(there, timeout, lambda: f"{level}, {check}: {words}; it says {a.health()}\n{a.describe()}", interval=0.05)
    got, checks = health(a)
    assert got == level, (got, checks)
    return checks


def put(path, *lines):
    write(path, list(lines) or ["one"])


def to_loki(tmp_path, url, **more):
    return config({"app": file_input(tmp_path / "*.log", multiline="off")}, {"loki": loki_output(url, **more)})


def test_server_down_two_minutes_and_twenty(agent, faults, tmp_path):
    server, clock = faults(), Clock(tmp_path)
    put(tmp_path / "app.log")
    a = agent(to_loki(tmp_path, server.url), env=clock.env)
    a.wait_delivered(1, "loki")
    assert reach(a, "Optimal") == []
    server.stop()
    put(tmp_path / "app.log")
    a.wait_event("output.failing")
    clock.set(2 * MINUTE)
    reach(a, "Degraded", "output loki", r"requests fail for 1[12]\d s; `tailrace status` shows the last error")
    clock.set(20 * MINUTE)
    checks = reach(a, "Unhealthy", "output loki", r"nothing was accepted for (19|20) min with lines waiting; is the server up")
    assert {level for level, _, _ in checks} == {"Degraded", "Unhealthy"}
    server.start()
    a.wait_delivered(2, "loki")
    reach(a, "Optimal")


def test_one_tenant_refused(agent, faults, tmp_path):
    server, closed = faults(), [True]
    server.default = lambda r: Reply(401, "no org id") if closed[0] and r.tenant == "bad" else Reply(204)
    put(tmp_path / "app.log", '{"org":"bad"}', '{"org":"good"}')
    conf = to_loki(tmp_path, server.url)
    conf["inputs"]["app"]["tenant"] = "{record.org}"
    a = agent(conf)
    a.wait_delivered(1, "loki")
    checks = reach(a, "Degraded", "output loki", r"1 route keys \(tenants or indexes\) are held: ")
    assert not any("Unhealthy" in c for c in checks)
    closed[0] = False
    a.sighup()  # as whoever mends a token does; by itself it is tried again after a minute
    a.wait_delivered(2, "loki")
    reach(a, "Optimal")


def test_queue_nearly_full_and_full(agent, faults, tmp_path):
    server, lines = faults(default=Reply(503)), Incompressible(4000)
    a = agent(to_loki(tmp_path, server.url, queue=FULL_QUEUE))

    def fill():
        return a.metric("queue_bytes") / a.metric("queue_limit_bytes")

    for part, level in ((10, "Healthy"), (50, "Degraded"), (85, "Degraded")):
        while fill() < part / 100:
            lines.write(tmp_path / "app.log", 400)
            a.wait_metric("accepted_lines_total", lines.next)
        reach(a, level, "queue loki", r"%d\d %% full" % (part // 10) + ("; at 100 % reading waits" if part >= 50 else ""))
    lines.write(tmp_path / "app.log", 4000)
    a.wait_metric("queue_blocked", 1, output="loki", reason="full")
    reach(a, "Unhealthy", "queue loki", "the queue is full; the server must take lines, or queue.max_bytes must grow")
    server.default = Reply(204)
    a.wait_delivered(lines.next, "loki")
    reach(a, "Optimal")


def test_state_folder_read_only(agent, tmp_path):
    put(tmp_path / "app.log")
    a = agent(config({"app": file_input(tmp_path / "*.log")}, {"out": archive_output(tmp_path / "out.ndjson")}),
              wrap=without_override())
    a.wait_delivered(1, "out")
    assert reach(a, "Optimal") == []
    os.chmod(a.state_dir, 0o555)
    try:
        reach(a, "Unhealthy", "state", "the state folder is not writable; ")
    finally:
        os.chmod(a.state_dir, 0o755)
    reach(a, "Optimal")


def test_a_file_that_cannot_be_read(agent, tmp_path):
    logs = folder(tmp_path / "logs")
    put(logs / "app.log")
    a = agent(config({"app": file_input(logs / "*.log")}, {"out": archive_output(tmp_path / "out.ndjson")}),
              wrap=without_override())
    a.wait_delivered(1, "out")
    os.close(os.open(logs / "locked.log", os.O_CREAT, 0))
    reach(a, "Degraded", "input app", r"1 files cannot be read; does the agent have the permission")
    os.chmod(logs / "locked.log", 0o644)
    put(logs / "locked.log")
    a.wait_delivered(2, "out")
    reach(a, "Optimal")


def test_certificate_with_five_days_left(agent, faults, certs, tmp_path):
    server = faults(tls=certs.valid_for("soon", 5))
    put(tmp_path / "app.log")
    a = agent(to_loki(tmp_path, server.url, tls={"ca_file": str(certs.ca)}))
    a.wait_delivered(1, "loki")
    reach(a, "Degraded", "output loki", r"the server's certificate ends in [45] days; renew it")
    assert re.search(r"loki: up, .*certificate [45] days", run("health", "-c", a.config_path).stdout)
    server.stop()
    renewed = faults(tls=certs.server, port=server.port)
    put(tmp_path / "app.log")
    a.wait_delivered(2, "loki")
    assert len(renewed.requests) == 1
    reach(a, "Optimal")


def test_client_certificate_with_five_days_left(agent, faults, certs, tmp_path):
    server = faults(tls=certs.server, client_ca=certs.ca)
    cert, key = certs.valid_for("client-soon", 5)
    tls = {"ca_file": str(certs.ca), "cert_file": str(cert), "key_file": str(key)}
    put(tmp_path / "app.log")
    a = agent(to_loki(tmp_path, server.url, tls=tls))
    a.wait_delivered(1, "loki")
    reach(a, "Degraded", "output loki", r"the client certificate ends in [45] days; renew it")
    a.configure(to_loki(tmp_path, server.url, tls={**tls, **dict(zip(("cert_file", "key_file"), map(str, certs.client)))}))
    a.sighup()
    put(tmp_path / "app.log")
    a.wait_delivered(2, "loki")
    reach(a, "Optimal")


def test_agent_not_running(agent, tmp_path):
    a = agent(config({"app": file_input(tmp_path / "*.log")}, {"out": archive_output(tmp_path / "out.ndjson")}))
    assert reach(a, "Optimal") == []
    a.sigterm()
    text, told = run("health", "-c", a.config_path), run("health", "-c", a.config_path, "--format", "json")
    assert (text.returncode, told.returncode) == (3, 3)
    assert text.stdout == "Unhealthy\n  Unhealthy agent: the agent does not answer; is it running? (systemctl status tailrace)\n"
    doc = json.loads(told.stdout)
    assert (doc["level"], doc["overall_status"], doc["checks"][0]["check"]) == ("Unhealthy", "unreachable", "agent")
    a.start()
    reach(a, "Optimal")


def test_pods_are_not_watched(agent, kube, tmp_path):
    """The API server refuses the token for a minute: new pods would lack labels."""
    node, clock = Node(kube, tmp_path, "health"), Clock(tmp_path)
    good = node.token_file.read_text()
    a = agent(node.config({"requests_per_minute": 6000}), env={"NODE_NAME": node.name, **clock.env})
    wait_synced(a)
    assert reach(a, "Optimal") == []
    a.sigterm()
    node.token_file.write_text("wrong")
    a.start()
    a.wait_event("kube.failing")
    clock.set(2 * MINUTE)
    reach(a, "Degraded", "kubernetes",
          r"the API server is not watched for 1[12]\d s: new pods lack labels; the log says why \(kube.failing\)")
    node.token_file.write_text(good)
    node.write(node.pod("late"))  # lines that wait for their pod have the server asked again at once
    reach(a, "Optimal")
    assert node.wait(agent=a)


def test_dead_letters_are_told_of_for_an_hour(agent, faults, tmp_path):
    server, clock = faults(default=BulkReply(lambda items: [400] * len(items))), Clock(tmp_path)
    a = agent(config({"app": file_input(tmp_path / "*.log", multiline="off")},
                     {"search": search_output(server.url, template="off", document={"on_refused": "dead"})}), env=clock.env)
    put(tmp_path / "app.log", '{"m":1}')
    a.wait_metric("dead_letter_lines_total", 1)
    reach(a, "Degraded", "output search", "0 min ago lines became dead letters; see `tailrace queue ls`")
    clock.set(16 * MINUTE)
    reach(a, "Healthy", "output search", "1[56] min ago lines became dead letters")
    clock.set(HOUR + MINUTE)
    reach(a, "Optimal")


def test_disk_with_little_room(agent, tmp_path):
    """What is free is less than twice limits.min_free. Below it reading waits: test_cli.py."""
    disk = os.statvfs(tmp_path)
    conf = {"inputs": {"app": file_input(tmp_path / "*.log")}, "outputs": {"out": archive_output(tmp_path / "out.ndjson")}}
    a = agent(config(**conf, limits={"min_free": f"{disk.f_bavail * disk.f_frsize * 7 // 10 >> 20}MiB"}))
    reach(a, "Healthy", "disk", r"\d+ MiB are free where the queues are, below \d+ MiB \(limits.min_free\) reading waits; free some space")
    a.configure(config(**conf, limits={"min_free": "1MiB"}))
    a.sighup()
    reach(a, "Optimal")


def test_descriptors_run_out(agent, tmp_path):
    a = agent(config({"app": file_input(tmp_path / "logs/*.log")}, {"out": archive_output(tmp_path / "out.ndjson")}))
    soft, hard = resource.prlimit(a.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(a.pid, resource.RLIMIT_NOFILE, (a.descriptors() + 2, hard))
    reach(a, "Degraded", "descriptors", r"\d+ of \d+ are open; raise the limit \(LimitNOFILE\), or follow fewer files")
    resource.prlimit(a.pid, resource.RLIMIT_NOFILE, (soft, hard))
    reach(a, "Optimal")
