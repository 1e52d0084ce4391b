"""The real binary and a real Loki: every line found by query, with its labels, tenant, metadata and time."""

import json
import socket
import time

import pytest

from support import (
    DAY, HOUR, SECOND, config, file_input, folder, instant, loki_output, rfc3339, total, wait_rest,
)
from tailrace_test import FIVE, Loggen, assert_arrived, seqs, write

LABELS = {"service_name": "{service}", "node": "{node}", "namespace": "{namespace}"}
METADATA = {
    "level": "{level}", "pod": "{pod}", "module": "{module}", "tenant": "{tenant}", "trace_id": "{record.trace_id}",
    "file": "{file}",
}
ALL = '{service_name=~".+"}'


def entries(loki, tenant, selector=ALL, past=HOUR, future=HOUR):
    """All entries around now; what Loki holds in memory of old times is written first, or it would not be seen."""
    now = time.time_ns()
    return loki.query_all(tenant, selector, now - past, now + future)


def ours(labels):
    """Labels and metadata without what Loki adds itself."""
    return {k: v for k, v in labels.items() if k not in ("detected_level", "__stream_shard__")}


def spread(generator, n, **fixed):
    """n lines, each of a millisecond of its own, the last about now."""
    start = time.time_ns() // 1_000_000 * 1_000_000 - n * 1_000_000
    return [generator.line(ts=start + i * 1_000_000, **fixed) for i in range(n)]


def stamped(ns, **fields):
    return json.dumps({"timestamp": rfc3339(ns), "level": "info", **fields})


def test_five_loggers(agent, loki, tenant, tmp_path):
    tenants = [f"{tenant}-{x}" for x in "abc"]
    generator = Loggen(seed=7)
    written = {}
    for t in tenants:
        for shape in FIVE:
            path = folder(tmp_path / "srv" / t / "logs") / f"{shape}.log"
            written[t, shape] = lines = spread(generator, 40, shape=shape)
            traced = json.loads(lines[0].text)
            lines[0] = lines[0]._replace(text=json.dumps({**traced, "trace_id": f"tr-{shape}"}))
            write(path, lines)
    a = agent(config(
        {"services": file_input(tmp_path / "srv/<tenant>/logs/<service>.log", tenant="{path.tenant}",
                                fields={"service": "{path.service}", "namespace": "vm", "pod": "{host}-0", "node": "n-1"})},
        {"loki": loki_output(loki.url, labels=LABELS, metadata=METADATA)}))
    wait_rest(a, read=15 * 40)
    host = socket.gethostname()
    for t in tenants:
        found = entries(loki, t)
        want = [line for shape in FIVE for line in written[t, shape]]
        assert_arrived(want, [line for _, _, line in found])
        by_seq = {next(iter(seqs([line]))): (ours(labels), ts, line) for labels, ts, line in found}
        for shape in FIVE:
            for i, line in enumerate(written[t, shape]):
                labels, ts, text = by_seq[line.seq]
                expected = {
                    "service_name": shape, "node": "n-1", "namespace": "vm", "pod": f"{host}-0", "tenant": t,
                    "level": line.level, "module": line.module, "file": str(tmp_path / "srv" / t / "logs" / f"{shape}.log"),
                }
                if i == 0:
                    expected["trace_id"] = f"tr-{shape}"
                assert text == line.text and ts == line.ts and labels == expected
        assert a.metric("delivered_lines_total", output="loki", tenant=t) == 200
    assert not [k for k in loki.discarded() if k[0] in tenants]
    assert {t: n for t, n in loki.received_lines().items() if t in tenants} == {t: 200 for t in tenants}


