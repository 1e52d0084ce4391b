"""A large queue and a server that takes connections and never answers: how soon the agent is ready, how soon it stops, what
it holds, and that all of it drains once the server is back.

    backlog.py [--megabytes 500] [--base FOLDER]        prints one line of figures; 1 when a line is missing or twice

The figures are figures: whether they are good is for who reads them (goals: ready in 100 ms, exit in 2 s, 32 MiB).
"""

import argparse
import json
import pathlib
import shutil
import signal
import socket
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))

from tailrace_test import Agent, CountServer, wait_until  # noqa: E402

from world import TEXT  # noqa: E402

LINE = 8000


class BlackHole:
    """Takes connections, reads nothing, says nothing."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self.listener.getsockname()[1]
        self.open = []
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        try:
            while True:
                self.open.append(self.listener.accept()[0])
        except OSError:
            pass

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        for s in (self.listener, *self.open):
            s.close()


def write_lines(folder, megabytes):
    """Files of 256 MB with lines that hardly compress; how many lines."""
    n, step = 0, 7919
    for i in range((megabytes + 255) // 256):
        size = min(megabytes - 256 * i, 256) << 20
        with open(folder / f"app-{i:03d}.log", "w", encoding="ascii", buffering=1 << 20) as f:
            while f.tell() < size:
                now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
                for _ in range(100):
                    at = n * step % (len(TEXT) - LINE)
                    f.write(f'{{"ts":"{now}.{n % 1000000:06d}Z","id":"S{n:010d}","message":"{TEXT[at:at + LINE]}"}}\n')
                    n += 1
    return n


def start(agent):
    """Seconds until /health/ready says yes."""
    began = time.monotonic()
    agent.start(ready=False)
    while not agent.ready():
        assert agent.running(), agent.describe()
        assert time.monotonic() - began < 60, agent.describe()
        time.sleep(0.001)
    return time.monotonic() - began


def stop(agent):
    began = time.monotonic()
    agent.signal(signal.SIGTERM)
    code = agent.wait_exit(60)
    assert code == 0, agent.describe()
    return time.monotonic() - began


def queued(agent):
    """Lines in the queue."""
    return sum(row["queued_lines"] for row in agent.status()["ledger"]["outputs"])


def mebibytes(memory, key):
    return round(memory[key] / 2**20, 1)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--megabytes", type=int, default=500)
    p.add_argument("--base", default="/tmp/tailrace-fault/backlog")
    o = p.parse_args()
    base = pathlib.Path(o.base)
    shutil.rmtree(base, ignore_errors=True)
    logs = base / "logs"
    logs.mkdir(parents=True)
    lines = write_lines(logs, o.megabytes)
    hole = BlackHole()
    server = CountServer(base / "server", port=hole.port)
    queue = {"max_bytes": f"{2 * o.megabytes + 512}MiB"}
    agent = Agent(base / "agent", {
        "limits": {"min_free": "0"},
        "inputs": {"app": {"type": "file", "include": [str(logs / "*.log")], "ignore_older": "0s", "multiline": "off"}},
        "outputs": {"loki": {"type": "loki", "url": server.url, "max_age": "0s", "late_after": "0s", "queue": queue}},
    })
    figures = {"megabytes": o.megabytes, "lines": lines}
    try:
        began = time.monotonic()
        start(agent)
        wait_until(lambda: queued(agent) >= lines, 3600, lambda: f"all is queued\n{agent.describe()}", interval=0.2)
        figures["filled_s"] = round(time.monotonic() - began, 1)
        figures["queue_mb"] = round(agent.metric("queue_bytes") / 1e6)
        figures["rss_after_filling_mib"] = mebibytes(agent.memory(), "VmRSS")
        figures["anon_peak_filling_mib"] = mebibytes(agent.memory(), "RssAnon")
        figures["first_exit_s"] = round(stop(agent), 3)
        ready, exits = [], []
        for _ in range(3):
            ready.append(start(agent))
            wait_until(lambda: agent.status()["outputs"]["loki"]["in_flight"] > 0, 30, "it sends", interval=0.01)
            figures["rss_mib"] = mebibytes(agent.memory(), "VmHWM")
            figures["anon_mib"] = mebibytes(agent.memory(), "RssAnon")
            exits.append(stop(agent))
        figures["ready_ms"] = [round(1000 * s) for s in ready]
        figures["exit_s"] = [round(s, 3) for s in exits]
        hole.close()
        server.start()
        start(agent)
        began = time.monotonic()
        wait_until(lambda: queued(agent) == 0, 3600, lambda: f"all drains\n{agent.describe()}", interval=0.1)
        figures["drained_s"] = round(time.monotonic() - began, 1)
        figures["rss_peak_draining_mib"] = mebibytes(agent.memory(), "VmHWM")
        stop(agent)
        ids = server.report(lines=lines)["loki"]["ids"]
        figures["missing"], figures["doubled"] = ids["missing"], ids["duplicates"]
    finally:
        if agent.running():
            agent.process.kill()
        server.stop()
    shutil.rmtree(base, ignore_errors=True)
    print(json.dumps(figures), flush=True)
    return 1 if figures["missing"] or figures["doubled"] else 0


if __name__ == "__main__":
    sys.exit(main())
