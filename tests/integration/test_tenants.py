"""One tenant of many whom Loki refuses: the others flow on, and what is kept for it arrives when it may."""

import os

import pytest

from arrival import nothing_lost
from support import HOUR, config, file_input, folder, loki_output, total, wait_rest
from tailrace_test import CountServer, Forward, Loggen, Loki, Reply, Stall, assert_arrived, wait_until, write

import time

FULL = os.environ.get("TAILRACE_FULL") == "1"
TENANTS = 50


class Tenants:
    def __init__(self, tmp_path, seed):
        self.names = [f"t{seed}-{i:02d}" for i in range(TENANTS)]
        self.generator = Loggen(seed=seed)
        self.written = {t: [] for t in self.names}
        self.dir = tmp_path / "srv"

    def write(self, n, names=None):
        for t in names or self.names:
            lines = self.generator.lines(n)
            write(folder(self.dir / t) / "app.log", lines)
            self.written[t] += lines

    def input(self):
        return file_input(self.dir / "<tenant>/*.log", multiline="off", tenant="{path.tenant}")

    def arrived(self, loki, names=None):
        now = time.time_ns()
        for t in names or self.names:
            found = loki.query_all(t, '{service_name=~".+"}', now - HOUR, now + HOUR)
            assert_arrived(self.written[t], [line for _, _, line in found])


def wait_others(agent, tenants, but, timeout=30):
    """All lines of all tenants but one are delivered."""
    last = [None]

    def flown():
        last[0] = agent.status()["ledger"]["outputs"]
        return all(total(last[0], "delivered_lines", tenant=t) == len(tenants.written[t]) for t in tenants.names if t != but)

    wait_until(flown, timeout, lambda: f"the others have theirs: {last[0]}\n{agent.describe()}", interval=0.05)
    return last[0]


def test_one_over_its_rate_limit(agent, tmp_path):
    tenants = Tenants(tmp_path, 1)
    noisy = tenants.names[7]
    with Loki(tmp_path) as loki:
        loki.set_overrides({noisy: {"ingestion_rate_mb": 0.005, "ingestion_burst_size_mb": 0.02}})
        tenants.write(20)
        tenants.write(600, [noisy])  # some 200 KB: 40 s at its rate
        a = agent(config({"app": tenants.input()}, {"loki": loki_output(loki.url)}))
        for _ in range(4):
            wait_others(a, tenants, noisy)
            tenants.write(20)
        rows = wait_others(a, tenants, noisy)
        assert total(rows, "delivered_lines", tenant=noisy) < len(tenants.written[noisy])
        assert a.metric("requests_total", output="loki", code="429") > 0
        assert {t for t, reason in loki.discarded()} == {noisy}
        loki.set_overrides({})
        _, outputs = wait_rest(a, read=sum(map(len, tenants.written.values())), timeout=90)
        nothing_lost(outputs)
        tenants.arrived(loki)


@pytest.mark.parametrize("again", ["by itself", "restarted"] if FULL else ["restarted"])
def test_one_refused_with_401(agent, loki, faults, tmp_path, again):
    """Its frames are parked after 30 s, so that the queue moves on; they are sent when the token is right again."""
    tenants = Tenants(tmp_path, 2 if again == "restarted" else 3)
    refused = tenants.names[31]
    closed = [True]

    def answer(request):
        if closed[0] and request.tenant == refused:
            return Reply(401, "no org id")
        return Forward(loki.url)

    server = faults(default=answer)
    tenants.write(20)
    a = agent(config({"app": tenants.input()}, {"loki": loki_output(server.url)}))
    wait_others(a, tenants, refused)
    a.wait_event("key.held")
    assert a.metric("route_keys_held", output="loki") == 1
    tenants.write(20)
    wait_others(a, tenants, refused)

    def parked():
        tenants.write(1)  # others are accepted all the while
        rows = wait_others(a, tenants, refused)
        return total(rows, "parked_lines", tenant=refused) >= 40

    wait_until(parked, 60, lambda: f"its lines are parked: {a.status()['ledger']['outputs']}\n{a.describe()}", interval=1)
    assert total(a.status()["ledger"]["outputs"], "delivered_lines", tenant=refused) == 0
    assert a.health()["level"] == "Degraded"
    closed[0] = False
    if again == "restarted":
        a.restart()
    tenants.write(5)
    _, outputs = wait_rest(a, read=sum(map(len, tenants.written.values())), timeout=120)
    nothing_lost(outputs)
    tenants.arrived(loki)
    if again == "by itself":
        assert a.wait_event("key.released")
    assert a.metric("route_keys_held", output="loki") == 0