def test_equal_times_and_repeated_lines(agent, loki, tenant, tmp_path):
    base = time.time_ns() // SECOND * SECOND
    different = [stamped(base, message=f"line {i}") for i in range(5)]
    repeated = [stamped(base, message="the same")] * 4
    later = [stamped(base + 5 * SECOND, message="later")]
    write(tmp_path / "app.log", different + repeated + later + repeated[:1])
    a = agent(config({"app": file_input(tmp_path / "app.log", tenant=tenant)},
                     {"loki": loki_output(loki.url)}))
    wait_rest(a, read=11)
    found = [(ts - base, line) for _, ts, line in entries(loki, tenant)]
    # One nanosecond a line, in the order of the file; the last one of that time too.
    assert [f for f in found if f[0] < SECOND] == list(enumerate(different + repeated + repeated[:1]))
    assert found[-1] == (5 * SECOND, later[0])
    assert loki.received_lines()[tenant] == 11


def test_times_of_text_and_of_lines_without_one(agent, loki, tenant, tmp_path):
    now = time.time_ns()
    own = now // 1_000_000 * 1_000_000 - 60 * SECOND
    lines = [f"{rfc3339(own, 3)} WARN disk is slow", "no time at all", '{"msg":"neither"}']
    write(tmp_path / "app.log", lines)
    a = agent(config({"app": file_input(tmp_path / "app.log", tenant=tenant, multiline="off")},
                     {"loki": loki_output(loki.url)}))
    wait_rest(a, read=3)
    found = {line: (labels, ts) for labels, ts, line in entries(loki, tenant)}
    assert set(found) == set(lines)
    assert found[lines[0]][1] == own and found[lines[0]][0]["level"] == "warn"
    for line in lines[1:]:
        assert now - SECOND <= found[line][1] <= time.time_ns() and found[line][0]["level"] == "unknown"


def _kept(line, directives, bare):
    """EnvFilter's choice: the longest directive that the module begins with, else the bare level."""
    order = ("trace", "debug", "info", "warn", "error", "fatal")
    best = max((d for d in directives if line.module.startswith(d)), key=len, default=None)
    threshold = directives[best] if best is not None else bare
    return threshold != "off" and order.index(line.level) >= order.index(threshold)


@pytest.mark.parametrize("spec, directives, bare", [
    ("warn", {}, "warn"),
    ("info,kv_storage=trace,kv_storage::wal=off,registry.api=debug,controller=error",
     {"kv_storage": "trace", "kv_storage::wal": "off", "registry.api": "debug", "controller": "error"}, "info"),
])
def test_levels(agent, loki, tenant, tmp_path, spec, directives, bare):
    lines = spread(Loggen(seed=11), 400)
    write(tmp_path / "app.log", lines)
    a = agent(config({"app": file_input(tmp_path / "app.log", tenant=tenant, levels=spec)},
                     {"loki": loki_output(loki.url)}))
    inputs, _ = wait_rest(a, read=400)
    kept = [line for line in lines if _kept(line, directives, bare)]
    assert 40 < len(kept) < 390
    assert total(inputs, "filtered_level") == 400 - len(kept)
    assert a.metric("filtered_lines_total", input="app", reason="level") == 400 - len(kept)
    assert_arrived(kept, [line for _, _, line in entries(loki, tenant)])


