"""isolation.py: what the healthy notice of the sick: end-to-end delay of their lines, with trouble beside them and without.

    outputs   one output is dead (nothing listens) and one slow (3 s an answer); the third is measured
    tenant    one tenant writes 100 times what each of the others writes; the others are measured
    limits    real Loki, 50 tenants, one refused with 429 by its limit, then with 401, then met with silence

From the time in the line to the server's taking it, p50 and p99 over all lines of the healthy. "fine": the p99 with trouble
is at most 1.25 times, or 200 ms more than, the one without. After the trouble ends every line must be there once.
Timings are figures, never a pass or fail; lost or doubled lines are.
"""
import argparse
import collections
import json
import os
import pathlib
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "lib"))
from tailrace_test import Agent, CountServer, FaultServer, Forward, Loki, Reply, Stall, free_port, seqs, wait_until  # noqa: E402

TENANTS = [f"t{i:02d}" for i in range(50)]
NOISY = "noisy"


class Writer:
    """Each tenant's lines into its own file, `rate` a second, in steps of 50 ms; one may be louder."""

    def __init__(self, path, rate, louder=0):
        self.dir, self.rate, self.louder, self.n = path, rate, louder, 0
        self.tenants = TENANTS + ([NOISY] if louder else [])
        self.files = {}
        for t in self.tenants:
            (path / t).mkdir(parents=True, exist_ok=True)
            self.files[t] = open(path / t / "app.log", "a", encoding="ascii")
        self.by_tenant = collections.Counter()

    def _line(self):
        ns = time.time_ns()
        self.n += 1
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ns // 10**9)) + f".{ns // 1000 % 10**6:06d}Z"
        return json.dumps({"timestamp": stamp, "level": "INFO", "target": "shop::db", "seq": f"S{self.n - 1:010d}",
                           "message": "order saved for the customer who asked for it " * 2}) + "\n"

    def run(self, seconds):
        begun, step, due = time.monotonic(), 0.05, 0.0
        while time.monotonic() - begun < seconds:
            due += self.rate * step
            lines, due = int(due), due - int(due)
            for t in self.tenants:
                n = lines * (self.louder if t == NOISY else 1)
                if n:
                    self.files[t].write("".join(self._line() for _ in range(n)))
                    self.files[t].flush()
                    self.by_tenant[t] += n
            wait = begun + step * (1 + int((time.monotonic() - begun) / step)) - time.monotonic()
            time.sleep(max(wait, 0))


def quantile(delays, q):
    """delays: [[us, lines]..]; in ms."""
    delays = sorted(delays)
    want, seen = q * sum(n for _, n in delays), 0
    for us, n in delays:
        seen += n
        if seen >= want:
            return us / 1000
    return 0.0


def show(name, delays, base=None):
    p50, p99 = quantile(delays, 0.5), quantile(delays, 0.99)
    text = f"{name:<34} lines {sum(n for _, n in delays):>8}   p50 {p50:8.1f} ms   p99 {p99:8.1f} ms"
    if base is not None:
        fine = p99 <= 1.25 * base or p99 <= base + 200
        text += f"   {p99 / base:5.2f} times, {p99 - base:+8.1f} ms   {'fine' if fine else 'NOT FINE'}"
    print(text, flush=True)
    return p99


def config(logs, outputs):
    return {"inputs": {"app": {"type": "file", "include": [f"{logs}/<tenant>/*.log"], "multiline": "off",
                               "tenant": "{path.tenant}", "ignore_older": "0s"}}, "outputs": outputs}


def loki(url, **more):
    return {"type": "loki", "url": url, **more}


def delays_of(server, tenants):
    return [d for t, r in server.report()["loki"]["tenants"].items() if t in tenants for d in r.get("delays", [])]


def all_once(server, n, agent):
    def there():
        return server.report(lines=n)["loki"]["ids"]["missing"] == 0
    wait_until(there, 120, lambda: f"{n} lines: {server.report(lines=n)['loki']['ids']}\n{agent.describe()}", interval=0.2)
    ids = server.report(lines=n)["loki"]["ids"]
    assert (ids["distinct"], ids["duplicates"]) == (n, 0), ids


