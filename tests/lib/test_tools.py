"""The tools in C: what loggen says it wrote is what lies in the files; what countserver counts is what was sent."""

import collections
import gzip
import http.client
import json
import time

import pytest

from tailrace_test import CountServer, LoggenRun, Loggen, request, run_loggen, seqs, wire


def read_all(directory, cri=False):
    """{path: [line]} of all files; every file ends in a whole line."""
    found = {}
    for path in sorted(directory.iterdir()):
        data = path.read_bytes()
        assert not data or data.endswith(b"\n"), path
        found[path.name] = [l.partition(b" F ")[2] if cri else l for l in data.splitlines()]
    return found


LEVEL_KEYS = {"tracing": "level", "pino": "level", "structlog": "level", "pythonjson": "levelname", "zap": "level"}
MODULE_KEYS = {"tracing": "target", "pino": "module", "structlog": "logger", "pythonjson": "name", "zap": "logger"}
NAMES = {"10": "trace", "20": "debug", "30": "info", "40": "warn", "50": "error", "60": "fatal", "warning": "warn",
         "critical": "fatal"}


@pytest.mark.parametrize("options", [
    {}, {"torn": True, "block": 1000, "tenants": 7}, {"cri": True, "late": True, "seed": 5}, {"rate": 100000},
    {"rotate": 0, "first": 9_000_000_000},
], ids=str)
def test_loggen(tmp_path, options):
    options = {"lines": 20000, "files": 10, "rotate": 100_000, **options}
    w = run_loggen(tmp_path / "logs", **options)
    files = read_all(tmp_path / "logs", options.get("cri"))
    assert len(files) == 10 + w.rotations and (w.rotations > 10) == (options["rotate"] > 0)
    assert sum(p.stat().st_size for p in (tmp_path / "logs").iterdir()) == w.bytes
    rows = {row[0]: row for row in w.rows()}
    assert len(rows) == w.lines == 20000
    seen = collections.Counter()
    for lines in files.values():
        for line in lines:
            doc = json.loads(line)
            (seq,) = seqs([line])
            _, logger, level, module, tenant = rows[seq]
            spelled = str(doc[LEVEL_KEYS[logger]]).lower()
            assert NAMES.get(spelled, spelled) == level and doc[MODULE_KEYS[logger]] == module
            assert doc.get("tenant") == tenant
            seen[seq] += 1
    assert set(seen) == set(rows) and max(seen.values()) == 1
    assert len(w.ids(lambda logger, level, module, tenant: level == "error")) == sum(
        w.by_level[n][4] for n in w.loggers)
    assert abs(w.last_ts - time.time_ns()) < 120e9
    if options.get("rate"):
        assert 0.18 < w.seconds < 5


def test_loggen_keeps_and_runs_in_the_background(tmp_path):
    r = LoggenRun(tmp_path / "logs", lines=20000, files=2, rotate=50_000, keep=3, prefix="x")
    w = r.wait()
    assert sorted(p.name for p in (tmp_path / "logs").iterdir()) == sorted(
        f"x-00{k}.log{s}" for k in (0, 1) for s in ("", ".1", ".2", ".3"))
    assert w.deleted == w.rotations - 6


PUSH = {"Content-Type": "application/x-protobuf"}
BULK = {"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"}


def push(s, lines, tenant="a"):
    """The times given are 1, 2, 3 ...: those of the lines are cut to what their loggers write, so they may step back."""
    body = wire.encode_push([({"job": "x"}, [(at + 1, l.text, {"k": "v"}) for at, l in enumerate(lines)])])
    return request("POST", s.url + "/loki/api/v1/push", wire.snappy_compress(body), dict(PUSH, **{"X-Scope-OrgID": tenant}))


def bulk_body(lines, index="i"):
    return "".join(f'{{"create":{{"_index":"{index}","_id":"{l.seq}"}}}}\n{l.text}\n' for l in lines).encode()


