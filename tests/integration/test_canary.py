"""loki-canary judges: it prints lines, and asks Loki for each of them, over the tail socket and by query."""

import os
import time

import pytest

from support import config, file_input, folder, loki_output
from tailrace_test import Loki, Process, client, free_port, prom, wait_until

FULL = os.environ.get("TAILRACE_FULL") == "1"
SECONDS = 600 if FULL else 60


class Canary:
    """Writes DIR/canary.out; wait: how long it gives a line before it asks by query."""

    def __init__(self, loki, tenant, directory, wait=8):
        self.port = free_port()
        self.log = folder(directory) / "canary.out"
        self.process = Process(
            [Loki.binary("loki-canary"), "-addr", loki.url.removeprefix("http://"), "-tenant-id", tenant,
             "-port", self.port, "-labelname", "app", "-labelvalue", "canary", "-streamname", "kind",
             "-streamvalue", "judge", "-interval", "50ms", "-size", "120", "-wait", f"{wait}s",
             "-max-wait", f"{3 * wait}s", "-pruneinterval", "2s", "-spot-check-interval", "10s",
             "-spot-check-query-rate", "10s", "-spot-check-initial-wait", f"{wait}s"], directory / "canary")
        self.wait = wait

    def says(self):
        """{entries, missing, unexpected, duplicate, ...}"""
        samples = prom.parse(client.request("GET", f"http://127.0.0.1:{self.port}/metrics").expect(200).text)
        return {name: int(prom.total(samples, f"loki_canary_{name}_total")) for name in (
            "entries", "missing_entries", "unexpected_entries", "duplicate_entries", "websocket_missing_entries",
            "out_of_order_entries", "spot_check_missing_entries")}

    def wait_entries(self, n, timeout):
        wait_until(lambda: self.says()["entries"] >= n, timeout,
                   lambda: f"{n} entries written: {self.says()}\n{self.process.describe()}", interval=0.2)
        return self.says()

    def stop(self):
        self.process.kill()  # its orderly end waits for minutes


@pytest.fixture
def canary(tmp_path):
    made = []

    def make(loki, tenant):
        made.append(Canary(loki, tenant, tmp_path / "canary"))
        wait_until(lambda: _answers(made[-1]), 20, lambda: f"the canary answers\n{made[-1].process.describe()}")
        return made[-1]

    yield make
    for c in made:
        c.stop()


def _answers(canary):
    try:
        return canary.says()["entries"] > 0
    except OSError:
        return False


def shipper(agent, loki, tenant, canary):
    return agent(config(
        {"canary": file_input(canary.log, multiline="off", tenant=tenant)},
        {"loki": loki_output(loki.url, labels={"app": "canary", "kind": "judge", "host": "{host}"})}))


def passed(seconds, since):
    wait_until(lambda: time.monotonic() - since >= seconds, seconds + 1, f"{seconds} s have passed", interval=0.2)


def test_two_restarts_of_tailrace(agent, loki, tenant, canary):
    c = canary(loki, tenant)
    since = time.monotonic()
    a = shipper(agent, loki, tenant, c)
    for part in (1, 2):
        passed(SECONDS * part / 4, since)
        a.restart()
    passed(SECONDS, since)
    says = c.wait_entries(SECONDS * 15, 30)
    print(says)
    assert (says["missing_entries"], says["spot_check_missing_entries"]) == (0, 0), says
    # What it calls a duplicate, or unexpected, is what its websocket brings again: Loki fills that anew whenever a read of it took
    # half a second. So each line is asked for once more: all that was written, once, and nothing else.
    c.stop()
    written = c.log.read_text().split("\n")[:-1]
    start, end = int(written[0].split()[0]) - 10**9, time.time_ns() + 30 * 10**9
    loki.wait_count(tenant, '{app="canary"}', start, end, len(written), 30)
    assert sorted(loki.lines(tenant, '{app="canary"}', start, end)) == written


def test_one_restart_of_loki(agent, tenant, canary, tmp_path):
    with Loki(tmp_path) as loki:
        c = canary(loki, tenant)
        since = time.monotonic()
        a = shipper(agent, loki, tenant, c)
        passed(SECONDS / 6, since)
        loki.restart()
        passed(SECONDS * 2 / 3, since)
        says = c.wait_entries(SECONDS * 10, 30)
        print(says)
        assert says["missing_entries"] == 0, says
        assert a.metric("requests_total", output="loki", code="204") > 0
        c.stop()