def test_refused_in_three_ways(agent, loki, faults, tmp_path):
    """One of 50 by its limit (429, Loki's own), then with 401, then with silence; all 49 have theirs each time, and in the
    end every line is there once."""
    tenants = Tenants(tmp_path, 4)
    sick, mode = tenants.names[11], ["well"]

    def answer(request):
        if request.tenant == sick and mode[0] == "401":
            return Reply(401, "no org id")
        if request.tenant == sick and mode[0] == "silence":
            return Stall()
        return Forward(loki.url)

    server = faults(default=answer)
    others = [t for t in tenants.names if t != sick]
    tenants.write(10, others)
    a = agent(config({"app": tenants.input()}, {"loki": loki_output(server.url, timeout="3s")}))
    wait_others(a, tenants, sick)
    # Before its first line: Loki looks at the limits of a tenant that it knows each 10 s only.
    loki.set_overrides({sick: {"ingestion_rate_mb": 0.0005, "ingestion_burst_size_mb": 0.001}})
    try:
        tenants.write(100, [sick])
        for mode[0], code in (("429", "429"), ("401", "401"), ("silence", "timeout")):
            tenants.write(10)
            wait_others(a, tenants, sick)
            if mode[0] != "429":  # it is asked again at the start; in between it may be a minute
                a.restart()
            a.wait_metric("requests_total", 1, timeout=20, output="loki", code=code)
            tenants.write(5, others)
            wait_others(a, tenants, sick)
    finally:
        loki.set_overrides({})
    mode[0] = "well"
    server.release()
    a.restart()
    _, outputs = wait_rest(a, read=sum(map(len, tenants.written.values())), timeout=90)
    nothing_lost(outputs)
    tenants.arrived(loki)


def test_a_dead_and_a_slow_output_beside_a_loud_tenant(agent, faults, tmp_path):
    """The healthy output has every line while the others wait; then they have theirs, each once."""
    tenants, loud = Tenants(tmp_path, 5), "loud"
    tenants.names.append(loud)
    tenants.written[loud] = []
    slow_for = [2.0]
    slow = faults(default=lambda r: Reply(204, delay=slow_for[0]))
    dead = faults()
    dead.stop()
    with CountServer(tmp_path / "good") as good:
        a = agent(config({"app": tenants.input()},
                         {"good": loki_output(good.url), "dead": loki_output(dead.url), "slow": loki_output(slow.url)}))
        for _ in range(4):
            tenants.write(2, tenants.names[:-1])
            tenants.write(200, [loud])
            n = sum(map(len, tenants.written.values()))
            wait_until(lambda: good.report()["loki"]["ids"]["distinct"] >= n, 20,
                       lambda: f"{n} lines: {good.report(lines=n)['loki']['ids']}\n{a.describe()}", interval=0.05)
        assert a.metric("delivered_lines_total", output="dead") == 0
        assert a.metric("delivered_lines_total", output="slow") < n
        slow_for[0] = 0
        with CountServer(tmp_path / "back", port=dead.port) as back:
            for name in ("good", "dead", "slow"):
                a.wait_delivered(n, name, timeout=90)
            for server in (good, back):
                ids = server.report(lines=n)["loki"]["ids"]
                assert (ids["missing"], ids["duplicates"]) == (0, 0), ids
        assert_arrived([line for t in tenants.names for line in tenants.written[t]], slow.lines())
        _, outputs = wait_rest(a, read=n)
        nothing_lost(outputs)