def test_countserver(tmp_path):
    g = Loggen()
    with CountServer(tmp_path) as s:
        a, b = g.lines(300), g.lines(200)
        assert push(s, a).status == 204 and push(s, b, "b").status == 204 and push(s, b[:7], "b").status == 204
        two = gzip.compress(bulk_body(a)) + gzip.compress(bulk_body(b[:-1], "j"))
        answer = request("POST", s.url + "/_bulk", two, BULK).expect(200).json()
        assert answer["errors"] is False and answer["items"] == [{"create": {"status": 201}}] * 499
        r = s.report(lines=500)
        lk, bk = r["loki"], r["bulk"]
        assert (lk["requests"], lk["lines"], lk["unsorted"], lk["refused"]) == (3, 507, 0, 0)
        assert lk["tenants"]["a"]["lines"] == 300 and lk["tenants"]["b"] == {
            "requests": 2, "lines": 207, "bytes": sum(len(l.text) for l in b + b[:7])}
        assert lk["ids"] == {"distinct": 500, "duplicates": 7, "without": 0, "missing": 0, "foreign": 0,
                             "first_missing": []}
        assert bk["lines"] == 499 and bk["tenants"]["i"]["lines"] == 300 and bk["tenants"]["j"]["lines"] == 199
        assert bk["ids"]["missing"] == 1 and bk["ids"]["first_missing"] == [499]
        assert s.ids("bulk") == {l.seq for l in a + b[:-1]} and s.wait_lines("loki", 507, 1) == 507
        back = wire.encode_push([({"job": "x"}, [(9, "a", {}), (8, "b", {}), (8, "c", {}), (7, "d", {})])])
        request("POST", s.url + "/loki/api/v1/push", wire.snappy_compress(back), PUSH).expect(204)
        assert s.report()["loki"]["unsorted"] == 2 and s.report()["loki"]["ids"]["without"] == 4
        s.reset()
        assert s.report()["loki"]["lines"] == 0
        port = s.port
        s.stop()
        s.start()
        assert s.port == port and push(s, a).status == 204


def test_countserver_refuses(tmp_path):
    with CountServer(tmp_path) as s:
        lines = Loggen().lines(3)
        whole = wire.encode_push([({"a": "b"}, [(l.ts, l.text, {}) for l in lines])])
        url = s.url + "/loki/api/v1/push"
        for body in (b"", b"garbage", wire.snappy_compress(whole[:-1]), wire.snappy_compress(whole)[:-1],
                     wire.snappy_compress(wire.encode_push([("", [(1, "x", {})])]))):
            if body:
                assert request("POST", url, body, PUSH).status == 400
        gz = gzip.compress(bulk_body(lines))
        for body in (b"garbage", gz[:-4], gzip.compress(bulk_body(lines)[:-1]), gzip.compress(b'{"x":1}\n'),
                     gzip.compress(b'{"create":{}}\n')):
            assert request("POST", s.url + "/_bulk", body, BULK).status == 400
        r = s.report()
        assert r["loki"]["lines"] == r["bulk"]["lines"] == 0
        assert r["loki"]["refused"] == 4 and r["bulk"]["refused"] == 5
        assert request("GET", s.url + "/nothing").status == 404
        assert request("POST", s.url + "/_bulk", bulk_body(lines)).status == 200


def test_countserver_keeps_alive_pipelines_and_delays(tmp_path):
    with CountServer(tmp_path, latency=50) as s:
        line = Loggen().line()
        c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=5)
        body = wire.snappy_compress(wire.encode_push([({"a": "b"}, [(line.ts, line.text, {})])]))
        start = time.monotonic()
        for _ in range(3):
            c.request("POST", "/loki/api/v1/push", body, PUSH)
            r = c.getresponse()
            r.read()
            assert r.status == 204
        assert 0.14 < time.monotonic() - start < 3
        one = b"POST /loki/api/v1/push HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        c.sock.sendall(one * 3)
        got = b""
        while got.count(b"HTTP/1.1 204") < 3:
            got += c.sock.recv(4096)
        c.sock.sendall(b"POST /loki/api/v1/push HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
        assert c.sock.recv(4096).startswith(b"HTTP/1.1 100")
        c.sock.sendall(body[:20])
        c.sock.sendall(body[20:])
        assert c.sock.recv(4096).startswith(b"HTTP/1.1 204")
        c.close()
        assert s.report()["loki"]["lines"] == 7
