"""The library itself: decoders against known bytes, and the scripted server against a plain client."""

import gzip
import http.client
import json
import random
import socket
import ssl
import threading

import pytest

from tailrace_test import (
    FIVE, LEVELS, SHAPES, BulkReply, Close, CutReply, EarlyReply, Forward, Garbage, Hangup, HugeBody, Loggen, NeverRead,
    Reply, Reset, ResetConnection, SayOnAccept, SlowReply, Stall, assert_arrived, cri, docker, free_port, request, seqs,
    wait_until, wire, write,
)
from tailrace_test import prom

GOLDEN = bytes.fromhex(
    "0a2a0a097b6a6f623d2274227d121d0a0b0880e2cfaa0610959aef3a120268691a0a0a03706f641203702d31"
)
ENTRY = wire.Entry(1700000000123456789, b"hi", {"pod": "p-1"})


# --- wire ---


def test_golden_push():
    assert wire.decode_push(GOLDEN) == [wire.Stream({"job": "t"}, '{job="t"}', [ENTRY])]
    assert wire.encode_push([({"job": "t"}, [tuple(ENTRY)])]) == GOLDEN
    body = bytes.fromhex("2cac") + GOLDEN
    assert wire.snappy_compress(GOLDEN) == body
    assert wire.decode_loki(body)[0].entries == [ENTRY]


def test_push_cut_at_every_byte_is_an_error_or_shorter():
    for at in range(len(GOLDEN)):
        try:
            assert len(wire.decode_push(GOLDEN[:at])) == 0
        except wire.WireError:
            pass
    body = wire.snappy_compress(GOLDEN)
    for at in range(len(body)):
        with pytest.raises(wire.WireError):
            wire.snappy_decompress(body[:at])


@pytest.mark.parametrize("data, want", [
    (b"\x00", b""),
    (b"\x05\x10hello", b"hello"),
    (b"\x0a\x00a\x15\x01", b"a" * 10),  # copy 1, length 9, offset 1: a run
    (b"\x08\x04ab\x09\x02", b"abababab"),  # copy 1, length 6, offset 2, overlapping
    (b"\x08\x04ab\x16\x02\x00", b"abababab"),  # copy 2
    (b"\x08\x04ab\x17\x02\x00\x00\x00", b"abababab"),  # copy 4
])
def test_snappy(data, want):
    assert wire.snappy_decompress(data) == want


@pytest.mark.parametrize("size", [0, 1, 59, 60, 61, 255, 256, 257, 65536, 65537, 300000])
def test_snappy_round(size):
    data = random.Random(size).randbytes(size)
    assert wire.snappy_decompress(wire.snappy_compress(data)) == data


def test_snappy_refuses():
    for bad in (b"", b"\x80", b"\x04\x01\x01", b"\x04\x05\x00", b"\x02\x00a", b"\x01\x04ab", b"\xff\xff\xff\xff\x0f"):
        with pytest.raises(wire.WireError):
            wire.snappy_decompress(bad)


@pytest.mark.parametrize("text, want", [
    ('{a="b"}', {"a": "b"}),
    ('{a="b", c="d"}', {"a": "b", "c": "d"}),
    (r'{a="q\"b\\s\nl\x01\u00e9\101"}', {"a": 'q"b\\s\nl\x01éA'}),
    ('{a="ü,}"}', {"a": "ü,}"}),
])
def test_labels(text, want):
    assert wire.parse_labels(text) == want
    assert wire.parse_labels(wire.format_labels(want)) == want


@pytest.mark.parametrize("text", [
    "", "{}", "{a}", '{a="b"', '{a="b}', '{a-b="c"}', '{1a="c"}', '{a="b"}x', '{a="b" "c"}', '{a="x\ny"}', r'{a="\q"}',
    '{a="b",a="c"}', '{a="\ufffd"}', r'{a="\ud800"}', 'a="b"',
])
def test_bad_labels(text):
    with pytest.raises(wire.WireError):
        wire.parse_labels(text)


def test_bulk():
    body = b'{"create":{"_index":"a","_id":"1"}}\n{"x":1}\n{"delete":{"_id":"2"}}\n{"index":{}}\n{"y":2}\n'
    items = wire.decode_bulk(body)
    assert items == [
        ("create", {"_index": "a", "_id": "1"}, b'{"x":1}'), ("delete", {"_id": "2"}, None), ("index", {}, b'{"y":2}'),
    ]
    half = body.index(b'{"delete')
    members = gzip.compress(body[:half]) + gzip.compress(body[half:])
    assert wire.decode_bulk(members, "gzip") == items
    for bad, encoding in ((body[:-1], ""), (b"x\n", ""), (members[:-3], "gzip"), (b"garbage", "gzip"),
                          (b'{"create":{}}\n', ""), (body, "zstd")):
        with pytest.raises(wire.WireError):
            wire.decode_bulk(bad, encoding)


