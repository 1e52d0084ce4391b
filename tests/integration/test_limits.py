"""Limits that hold: memory with many tenants, long lines and no server; descriptors; who does not move is told and moved."""

import json
import resource
import time

from arrival import counted_once
from support import QUICK, config, file_input, folder, loki_output, rfc3339, search_output, wait_read
from tailrace_test import CountServer, Loggen, wait_until, write

MIB = 1 << 20


class Tenants:
    """Lines of 500 tenants with two services each; now and then one of a megabyte."""

    def __init__(self):
        self.next = 0

    def write(self, path, n, long_every=0):
        with open(path, "a", encoding="ascii") as f:
            for _ in range(n):
                i = self.next
                self.next += 1
                pad = MIB - 4096 if long_every and i % long_every == long_every - 1 else 100
                f.write(json.dumps({"timestamp": rfc3339(time.time_ns(), 6), "level": "info", "seq": f"S{i:010d}",
                                    "org": f"tenant-{i % 500:03d}", "svc": f"s{i // 500 % 2}", "message": "x" * pad}) + "\n")


def peak_in(agent):
    return agent.memory()["VmHWM"]


def test_memory_with_a_dead_server(agent, tmp_path):
    """The least that limits.memory may be: what is on its way stays small, nothing is lost, all arrives."""
    logs, lines = folder(tmp_path / "logs"), Tenants()
    with CountServer(tmp_path / "server") as server:
        url = server.url
        server.stop()
        a = agent(config(
            {"app": file_input(logs / "*.log", multiline="off")},
            {"loki": loki_output(url, tenant="{record.org}", labels={"service_name": "{record.svc}"}, queue={}),
             "search": search_output(url, index="all", template="off", queue={})},
            limits={"memory": "8MiB"}))
        for i in range(50):
            lines.write(logs / f"{i}.log", 800, long_every=1000)
        wait_read(a, lines.next, timeout=90)
        kinds = {dict(labels)["kind"]: n for (name, labels), n in a.metrics().items()
                 if name == "tailrace_memory_accounted_bytes"}
        print({k: v >> 10 for k, v in a.memory().items() if k in ("VmHWM", "VmRSS", "RssAnon")}, kinds)
        assert set(kinds) == {"files", "joins", "batches", "streams", "queues", "lanes", "sending", "answers"}
        assert kinds["files"] > 0 and kinds["streams"] > 0 and kinds["queues"] > 0
        assert peak_in(a) <= 32 * MIB, a.memory()
        assert a.metric("memory_limit_bytes") == 8 * MIB
        a.wait_event("memory.tight")
        assert any(c["check"] == "memory" for c in a.health()["checks"]), a.health()
        server.start()
        counted_once(a, server, lines.next, kinds=("loki", "bulk"), timeout=90)
        assert peak_in(a) <= 40 * MIB, a.memory()


def test_more_active_files_than_descriptors(agent, tmp_path):
    logs, generator = folder(tmp_path / "logs"), Loggen(seed=5)
    with CountServer(tmp_path / "server") as server:
        a = agent(config({"app": file_input(logs / "*.log")}, {"search": search_output(server.url, index="all", template="off")}),
                  nofile=256)
        for _ in range(3):  # all of them, again and again
            for i in range(1000):
                write(logs / f"{i}.log", generator.lines(2))
        counted_once(a, server, 6000, timeout=60)
        assert a.descriptors() < 256


def test_descriptors_run_out_from_outside(agent, tmp_path):
    """The limit falls below what is open: nothing ends, it is said, and when it rises everything arrives."""
    logs, generator = folder(tmp_path / "logs"), Loggen(seed=6)
    for i in range(20):
        write(logs / f"{i}.log", generator.lines(5))
    with CountServer(tmp_path / "server") as server:
        a = agent(config({"app": file_input(logs / "*.log")}, {"search": search_output(server.url, index="all", template="off",
                                                                                       queue=QUICK)}))
        counted_once(a, server, 100, timeout=30)
        limits = resource.prlimit(a.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(a.pid, resource.RLIMIT_NOFILE, (8, limits[1]))
        for i in range(20, 40):
            write(logs / f"{i}.log", generator.lines(5))
        for i in range(10):
            write(logs / f"{i}.log", generator.lines(5))
        wait_until(lambda: a.events("file.stalled") or a.events("file.unreadable"), 20, "it is said")
        resource.prlimit(a.pid, resource.RLIMIT_NOFILE, limits)
        counted_once(a, server, 250, timeout=40)
