"""Servers that are away, and queues that are full: the other output goes on, and afterwards everything is there."""

import json
import os
import random
import string
import time

import pytest

from arrival import in_loki, indexed_once, nothing_lost
from support import SECOND, config, file_input, folder, loki_output, rfc3339, search_output, total, wait_read, wait_rest
from tailrace_test import CountServer, LoggenRun, Reply, wait_until

FULL = os.environ.get("TAILRACE_FULL") == "1"
AWAY = 60 if FULL else 6  # seconds
FULL_QUEUE = {"batch_wait": "50ms", "sync": "10ms", "max_bytes": "64MiB"}


class Incompressible:
    """Lines of random letters, so that 64 MiB of a queue are few lines."""

    def __init__(self, size=1000):
        self.size, self.next = size, 0
        self.noise = "".join(random.Random(1).choices(string.ascii_letters + string.digits, k=1 << 20))

    def write(self, path, n):
        stamp, out = rfc3339(time.time_ns(), 6), []
        for _ in range(n):
            at = self.next * 7919 % (len(self.noise) - self.size)
            out.append(json.dumps({"timestamp": stamp, "level": "info", "seq": f"S{self.next:010d}",
                                   "message": self.noise[at : at + self.size]}))
            self.next += 1
        with open(path, "a", encoding="ascii") as f:
            f.write("\n".join(out) + "\n")

    def ids(self):
        return {f"S{i:010d}" for i in range(self.next)}


def distinct(server, kind, n, agent, timeout=60):
    wait_until(lambda: server.report()[kind]["ids"]["distinct"] >= n, timeout,
               lambda: f"{n} lines ({kind}): {server.report(lines=n)[kind]}\n{agent.describe()}", interval=0.05)


def test_loki_away_for_a_while(agent, loki, elasticsearch, tenant, index, tmp_path):
    rate = 1500
    writer = LoggenRun(tmp_path / "logs", lines=rate * (AWAY + 6), files=10, rotate=200_000, rate=rate)
    a = agent(config(
        {"app": file_input(tmp_path / "logs/*.log", multiline="off", tenant=tenant)},
        {"loki": loki_output(loki.url),
         "search": search_output(elasticsearch.url, index=index, document={"payload": "log"})}))
    a.wait_delivered(2 * rate, "loki")
    loki.stop()
    away_since = time.monotonic()
    a.wait_event("output.failing")
    for second in range(1, AWAY):  # as many as are written in that time go to the other one, second by second
        a.wait_delivered(a.metric("read_lines_total"), "search", timeout=10)
        wait_until(lambda: time.monotonic() - away_since >= second, 5, "a second has passed")
    before = a.metric("delivered_lines_total", output="loki")
    assert a.metric("delivered_lines_total", output="search") > before + rate * (AWAY - 2)
    assert a.metric("output_up", output="loki") == 0 and a.metric("output_up", output="search") == 1
    loki.start()
    written = writer.wait()
    _, outputs = wait_rest(a, read=written.lines, timeout=90)
    nothing_lost(outputs)
    a.wait_event("output.recovered")
    indexed_once(elasticsearch, index, written.ids())
    in_loki(loki, tenant, '{service_name=~".+"}', written.first_ts - SECOND, written.last_ts + SECOND, written.ids())


def test_full_queue_of_one_output(agent, elasticsearch, index, faults, tmp_path):
    """Its files are held, rotated ones and deleted ones too; the other output gets each line when it is written."""
    refusing = faults(default=Reply(503))
    lines, path = Incompressible(), folder(tmp_path / "logs") / "app.log"
    a = agent(config(
        {"app": file_input(path, multiline="off")},
        {"loki": loki_output(refusing.url, queue=FULL_QUEUE),
         "search": search_output(elasticsearch.url, index=index, document={"payload": "log"})}))
    for i in range(20):  # 80 MB
        lines.write(path, 4000)
        a.wait_delivered(lines.next, "search")
        if i % 3 == 2:
            (tmp_path / "logs/app.log.1").unlink(missing_ok=True)
            path.rename(tmp_path / "logs/app.log.1")
    a.wait_metric("queue_blocked", 1, output="loki", reason="full")
    a.wait_event("queue.blocked")
    assert a.health()["level"] == "Unhealthy"
    assert a.metric("delivered_lines_total", output="loki") == 0 and a.metric("held_bytes") > 0
    lines.write(path, 100)
    a.wait_delivered(lines.next, "search")
    assert a.memory()["VmRSS"] <= 64 << 20
    refusing.stop()
    with CountServer(tmp_path / "server", port=refusing.port) as server:
        distinct(server, "loki", lines.next, a, timeout=120)
        _, outputs = wait_rest(a, read=lines.next, timeout=30)
        nothing_lost(outputs)
        assert total(outputs, "delivered_lines", output="loki") == lines.next
        ids = server.report(lines=lines.next)["loki"]["ids"]
        assert (ids["missing"], ids["duplicates"]) == (0, 0)
    wait_until(lambda: a.metric("held_bytes") == 0, 30, lambda: f"nothing is held any more\n{a.describe()}")
    indexed_once(elasticsearch, index, lines.ids())


