"""steady.py: what Tailrace costs and how late it is when it is not at full speed.

    latency   20,000 lines a second to Loki: from the time in the line to the server's taking it, p50 and p99, with the
              defaults and with batch_wait: 100ms
    idle      10,000 files at rest, both outputs: anonymous memory, share of a core, wake-ups a second
    tenants   1,000 tenants at 20 lines a second each to Loki: share of a core, requests, how old the oldest line is that waits
    pace      limits.cpu at full speed: the share of a core that is taken

Figures, never a pass or fail; lost or doubled lines are.
"""
import argparse
import json
import os
import pathlib
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "lib"))
from tailrace_test import Agent, CountServer, LoggenRun, wait_until  # noqa: E402
from workloads import five  # noqa: E402


def tasks(pid):
    return [pathlib.Path(f"/proc/{pid}/task/{t}") for t in os.listdir(f"/proc/{pid}/task")]


def cpu_seconds(pid):
    """Of all threads, to the nanosecond."""
    return sum(int((t / "schedstat").read_text().split()[0]) for t in tasks(pid)) / 1e9


def wakeups(pid):
    return sum(int((t / "status").read_text().split("\nvoluntary_ctxt_switches:")[1].split()[0]) for t in tasks(pid))


def config(include, outputs, **more):
    return {"inputs": {"app": {"type": "file", "include": [str(include)], "multiline": "off", "tenant": "{record.tenant|'none'}"}},
            "outputs": outputs, **more}


def quantile(delays, q):
    """delays: [[us, lines]..]; in ms."""
    delays = sorted(delays)
    want, seen = q * sum(n for _, n in delays), 0
    for us, n in delays:
        seen += n
        if seen >= want:
            return us / 1000
    return 0.0


def latency(tmp, args):
    for wait in ("1s", "100ms"):
        here = tmp / f"latency-{wait}"
        with CountServer(here / "server", check=True, delays=True) as server:
            a = Agent(here / "agent", config(here / "logs/*.log", {"loki": {"type": "loki", "url": server.url,
                                                                            "queue": {"batch_wait": wait}}})).start()
            try:
                before, start = cpu_seconds(a.pid), time.monotonic()
                written = LoggenRun(here / "logs", lines=int(20_000 * args.seconds), files=20, tenants=5, rate=20_000).wait()
                share = (cpu_seconds(a.pid) - before) / (time.monotonic() - start)
                wait_until(lambda: server.report(lines=written.lines)["loki"]["ids"]["missing"] == 0, 30, "all lines")
                report = server.report(lines=written.lines)["loki"]
                assert report["ids"]["duplicates"] == 0, report["ids"]
                delays = [d for t in report["tenants"].values() for d in t.get("delays", [])]
                print(f"batch_wait {wait:<6} p50 {quantile(delays, .5):6.0f} ms   p99 {quantile(delays, .99):6.0f} ms   "
                      f"{written.lines} lines, {share:.1%} of a core", flush=True)
            finally:
                a.close()


def idle(tmp, args):
    logs = tmp / "idle/logs"
    logs.mkdir(parents=True)
    for i in range(10_000):
        (logs / f"{i:05}.log").write_bytes(b'{"level":"info","logger":"idle","message":"started"}\n')
    with CountServer(tmp / "idle/server", check=False) as server:
        a = Agent(tmp / "idle/agent", config(logs / "*.log", {
            "loki": {"type": "loki", "url": server.url},
            "search": {"type": "elasticsearch", "url": server.url, "template": "off"}})).start()
        try:
            wait_until(lambda: all(server.report()[k]["lines"] == 10_000 for k in ("loki", "bulk")), 120, "all lines")
            time.sleep(70)  # for a minute more is asked of files that were just read
            before, woken, start = cpu_seconds(a.pid), wakeups(a.pid), time.monotonic()
            time.sleep(max(args.seconds, 30))
            spent = time.monotonic() - start
            print(f"10,000 files at rest: RssAnon {a.memory()['RssAnon'] / 2**20:.1f} MiB, "
                  f"{(cpu_seconds(a.pid) - before) / spent:.3%} of a core, {(wakeups(a.pid) - woken) / spent:.1f} wake-ups a second",
                  flush=True)
        finally:
            a.close()


