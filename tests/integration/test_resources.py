"""What it costs: memory and processor as the kernel counts them, and system calls."""

import os
import re
import time

import pytest

from arrival import counted_once
from support import config, file_input, folder, loki_output, search_output
from tailrace_test import CountServer, Loggen, LoggenRun, run_loggen, wait_until, write

FULL = os.environ.get("TAILRACE_FULL") == "1"
MIB = 1 << 20


def outputs(server, *names):
    """As a user has them: batches of a second, the sync of every 200 ms."""
    both = {"loki": loki_output(server.url, queue={}),
            "search": search_output(server.url, index="all", template="off", queue={})}
    return {name: both[name] for name in names or both}


def both(tmp_path, server):
    return config({"app": file_input(tmp_path / "logs/*.log")}, outputs(server))


def test_memory_under_load(agent, tmp_path):
    """20,000 lines a second to both outputs."""
    seconds = 60 if FULL else 15
    with CountServer(tmp_path / "server", latency=20) as server:
        writer = LoggenRun(tmp_path / "logs", lines=20_000 * seconds, files=50, rotate=2 * MIB, tenants=7, rate=20_000)
        a = agent(both(tmp_path, server))
        written = writer.wait()
        counted_once(a, server, written.lines, kinds=("loki", "bulk"))
        memory = a.memory()
        print({k: v >> 10 for k, v in memory.items() if k in ("VmHWM", "VmRSS", "RssAnon", "RssFile")},
              f"cpu {a.cpu_seconds():.2f} s")
        assert memory["VmHWM"] <= 32 * MIB, memory
        assert a.metric("process_resident_memory_bytes") <= 32 * MIB


def processor_ns(pid):
    """Of all threads, in ns: finer than /proc/PID/stat."""
    spent = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as f:
            spent += int(f.read().split()[0])
    return spent


def test_idle_with_1000_files(agent, tmp_path):
    logs, generator = folder(tmp_path / "logs"), Loggen(seed=3)
    for i in range(1000):
        write(logs / f"{i}.log", generator.lines(2))
    with CountServer(tmp_path / "server") as server:
        a = agent(both(tmp_path, server))
        counted_once(a, server, 2000, kinds=("loki", "bulk"))
        seconds = 60 if FULL else 12  # at least one rescan is in it
        before, start = processor_ns(a.pid), time.monotonic()
        wait_until(lambda: time.monotonic() - start >= seconds, seconds + 5, "the time has passed", interval=0.5)
        share = (processor_ns(a.pid) - before) / 1e9 / (time.monotonic() - start)
        memory = a.memory()
        print(f"cpu {share:.5%}", {k: v >> 10 for k, v in memory.items() if k in ("RssAnon", "VmRSS")})
        assert memory["RssAnon"] <= 6 * MIB, memory
        assert share < (0.001 if FULL else 0.002), f"{share:.4%} of a processor while idle"  # shorter runs measure the neighbours too
        write(logs / "17.log", generator.lines(1))  # and it is awake all the same
        counted_once(a, server, 2001, kinds=("loki", "bulk"))


@pytest.mark.parametrize("output, kind", [("loki", "loki"), ("search", "bulk")])
def test_system_calls_at_full_speed(agent, tmp_path, output, kind):
    """At most one in 100 lines, of all threads, start and end included."""
    written = run_loggen(tmp_path / "logs", lines=1_000_000, files=50, rotate=0)
    calls = tmp_path / "calls"
    with CountServer(tmp_path / "server") as server:
        # -D: the tracer is a grandchild, so that the process is the agent itself.
        a = agent(config({"app": file_input(tmp_path / "logs/*.log")}, outputs(server, output)),
                  wrap=["strace", "-D", "-f", "-c", "-U", "name,calls,errors", "-o", str(calls)])
        server.wait_lines(kind, written.lines, 120)
        a.sigterm()
        wait_until(lambda: calls.exists() and "total" in calls.read_text(), 10, "the tracer has written its table")
    table = calls.read_text()
    print(table)
    made = int(re.search(r"^total +(\d+)", table, re.M)[1])
    assert made <= written.lines // 100, f"{made} system calls for {written.lines} lines\n{table}"
