"""The alert rules: their causes are made on running agents, a real Prometheus scrapes them, and the alerts fire.

What only a defect of Tailrace could cause (TailraceLedgerImbalance, TailraceOutputStalled) is tried by promtool alone.
"""

import os
import pathlib
import re
import resource
import time

from support import (SECOND, Clock, archive_output, config, file_input, folder, loki_output, rfc3339, search_output,
                     without_override)
from tailrace_test import BulkReply, Loggen, Prometheus, Reply, wait_until, write
from test_outage import FULL_QUEUE, Incompressible

ROOT = pathlib.Path(__file__).resolve().parents[2]
RULES = ROOT / "packaging/prometheus/tailrace.rules.yaml"
# Only a defect of Tailrace makes these.
NEVER = {"TailraceLedgerImbalance", "TailraceOutputStalled"}


def hurried(text):
    """The rules with seconds for minutes: the same expressions, windows and thresholds of time shortened."""
    text = re.sub(r"\bfor: \w+", "for: 1s", text)
    text = re.sub(r"\[\d+m\]", "[20s]", text)
    text, n = re.subn(r"(seconds|timestamp_seconds) > (900|300|60)\b", r"\1 > 2", text)
    assert n >= 6, n
    return text


class World:
    """Agents by the name of what ails them, and the Prometheus that watches them."""

    def __init__(self, agent, tmp_path):
        self.make, self.tmp, self.agents = agent, tmp_path, {}

    def agent(self, name, outputs, input_more=None, **more):
        """One that follows its folder's app.log."""
        where = folder(self.tmp / f"logs-{name}")
        kw = {k: more.pop(k) for k in ("env", "wrap", "nofile") if k in more}
        conf = config({"app": file_input(where / "*.log", multiline="off", **(input_more or {}))}, outputs, **more)
        self.agents[name] = self.make(conf, name=name, **kw)
        return self.agents[name], where / "app.log"

    def targets(self):
        return [(a.admin.removeprefix("http://"), {"cause": name}) for name, a in self.agents.items()]


def failing_outputs(world, faults):
    """A server that answers 503, while lines come."""
    refusing = faults(default=Reply(503))
    _, log = world.agent("away", {"loki": loki_output(refusing.url, queue=FULL_QUEUE)})
    return log


def full_queue(world, faults):
    """64 MiB are full, then deleted files are held, then let go."""
    refusing = faults(default=Reply(503))
    a, log = world.agent("full", {"loki": loki_output(refusing.url, queue=FULL_QUEUE)},
                         limits={"held": {"max_bytes": "120MiB"}})
    lines = Incompressible(4000)
    lines.write(log, 20000)
    a.wait_metric("queue_blocked", 1, output="loki", reason="full", timeout=60)
    return a, log, lines


def causes(world, faults, tmp_path, certs):
    """Starts an agent for each cause; returns {alert: cause}."""
    disk = os.statvfs(tmp_path)

    never = faults(default=BulkReply(lambda items: [400] * len(items)))
    world.agent("dead", {"search": search_output(never.url, template="off", document={"on_refused": "dead"})})

    picky = faults(default=Reply(204))
    picky.script(Reply(401), when=lambda r: r.tenant == "bad", times=100000)
    world.agent("refused", {"loki": loki_output(picky.url)}, {"tenant": "{record.org}"})

    unable = without_override()
    locked, _ = world.agent("locked", {"out": archive_output(tmp_path / "locked.ndjson")}, wrap=unable)

    world.agent("disk", {"out": archive_output(tmp_path / "disk.ndjson")},
                limits={"min_free": f"{disk.f_bavail * disk.f_frsize * 7 // 10 >> 20}MiB"})
    world.agent("memory", {"out": archive_output(tmp_path / "memory.ndjson")}, limits={"memory": "8MiB"})
    descriptors, _ = world.agent("descriptors", {"out": archive_output(tmp_path / "descriptors.ndjson")})
    stalled, log = world.agent("stalled", {"out": archive_output(tmp_path / "stalled.ndjson")}, wrap=unable, nofile=64)
    for i in range(100):  # more than it can keep open
        write(log.with_name(f"{i}.log"), ["one"])
    world.agent("tenants", {"out": archive_output(tmp_path / "tenants.ndjson")}, {"tenant": "{record.org}"},
                tenants={"allow": ["good"]})
    world.agent("clock", {"out": archive_output(tmp_path / "clock.ndjson")}, env=Clock(tmp_path, 120 * SECOND).env)
    world.agent("future", {"loki": loki_output(faults(default=Reply(204)).url)})
    rejected, _ = world.agent("rejected", {"out": archive_output(tmp_path / "rejected.ndjson")})

    world.agent("pods", {"out": archive_output(tmp_path / "pods.ndjson")}, {"type": "kubernetes"}, env={"NODE_NAME": "n"},
                kubernetes={"api": faults(default=Reply(403)).url, "token_file": "", "ca_file": "", "requests_per_minute": 600})

    for name, days in (("soon", 10), ("tomorrow", 1)):
        server = faults(tls=certs.valid_for(name, days), default=Reply(204))
        world.agent(name, {"loki": loki_output(server.url, tls={"ca_file": str(certs.ca)})})
    return locked, descriptors, stalled, rejected