def test_metrics_text():
    m = prom.parse('# HELP a b\na 1\nb{x="1",y="q\\"\\\\\\n}"} 2.5e3\nb{x="2"} +Inf\n')
    assert m[("a", frozenset())] == 1
    assert m[("b", frozenset({("x", "1"), ("y", 'q"\\\n}')}))] == 2500
    assert prom.total(m, "b", x=1) == 2500 and prom.total(m, "none") == 0
    with pytest.raises(ValueError):
        prom.parse("a 1\na 2\n")


# --- lines ---


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape(shape):
    g = Loggen(seed=3, shapes=[shape])
    lines = g.lines(500)
    for line in lines:
        doc = json.loads(line.text)
        assert line.text.count(line.seq) == 1 and list(seqs([line.text])) == [line.seq] and "\n" not in line.text
        assert line.level in LEVELS and isinstance(doc, dict)
        assert json.loads(docker(line))["log"] == line.text + "\n"
        assert cri(line).endswith(f" stdout F {line.text}")
    assert len(seqs(lines)) == 500
    again = Loggen(seed=3, shapes=[shape]).lines(500)
    assert [(l.seq, l.level, l.module, l.message) for l in again] == [
        (l.seq, l.level, l.module, l.message) for l in lines]


def test_arrival(tmp_path):
    g = Loggen()
    lines = g.lines(50)
    assert {l.shape for l in lines} == set(FIVE)
    write(tmp_path / "a.log", lines)
    assert_arrived(lines, (tmp_path / "a.log").read_bytes().splitlines())
    for bad in (lines[1:], lines + g.lines(1), lines + lines[:1]):
        with pytest.raises(AssertionError):
            assert_arrived(lines, bad)
    assert_arrived(lines, lines + lines[:1], doubles=True)


def test_wait_says_what():
    with pytest.raises(AssertionError, match="the moon.*last value: 0"):
        wait_until(lambda: 0, 0.05, "the moon")
    assert wait_until(lambda: 7, 0, "x") == 7


# --- the scripted server ---

BODY = wire.snappy_compress(GOLDEN)
PUSH = {"Content-Type": "application/x-protobuf", "X-Scope-OrgID": "acme"}


def push(server, body=BODY, headers=PUSH, **kw):
    return request("POST", server.url + "/loki/api/v1/push", body=body, headers=headers, timeout=5, **kw)


def test_replies_in_order_and_records(faults):
    s = faults()
    s.script(Reply(503, "busy", {"Retry-After": "1"}), Reply(429), times=2)
    answers = [push(s) for _ in range(5)]
    assert [a.status for a in answers] == [503, 429, 503, 429, 204]
    assert answers[0].headers["Retry-After"] == "1" and answers[0].text == "busy"
    assert s.left() == 0 and len(s.wait_requests(5, 5)) == 5
    r = s.requests[4]
    assert (r.method, r.path, r.tenant, r.answered) == ("POST", "/loki/api/v1/push", "acme", 204)
    assert r.loki()[0].entries == [ENTRY] and s.lines() == [b"hi"] * 5 and s.lines(accepted_only=True) == [b"hi"]


def test_keep_alive_and_scripts_by_tenant(faults):
    s = faults()
    s.script(Reply(401), when=lambda r: r.tenant == "bad", times=3)
    c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=5)
    seen = []
    for tenant in ("good", "bad", "good", "bad"):
        c.request("POST", "/p", BODY, dict(PUSH, **{"X-Scope-OrgID": tenant}))
        r = c.getresponse()
        r.read()
        seen.append(r.status)
    c.close()
    assert seen == [204, 401, 204, 401] and s.connections == 1 and s.left() == 1


def bulk_body(n):
    return b"".join(b'{"create":{"_index":"i","_id":"%d"}}\n{"n":%d}\n' % (i, i) for i in range(n))