def test_old_future_and_late(agent, loki, tenant, tmp_path):
    """8 days old, a day ahead, hours behind another writer of the same service: in Loki, or counted; nothing between."""
    now = time.time_ns() // SECOND * SECOND
    newest = [stamped(now - i * SECOND, message=f"new {i}") for i in range(20)]
    write(tmp_path / "one.log", reversed(newest))
    a = agent(config(
        {"app": file_input(tmp_path / "*.log", tenant=tenant, fields={"service": "orders"})},
        {"loki": loki_output(loki.url)}))
    wait_rest(a, read=20)
    late = [stamped(now - 3 * HOUR + i * SECOND, message=f"late {i}") for i in range(20)]
    # Each an hour further behind: more steps than there are late streams.
    falling = [stamped(now - (4 + i) * HOUR, message=f"falling {i}") for i in range(14)]
    old = [stamped(now - 8 * DAY - i, message=f"old {i}") for i in range(7)]
    ahead = [stamped(now + DAY + i * SECOND, message=f"ahead {i}") for i in range(3)]
    write(tmp_path / "two.log", late + falling + old + ahead)
    inputs, outputs = wait_rest(a, read=64)
    assert total(inputs, "filtered_too_old") == 7 == total(outputs, "filtered_too_old")
    assert a.metric("filtered_lines_total", reason="too_old") == 7
    assert a.metric("altered_lines_total", reason="future") == 3
    assert a.metric("altered_lines_total", reason="late") == 34
    assert len(a.events("lines.too_old")) == 1
    loki.flush()
    found = {line: (labels, ts) for labels, ts, line in entries(loki, tenant, past=2 * DAY, future=2 * DAY)}
    assert set(found) == set(newest + late + falling + ahead)
    for line in newest:
        assert "late" not in found[line][0] and found[line][1] == instant(json.loads(line)["timestamp"])
    for line in late:
        assert found[line][0]["late"] == "1" and found[line][1] == instant(json.loads(line)["timestamp"])
    for i, line in enumerate(falling):
        labels, ts = found[line]
        own = instant(json.loads(line)["timestamp"])
        if "original_time" in labels:
            assert labels["late"] == "9" and instant(labels["original_time"]) == own and ts > own
        else:
            assert ts == own
    assert sum("original_time" in found[line][0] for line in falling) >= 3
    for line in ahead:
        labels, ts = found[line]
        assert abs(ts - time.time_ns()) < 600 * SECOND
        assert instant(labels["original_time"]) == instant(json.loads(line)["timestamp"])
    assert not [k for k in loki.discarded() if k[0] == tenant]


def test_late_lines_of_another_agent_are_another_stream(agent, loki, tenant, tmp_path):
    """Two nodes write one service; the writer label keeps the one that is behind from being refused."""
    now = time.time_ns()
    for name, ts in (("n-1", now), ("n-2", now - 3 * HOUR)):
        write(tmp_path / f"{name}.log", [stamped(ts, message=name)])
        a = agent(config({"app": file_input(tmp_path / f"{name}.log", tenant=tenant, fields={"service": "orders"})},
                         {"loki": loki_output(loki.url)}), env={"NODE_NAME": name})
        wait_rest(a, read=1)
    loki.flush()
    found = entries(loki, tenant, past=DAY)
    assert [(labels["node"], json.loads(line)["message"]) for labels, _, line in found] == [("n-2", "n-2"), ("n-1", "n-1")]


def test_enriched_lines(agent, loki, tenant, tmp_path):
    lines = spread(Loggen(seed=3), 20)
    write(tmp_path / "app.log", lines + ["plain words"])
    a = agent(config(
        {"app": file_input(tmp_path / "app.log", tenant=tenant, multiline="off",
                           fields={"pod": "p-1", "namespace": "vm", "service": "orders", "zone": "b"})},
        {"loki": loki_output(loki.url, line="enriched", metadata="off")}))
    wait_rest(a, read=21)
    found = entries(loki, tenant)
    assert_arrived(lines, [line for _, _, line in found])
    levels = {line.seq: line.level for line in lines}
    for labels, _, text in found:
        doc = json.loads(text)
        mine = {k: doc.pop(k) for k in ("pod", "namespace", "tenant", "service_name", "zone", "severity")}
        seq = doc.get("seq") or doc.get("fields", {}).get("seq")
        assert mine == {"pod": "p-1", "namespace": "vm", "tenant": tenant, "service_name": "orders", "zone": "b",
                        "severity": levels.get(seq, "unknown")}
        if seq is None:
            assert doc["message"] == "plain words"
        else:  # their bytes stay as they were, ours come behind
            original = next(line.text for line in lines if line.seq == seq)
            assert text.startswith(original.rstrip("}"))
        assert "pod" not in ours(labels)