def test_each_alert_fires_when_its_cause_is_there(agent, faults, certs, tmp_path):
    world = World(agent, tmp_path)
    world.agent("well", {"loki": loki_output(faults(default=Reply(204)).url), "out": archive_output(tmp_path / "well.ndjson")})
    down, _ = world.agent("down", {"out": archive_output(tmp_path / "down.ndjson")})
    full, full_log, lines = full_queue(world, faults)
    away_log = failing_outputs(world, faults)
    locked, descriptors, stalled, rejected = causes(world, faults, tmp_path, certs)
    logs = {name: tmp_path / f"logs-{name}/app.log" for name in world.agents}

    rules = tmp_path / "rules.yaml"
    rules.write_text(hurried(RULES.read_text()))
    generator = Loggen(seed=77)
    with Prometheus(tmp_path, "tailrace", world.targets(), rules=[rules]) as prometheus:
        wait_until(lambda: len(prometheus.query("tailrace_build_info and on(instance) output:tailrace_lost_bytes:sum")) == len(world.agents),
                   30, lambda: f"all are scraped: {prometheus.get('/api/v1/targets')}")

        # What happens once all are watched.
        down.sigterm()
        os.close(os.open(tmp_path / "logs-locked/app.log", os.O_CREAT, 0))
        limits = resource.prlimit(descriptors.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(descriptors.pid, resource.RLIMIT_NOFILE, (descriptors.descriptors() + 2, limits[1]))
        stalled.wait_delivered(100, "out")
        for i in range(100):
            path = tmp_path / f"logs-stalled/{i}.log"
            os.chmod(path, 0)
            write(path, ["two"])
        good = rejected.config_path.read_text()
        rejected.config_path.write_text("inputs: nonsense\n")
        rejected.sighup()
        full_log.unlink()

        seen, quiet = {}, set()

        def watched():
            """One look; feeds those that need lines to come."""
            now = time.time_ns()
            for name in ("well", "soon", "tomorrow", "dead"):
                write(logs[name], generator.lines(2))
            write(logs["refused"], ['{"org":"bad","m":1}', '{"org":"good","m":2}'])
            write(logs["tenants"], ['{"org":"stranger","m":1}'])
            write(logs["future"], ['{"timestamp":"%s","level":"info","message":"early"}' % rfc3339(now + 7200 * 10**9)])
            lines.write(away_log, 40)
            for labels in prometheus.alerts():
                seen.setdefault((labels["alertname"], labels["severity"]), set()).add(labels.get("cause"))
                if labels.get("cause") == "well":
                    quiet.add(labels["alertname"])
            return expected() <= {(a, s) for a, s in seen}

        def expected():
            severities = re.findall(r"alert: (\w+)\n.*?severity: (\w+)", RULES.read_text(), re.S)
            return {(a, s) for a, s in severities if a not in NEVER | {"TailraceAbsent"} | LATER}

        # First the deleted file is held, more than half of what may be; then it is more than that, and is let go.
        LATER = {"TailraceLinesLost"}
        wait_until(watched, 60, lambda: f"missing: {expected() - set(seen)}; firing: {seen}", interval=0.5)
        LATER = set()
        lines.write(full_log, 20000)
        wait_until(lambda: full.metric("unread_bytes") > 70 << 20, 15, lambda: f"{full.metric('unread_bytes')} {full.status()['files']}")
        full_log.unlink()
        wait_until(watched, 60, lambda: f"missing: {expected() - set(seen)}; firing: {seen}", interval=0.5)
        assert not quiet, f"nothing ails it: {quiet}"
        prometheus.point([])
        wait_until(lambda: any(a["alertname"] == "TailraceAbsent" for a in prometheus.alerts()), 30, "TailraceAbsent fires")

    # Each alert is about the agent that has its cause.
    table = {
        "TailraceDown": "down", "TailraceUnhealthy": "full", "TailraceConfigRejected": "rejected",
        "TailraceNotDelivering": "away", "TailraceOutputFailing": "away", "TailraceDeliveryLate": "away",
        "TailraceTenantRefused": "refused", "TailraceDeadLetters": "dead", "TailraceLinesLost": "full",
        "TailraceBacklogGrowing": "away", "TailraceQueueFullSoon": "away", "TailraceQueueNearlyFull": "full",
        "TailraceReadingBlocked": "full", "TailraceHeldFilesNearLimit": "full", "TailraceDiskLow": "disk",
        "TailraceMemoryHigh": "memory", "TailraceDescriptorsLow": "descriptors", "TailraceTenantOverflow": "tenants",
        "TailraceFileUnreadable": "locked", "TailraceFileStalled": "stalled", "TailraceClockOff": "clock", "TailracePodsUnknown": "pods", "TailraceLinesFromTheFuture": "future",
    }
    for (alert, severity), about in seen.items():
        if alert in table:
            assert table[alert] in about, (alert, about)
    assert seen["TailraceCertificateExpiring", "warning"] == {"soon", "tomorrow"}
    assert seen["TailraceCertificateExpiring", "critical"] == {"tomorrow"}
    resource.prlimit(descriptors.pid, resource.RLIMIT_NOFILE, limits)
    rejected.config_path.write_text(good)