def tenants(tmp, args):
    here = tmp / "tenants"
    (here / "logs").mkdir(parents=True)
    with CountServer(here / "server", check=True) as server, open(here / "logs/app.log", "w", encoding="ascii") as out:
        a = Agent(here / "agent", config(here / "logs/*.log", {"loki": {"type": "loki", "url": server.url}})).start()
        try:
            n, waiting = 0, []
            before, start = cpu_seconds(a.pid), time.monotonic()
            while time.monotonic() - start < args.seconds:
                now = time.time_ns()
                stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)) + f".{now // 1000 % 10**6:06d}Z"
                out.write("".join(json.dumps({"timestamp": stamp, "level": "INFO", "target": "shop::db", "tenant": f"t{i % 1000:03}",
                                              "seq": f"S{i:010d}", "message": "order saved for the customer who asked for it"}) + "\n"
                                  for i in range(n, n + 2000)))
                out.flush()
                n += 2000
                if n % 20_000 == 0:
                    waiting.append(a.metric("queue_oldest_age_seconds"))
                time.sleep(max(start + n / 20_000 - time.monotonic(), 0))
            share = (cpu_seconds(a.pid) - before) / (time.monotonic() - start)
            wait_until(lambda: server.report(lines=n)["loki"]["ids"]["missing"] == 0, 30, "all lines")
            report = server.report(lines=n)["loki"]
            assert report["ids"]["duplicates"] == 0, report["ids"]
            half = len(waiting) // 2
            print(f"1,000 tenants at 20 lines/s: {n} lines, {share:.1%} of a core, {report['requests'] / args.seconds:.0f} requests/s, "
                  f"oldest line in the queue {max(waiting[:half]):.1f} s in the first half, {max(waiting[half:]):.1f} s in the second, "
                  f"peak RSS {a.memory()['VmHWM'] / 2**20:.1f} MiB", flush=True)
        finally:
            a.close()


def pace(tmp, args):
    w = five(tmp / "pace", 1_000_000, 1)
    for percent in (5, 10, 20):
        here = tmp / f"pace-{percent}"
        with CountServer(here / "server", check=False) as server:
            a = Agent(here / "agent", config(w.logs / "*.log", {"loki": {"type": "loki", "url": server.url, "max_age": 0}},
                                             limits={"cpu": f"{percent}%"})).start()
            try:
                wait_until(lambda: server.report()["loki"]["lines"] > 0, 30, "the first lines")
                before, start = cpu_seconds(a.pid), time.monotonic()
                while time.monotonic() - start < args.seconds and server.report()["loki"]["lines"] < w.lines:
                    time.sleep(0.1)
                spent, wall = cpu_seconds(a.pid) - before, time.monotonic() - start
                print(f"limits.cpu {percent}%: {spent / wall:.1%} of a core over {wall:.1f} s", flush=True)
            finally:
                a.close()


SCENARIOS = {"latency": latency, "idle": idle, "tenants": tenants, "pace": pace}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--binary", default=str(ROOT / "build/release/tailrace"))
    p.add_argument("--tools", default=str(ROOT / "build/release/tools"))
    p.add_argument("--seconds", type=float, default=20, help="of each run")
    p.add_argument("scenario", nargs="*", default=list(SCENARIOS), help=" ".join(SCENARIOS))
    o = p.parse_args()
    os.environ["TAILRACE_BINARY"], os.environ["TAILRACE_TOOLS"] = (str(pathlib.Path(x).resolve()) for x in (o.binary, o.tools))
    with tempfile.TemporaryDirectory(prefix="tailrace-steady-") as tmp:
        for name in o.scenario:
            SCENARIOS[name](pathlib.Path(tmp), o)


main()