def test_a_long_line_is_cut(agent, loki, tenant, tmp_path):
    limit = 256 * 1024
    now = time.time_ns()
    fits = stamped(now, message="x" * 1000, tail="f")
    fits = fits[:-1] + " " * (limit - len(fits)) + "}"
    long = stamped(now + SECOND, message="ä" * limit)
    long = json.dumps({**json.loads(long)}, ensure_ascii=False)
    write(tmp_path / "app.log", [fits, long, stamped(now + 2 * SECOND, message="behind")])
    a = agent(config({"app": file_input(tmp_path / "app.log", tenant=tenant)},
                     {"loki": loki_output(loki.url)}))
    wait_rest(a, read=3)
    found = entries(loki, tenant)
    assert [ts for _, ts, _ in found] == [now, now + SECOND, now + 2 * SECOND]
    assert found[0][2] == fits and "cut" not in found[0][0]
    data = found[1][2].encode()
    assert limit - 4 < len(data) <= limit and long.encode().startswith(data) and found[1][0]["cut"] == "true"
    assert a.metric("altered_lines_total", input="app", reason="cut") == 1
    assert not [k for k in loki.discarded() if k[0] == tenant]


def test_tenants_with_characters_that_loki_refuses(agent, loki, tenant, tmp_path):
    names = {f"{tenant}/a b": f"{tenant}_a_b", f"{tenant}|x": f"{tenant}_x", f"{tenant}ö": f"{tenant}__",
             f"{tenant}:k=v": f"{tenant}_k_v", f"{tenant}!-_.*'()": f"{tenant}!-_.*'()"}
    write(tmp_path / "app.log", [json.dumps({"org": name, "message": name}) for name in names])
    a = agent(config({"app": file_input(tmp_path / "app.log", tenant="{record.org}")},
                     {"loki": loki_output(loki.url)}))
    wait_rest(a, read=len(names))
    for name, cleaned in names.items():
        found = entries(loki, cleaned)
        assert [json.loads(line)["message"] for _, _, line in found] == [name]
        assert found[0][0]["tenant"] == name  # what it is called by us is in the metadata as it is


def test_values_that_are_hard_for_labels(agent, loki, tenant, tmp_path):
    values = {
        'quote " and \\ backslash': None, "two\nlines\tand a tab": None, "`back` {brace=\"x\"}": None, "ümlaut 漢字 🚀": None,
        "bell\x07 escape\x1b del\x7f": None, "zero\x00byte": None, "replacement \ufffd sign": "replacement ? sign",
        "x" * 3000: "x" * 2048, "é" * 1500: "é" * 1024,
    }
    write(tmp_path / "app.log", [json.dumps({"thing": v, "n": i}) for i, v in enumerate(values)])
    a = agent(config(
        {"app": file_input(tmp_path / "app.log", tenant=tenant)},
        {"loki": loki_output(loki.url, labels={"host": "{host}", "thing": "{record.thing}"}, metadata={"same": "{record.thing}"})}))
    wait_rest(a, read=len(values))
    found = {json.loads(line)["n"]: labels for labels, _, line in entries(loki, tenant, '{thing=~"(?s).+"}')}
    assert set(found) == set(range(len(values)))
    for i, (value, label) in enumerate(values.items()):
        assert found[i]["thing"] == (label or value), value
    assert a.metric("dead_letter_lines_total") == 0


def test_without_labels_metadata_and_tenant(agent, faults, tmp_path):
    """The wire itself: no header for an empty tenant, a writer label that nobody configured, no metadata."""
    server = faults()
    write(tmp_path / "app.log", ["one", "two"])
    a = agent(config({"app": file_input(tmp_path / "app.log", multiline="off")},
                     {"loki": loki_output(server.url, tenant="", labels={"app": "{record.none}"}, metadata="off",
                                          headers={"X-Extra": "yes"})}), env={"NODE_NAME": "n-9"})
    wait_rest(a, read=2)
    request = server.complete()[0]
    assert request.path == "/loki/api/v1/push" and request.tenant is None and request.headers.get("X-Extra") == "yes"
    assert request.headers.get("Content-Type") == "application/x-protobuf"
    (stream,) = request.loki()
    assert stream.labels == {"node": "n-9"}
    assert [(e.line, e.metadata) for e in stream.entries] == [(b"one", {}), (b"two", {})]