def test_full_queue_over_restarts(agent, faults, tmp_path):
    """Stopped and killed while one output stands far behind the other in every file."""
    refusing = faults(default=Reply(503))
    lines = Incompressible(4000)
    logs = folder(tmp_path / "logs")
    with CountServer(tmp_path / "good") as good:
        a = agent(config({"app": file_input(logs / "*.log", multiline="off")},
                         {"loki": loki_output(refusing.url, queue=FULL_QUEUE),
                          "search": search_output(good.url, index="all", template="off")}))
        for i in range(20):
            lines.write(logs / f"{i % 4}.log", 1000)
        a.wait_metric("queue_blocked", 1, output="loki", reason="full")
        for how in ("sigterm", "kill9", "sigterm"):
            lines.write(logs / "1.log", 50)
            distinct(good, "bulk", lines.next, a)
            (logs / "3.log").rename(logs / "3.log.1") if how == "kill9" else None
            getattr(a, how)()
            lines.write(logs / "2.log", 50)
            a.start()
        distinct(good, "bulk", lines.next, a)
        refusing.stop()
        with CountServer(tmp_path / "server", port=refusing.port) as server:
            distinct(server, "loki", lines.next, a, timeout=120)
            _, outputs = wait_rest(a, read=lines.next, timeout=30)
            nothing_lost(outputs)
            ids = server.report(lines=lines.next)["loki"]["ids"]
            assert (ids["missing"], ids["duplicates"]) == (0, 0)
        # A kill may make it send again what was answered in that moment, with the same ids.
        assert total(outputs, "delivered_lines", output="search") == lines.next


@pytest.mark.parametrize("files", [10_000])
def test_more_files_than_descriptors(agent, tmp_path, files):
    """10,000 files with 1,024 descriptors; then an output is away, its queue is full, and every file has more for it."""
    logs = folder(tmp_path / "logs")
    lines = Incompressible(1000)
    names = [folder(logs / f"{k:02d}") / f"{i}.log" for k in range(100) for i in range(files // 100)]

    def each(n):
        for name in names:
            lines.write(name, n)

    each(1)
    with CountServer(tmp_path / "good") as good, CountServer(tmp_path / "bad") as bad:
        a = agent(config({"app": file_input(logs / "*/*.log", multiline="off")},
                         {"loki": loki_output(bad.url, queue=FULL_QUEUE),
                          "search": search_output(good.url, index="all", template="off")}), nofile=1024)
        distinct(good, "bulk", files, a)
        distinct(bad, "loki", files, a)
        assert a.metric("files", input="app", state="open") == files and a.descriptors() < 1024
        bad.stop()
        each(8)
        distinct(good, "bulk", 9 * files, a, timeout=120)
        a.wait_metric("queue_blocked", 1, output="loki", reason="full")
        assert a.descriptors() < 1024
        each(1)
        distinct(good, "bulk", 10 * files, a)
        bad.start()
        distinct(bad, "loki", 9 * files, a, timeout=120)  # it counts anew
        _, outputs = wait_rest(a, read=10 * files, timeout=60)
        nothing_lost(outputs)
        ids = bad.report(first=files, lines=9 * files)["loki"]["ids"]
        assert (ids["missing"], ids["duplicates"]) == (0, 0), ids
        assert a.metric("lost_lines_total") == 0 and not a.events("file.stalled")


def test_both_away_from_the_start(agent, tmp_path):
    """Nothing listens yet when the agent starts; it is ready all the same, and ships when they come."""
    lines, path = Incompressible(100), folder(tmp_path / "logs") / "app.log"
    lines.write(path, 1000)
    server = CountServer(tmp_path / "server")
    server.start()
    server.stop()
    a = agent(config({"app": file_input(path, multiline="off")},
                     {"loki": loki_output(server.url), "search": search_output(server.url, index="all", template="off")}))
    wait_read(a, 1000)
    a.wait_metric("requests_total", 1, output="loki", code="refused")
    with server:
        for kind in ("loki", "bulk"):
            distinct(server, kind, 1000, a)
        _, outputs = wait_rest(a, read=1000)
        nothing_lost(outputs)