def test_bulk_reply(faults):
    s = faults(default=BulkReply())
    s.script(BulkReply(lambda items: [429 if i.meta["_id"] == "1" else (400, "mapper") if json.loads(i.doc)["n"] == 2
                                      else 201 for i in items]), BulkReply(drop=1))
    headers = {"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"}
    url = s.url + "/_bulk"
    answer = request("POST", url, gzip.compress(bulk_body(4)), headers).expect(200).json()
    assert answer["errors"] and [i["create"]["status"] for i in answer["items"]] == [201, 429, 400, 201]
    assert answer["items"][2]["create"]["error"]["type"] == "mapper"
    answer = request("POST", url, gzip.compress(bulk_body(4)), headers).expect(200).json()
    assert not answer["errors"] and len(answer["items"]) == 3
    assert len(request("POST", url, gzip.compress(bulk_body(4)), headers).json()["items"]) == 4
    assert s.lines()[:2] == [b'{"n":0}', b'{"n":1}']


@pytest.mark.parametrize("step", [
    Reset("before"), Reset("mid"), Reset("after"), Reset("reply"), Hangup(), Close(), ResetConnection(), Garbage(),
    CutReply(Reply(200, "0123456789"), 4), CutReply(Reply(200, "0123456789"), 4, reset=True), SayOnAccept(),
    Stall(0.1), EarlyReply(413, reset=True),
], ids=repr)
def test_broken_answers_break(faults, step):
    s = faults()
    s.script(step)
    big = wire.snappy_compress(bytes(4_000_000))
    try:
        assert push(s, big).status == 413  # the early reply may be seen before the reset
    except OSError:
        pass
    assert push(s).status == 204
    assert s.left() == 0


def test_slow_stalled_unread_and_huge(faults):
    s = faults()
    s.script(SlowReply(Reply(200, "abc"), interval=0.001), Reply(204, delay=0.05), Stall(0.05, then=Reply(503)),
             HugeBody(size=3_000_000))
    assert push(s).text == "abc"
    assert push(s).status == 204
    assert push(s).status == 503
    assert len(push(s).body) == 3_000_000
    s.script(Stall(then=Reply(204)), NeverRead())
    got = []
    t = threading.Thread(target=lambda: got.append(push(s).status))
    t.start()
    s.wait_requests(5, 5)
    assert not got
    s.release()
    t.join(5)
    assert got == [204]
    with socket.create_connection(("127.0.0.1", s.port)) as c:
        c.settimeout(0.3)
        c.sendall(b"POST / HTTP/1.1\r\nContent-Length: 90000000\r\n\r\n")
        with pytest.raises(TimeoutError):
            while True:
                c.sendall(bytes(1 << 20))
    assert not s.requests[-1].complete


def test_chunked_and_continue(faults):
    s = faults()
    c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=5)
    c.request("POST", "/x", iter([b"abc", b"defg"]), {"Content-Type": "text/plain"}, encode_chunked=True)
    assert c.getresponse().status == 204
    assert s.requests[0].body == b"abcdefg"
    c.close()
    with socket.create_connection(("127.0.0.1", s.port), timeout=5) as c:
        c.sendall(b"POST / HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert c.recv(100).startswith(b"HTTP/1.1 100 ")
        c.sendall(b"ok")
        assert c.recv(100).startswith(b"HTTP/1.1 204 ")


def test_down_and_up_again(faults):
    s = faults()
    assert push(s).status == 204
    s.stop()
    with pytest.raises(ConnectionRefusedError):
        push(s)
    s.start()
    assert push(s).status == 204 and len(s.requests) == 2


def test_forward_and_lose(faults):
    real, front = faults(default=Reply(200, "real")), faults()
    front.default = Forward(real.url)
    front.script(Forward(real.url, lose=True))
    with pytest.raises(OSError):
        push(front)
    assert push(front).text == "real"
    assert [r.tenant for r in real.requests] == ["acme", "acme"] and real.requests[0].raw == BODY


def test_tls(faults, certs):
    trust = ssl.create_default_context(cafile=certs.ca)
    assert push(faults(tls=certs.server), context=trust).status == 204
    for bad in (certs.expired, certs.wrong_host, certs.stranger):
        with pytest.raises(ssl.SSLCertVerificationError):
            push(faults(tls=bad), context=trust)
    s = faults(tls=certs.server, client_ca=certs.ca)
    with pytest.raises(OSError):
        push(s, context=trust)
    trust.load_cert_chain(*certs.client)
    assert push(s, context=trust).status == 204
    s.script(ResetConnection())
    with pytest.raises(OSError):
        push(s, context=trust)
    s.script(Reset("after"))
    with pytest.raises(OSError):
        push(s, context=trust)
    wait_until(lambda: s.tls_errors, 5, "the refused handshake is recorded")


def test_ports_are_free():
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50
    with socket.socket() as c:
        assert c.connect_ex(("127.0.0.1", ports[0])) != 0