def outputs(tmp, seconds, rate):
    base = None
    for trouble in (False, True):
        here = tmp / f"outputs-{trouble}"
        dead_port = free_port()
        with CountServer(here / "good", check=True, delays=True) as good, \
                FaultServer(default=lambda r: Reply(204, delay=3)) as slow:
            outs = {"good": loki(good.url)}
            if trouble:
                outs |= {"dead": loki(f"http://127.0.0.1:{dead_port}"), "slow": loki(slow.url)}
            writer = Writer(here / "logs", rate)
            a = Agent(here / "agent", config(here / "logs", outs)).start()
            try:
                writer.run(seconds)
                all_once(good, writer.n, a)
                p99 = show("with a dead and a slow output" if trouble else "one healthy output",
                           delays_of(good, TENANTS), base)
                base = base or p99
                if trouble:
                    slow.default = Reply(204)
                    with CountServer(here / "back", check=True, port=dead_port) as back:
                        all_once(back, writer.n, a)
                    a.wait_delivered(writer.n, "slow", timeout=120)
                    assert a.metric("lost_lines_total") == 0
            finally:
                a.close()


def tenant(tmp, seconds, rate):
    base = None
    for louder in (0, 100):
        here = tmp / f"tenant-{louder}"
        with CountServer(here / "server", check=True, delays=True) as server:
            writer = Writer(here / "logs", rate, louder)
            a = Agent(here / "agent", config(here / "logs", {"loki": loki(server.url)})).start()
            try:
                writer.run(seconds)
                all_once(server, writer.n, a)
                p99 = show("with one at 100 times the rate" if louder else "50 equal tenants",
                           delays_of(server, TENANTS), base)
                base = base or p99
            finally:
                a.close()


class Measured(Forward):
    def __init__(self, url, noted):
        super().__init__(url)
        self.noted = noted

    def play(self, conn, request):
        goes_on = super().play(conn, request)
        now = time.time_ns()
        if request.answered == 204:
            for s in request.loki():
                self.noted[request.tenant] += [(now - e.ts) // 1000 for e in s.entries]
        return goes_on


def limits(tmp, seconds, rate):
    sick = TENANTS[17]
    noted = collections.defaultdict(list)
    mode = ["none"]

    def answer(request):
        if request.tenant == sick and mode[0] == "401":
            return Reply(401, "no org id")
        if request.tenant == sick and mode[0] == "silence":
            return Stall()
        return Measured(real.url, noted)

    here, base = tmp / "limits", None
    with Loki(here) as real, FaultServer(default=answer) as proxy:
        writer = Writer(here / "logs", rate)
        a = Agent(here / "agent", config(here / "logs", {"loki": loki(proxy.url, timeout="10s")})).start()
        begun = time.time_ns()
        try:
            for mode[0] in ("none", "429", "401", "silence"):
                if mode[0] == "429":
                    real.set_overrides({sick: {"ingestion_rate_mb": 0.0005, "ingestion_burst_size_mb": 0.001}})
                before = {t: len(noted[t]) for t in TENANTS}
                writer.run(seconds)
                wait_until(lambda: all(len(noted[t]) >= writer.by_tenant[t] for t in TENANTS if t != sick), 60,
                           "the others have theirs", interval=0.1)
                delays = [(us, 1) for t in TENANTS if t != sick for us in noted[t][before[t]:]]
                p99 = show({"none": "49 of 50 tenants, all well", "429": "one refused with 429", "401": "then with 401",
                            "silence": "then with silence"}[mode[0]], delays, base)
                base = base or p99
                if mode[0] == "429":
                    assert a.metric("requests_total", output="loki", code="429") > 0
                    real.set_overrides({})
            mode[0] = "none"
            proxy.release()
            a.restart()  # what is held is asked again at once
            a.wait_delivered(writer.n, "loki", timeout=180)
            for t in (sick, TENANTS[3]):
                found = seqs(line for _, _, line in real.query_all(t, '{service_name=~".+"}', begun - 10**9, time.time_ns() + 10**9))
                assert len(found) == writer.by_tenant[t] and set(found.values()) == {1}, (t, len(found), writer.by_tenant[t])
        finally:
            a.close()
            proxy.release()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--binary")
    p.add_argument("--tools")
    p.add_argument("--seconds", type=float, default=20, help="of each run")
    p.add_argument("--rate", type=float, default=20, help="lines a second of each of the 50 tenants")
    p.add_argument("scenario", nargs="*", default=["outputs", "tenant", "limits"])
    o = p.parse_args()
    if o.binary:
        os.environ["TAILRACE_BINARY"] = str(pathlib.Path(o.binary).resolve())
    if o.tools:
        os.environ["TAILRACE_TOOLS"] = str(pathlib.Path(o.tools).resolve())
    with tempfile.TemporaryDirectory(prefix="tailrace-isolation-") as tmp:
        for name in o.scenario:
            print(f"--- {name} ---", flush=True)
            {"outputs": outputs, "tenant": tenant, "limits": limits}[name](pathlib.Path(tmp), o.seconds, o.rate)
    assert threading.active_count() < 200


main()
