"""What a server can do to us, row by row: each on its own output of one agent, all at once, for both protocols.

While it lasts: the code is counted, the state and the words are those for people, nothing is dead that should not be,
the other tenant and the archive have all their lines, memory stays flat. Afterwards: each line is there once.
"""

import email.utils
import gzip
import json
import re
import time

import pytest

from faultworld import FAT, GOOD, LINES, SICK, WELL, Row, Taken, World
from support import total
from tailrace_test import (
    BulkReply, Bytes, Certs, Close, CutReply, EarlyReply, Flood, Garbage, Hangup, HoldConnection, HugeBody, NeverRead, Reply,
    Reset, ResetConnection, SayOnAccept, SlowReply, Stall, seqs,
)

MIB = 1 << 20
PEAK = 64 * MIB
HTML = {"Content-Type": "text/html"}


def step(s):
    """The same for every request."""
    return lambda played, request: s


def taken(s):
    """The server has stored it before."""
    return lambda played, request: Taken(played.store, s)


def status(code, body=b"", headers=None):
    return step(Reply(code, body, headers))


def both(kind, loki, bulk):
    return loki if kind == "loki" else bulk


# --- the connection ---


def connection(kind):
    return [
        Row("refused", down=True, codes="refused", state="down", says="refused: .*onnect", event=True),
        Row("closed-at-once", accept=Close(), codes="reset", state="down", says="reset: ", event=True),
        Row("reset-at-once", accept=ResetConnection(), codes={"reset", "refused"}, state="down", says="reset|refused", event=True),
        Row("speaks-first", accept=SayOnAccept(), codes={"garbage", "reset"}, state="down", says="garbage: |reset: "),
        Row("silent-from-the-start", accept=HoldConnection(), codes="timeout", state="down", says="timeout: .*timed out"),
        Row("reset-unread", step(Reset("before")), codes="reset", state="down", says="reset: "),
        Row("reset-in-the-body", step(Reset("mid")), codes="reset", state="down", says="reset: "),
        Row("reset-after-the-body", taken(Reset("after")), codes="reset", state="down", says="reset: "),
        Row("reset-in-the-reply", taken(Reset("reply")), codes="reset", state="down", says="reset: "),
        Row("reply-lost", taken(Hangup()), codes="reset", state="down", says="reset: .*mpty reply"),
        Row("half-closed", taken(Hangup(half=True)), codes="reset", state="down", says="reset: .*mpty reply"),
        Row("silent-after-the-body", taken(Stall()), codes="timeout", state="down", says="timeout: .*timed out"),
        Row("never-reads", step(NeverRead()), codes="timeout", state="down", says="timeout: .*timed out"),
        Row("answers-unread", step(EarlyReply(503, b"too busy to read")), codes={"503", "reset"}),
        Row("answers-unread-and-resets", step(EarlyReply(503, b"too busy", reset=True)), codes={"503", "reset"}),
    ]


# --- what comes back is no answer ---

BOMB = gzip.compress(bytes(256 * MIB), 9)


def garbage(kind):
    ok = both(kind, Reply(204), Reply(200, json.dumps({"took": 1, "errors": False, "items": []})))
    held_or_again = both(kind, {"state": "held"}, {"state": "backoff"})
    return [
        Row("one-byte-a-second", taken(SlowReply(Reply(200, "x" * 100), interval=0.5)), codes="timeout", state="down",
            says="timeout: "),
        Row("no-http", step(Garbage()), codes="garbage", state="down", says="garbage: "),
        Row("nonsense-status", step(Bytes(b"HTTP/1.1 abc What\r\n\r\n")), codes={"garbage", "reset"}, state="down"),
        Row("huge-header", step(HugeBody(200, 64 * MIB, headers=True, fill=b"h")), codes={"garbage", "reset"}, state="down"),
        Row("endless-headers", step(Flood(b"X-Many: " + b"h" * 90 + b"\r\n", first=b"HTTP/1.1 200 X\r\n")),
            codes={"garbage", "reset"}, state="down"),
        Row("1-gb-of-200", step(HugeBody(200)), codes="200", state="held", says="HTTP 200 not_"),
        Row("1-gb-of-500", step(HugeBody(500)), codes="500", state="backoff", says="HTTP 500 server_error"),
        Row("gzip-bomb", step(Reply(200, BOMB, {"Content-Encoding": "gzip", "Content-Type": "application/json"})),
            codes="200", state="held", says="HTTP 200 not_"),
        Row("length-too-long", taken(CutReply(Reply(200, "{" * 500), at=100)), codes="reset", state="down",
            says="reset: .*(remaining|outstanding|closed)"),
        Row("length-too-short", step(Bytes(b"HTTP/1.1 503 X\r\nContent-Length: 3\r\n\r\nabcdefghij" * 3)), codes="503",
            state="backoff"),
        Row("length-nonsense", step(Bytes(b"HTTP/1.1 503 X\r\nContent-Length: many\r\n\r\nabc")),
            codes={"503", "garbage", "reset"}),
        Row("length-too-large", step(Bytes(b"HTTP/1.1 503 X\r\nContent-Length: 99999999999999999999999\r\n\r\nabc")),
            codes={"503", "garbage", "reset"}),
        Row("cut-chunk", taken(Bytes(b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\nabc")), codes="reset",
            state="down", says="reset: "),
        Row("100-and-nothing", step(Bytes(b"HTTP/1.1 100 Continue\r\n\r\n", hold=True)), codes="timeout", state="down",
            says="timeout: "),
        Row("100-for-ever", step(Flood(b"HTTP/1.1 100 Continue\r\n\r\n")), codes={"garbage", "timeout", "reset"}, state="down"),
    ]


# --- trust ---


def trust(kind):
    return [
        Row("expired", tls="expired", codes="tls", state="down", says="tls: .*expired", event=True, again="restart"),
        Row("wrong-host", tls="wrong_host", codes="tls", state="down", says="tls: .*does not match|tls: .*name",
            event=True, again="restart"),
        Row("unknown-authority", tls="stranger", codes="tls", state="down", says="tls: .*certificate", event=True,
            again="restart"),
        Row("self-signed", tls="self_signed", codes="tls", state="down", says="tls: .*self.signed", event=True,
            again="restart"),
        Row("reset-in-the-handshake", tls="server", accept=ResetConnection(), codes={"reset", "refused"}, state="down"),
        Row("closed-in-the-handshake", tls="server", accept=Close(), codes={"reset", "tls"}, state="down", again="restart"),
        Row("handshake-without-end", tls="server", accept=HoldConnection(), codes="timeout", state="down",
            says="timeout: "),
        Row("plain-behind-https", accept=SayOnAccept(b"HTTP/1.1 400 Bad Request\r\n\r\n"), conf={"url": "https://127.0.0.1:PORT"},
            codes={"reset", "tls"}, state="down", again="never"),  # whose greeting is read first is the network's
        Row("tls-behind-http", tls="server", conf={"url": "http://127.0.0.1:PORT", "tls": {}}, state="down",
            codes={"garbage", "reset"}, again="never"),
    ]


# --- one tenant is refused, or one index ---

LOKI_CONFIG = [
    "no org id",
    "multiple org IDs present",
    "tenant ID 'a/b' contains unsupported character '/'",
    "stream '{a=\"b\"}' includes structured metadata, but this feature is disallowed. Please see `limits_config.allow_structured_metadata`",
    "entry for stream '{a=\"b\"}' has 16 label names; limit 15",
]


def refusals(kind):
    """Whole requests of one tenant, by status."""
    rows = [
        Row(f"{code}", status(code, body, headers), only=SICK, codes=str(code), state="held",
            says=f"HTTP {code} {reason}|{reason}", reason=reason)
        for code, body, headers, reason in (
            (260, "ingestion blocked for user 'a' until tomorrow with status code '260'", None, "ingestion_blocked"),
            (201, b"", None, "unexpected_status"), (301, b"", {"Location": "http://127.0.0.1:9/"}, "redirect"),
            (307, b"", {"Location": "/elsewhere"}, "redirect"), (401, "who are you", None, "unauthorized"),
            (403, "not you", None, "forbidden"), (404, "page not found", None, "not_found"),
            (405, b"", None, "unexpected_status"), (407, b"", None, "unexpected_status"),
            (422, "error at least one valid stream is required for ingestion", None, "unexpected_status"))
    ]
    rows.append(Row("a-web-page", status(200, "<html>Welcome to nginx!</html>", HTML), only=SICK, codes="200",
                    state="held", reason="not_loki"))
    return rows


def moments(kind):
    """Whole requests that are to be tried again."""
    rows = [
        Row(f"{code}", status(code, body), only=SICK, codes=str(code), state="backoff", reason=reason)
        for code, body, reason in (
            (408, b"", "timeout"), (425, b"", "too_early"), (429, "slow down", "rate_limited"),
            (499, "context canceled", "canceled"), (500, "rpc error: code = Unavailable", "server_error"),
            (502, "<html>bad gateway</html>", "unavailable"), (503, "at least 2 live replicas required", "unavailable"),
            (504, b"", "unavailable"))
    ]
    rows.append(Row("stream-limit", status(429, "maximum active stream limit exceeded when trying to create stream {a=\"b\"}"),
                    only=SICK, codes="429", state="backoff", reason="stream_limit"))
    rows.append(Row("retry-after-seconds", after(4, lambda: "4"), codes="503", only=SICK, settles=True))
    rows.append(Row("retry-after-date", after(3, lambda: email.utils.formatdate(time.time() + 4, usegmt=True)), codes="429",
                    only=SICK, settles=True, conf={}))
    rows.append(Row("retry-after-nonsense", once(Reply(503, "", {"Retry-After": "soon"})), codes="503", only=SICK,
                    settles=True))
    return rows


def once(s):
    def fault(played, request):
        if request.tenant in played.first_seen:
            return None
        played.first_seen[request.tenant] = True
        return s
    return fault


def after(seconds, header):
    """The first answer asks for a pause; a request of that tenant before its end is an error of ours."""
    def fault(played, request):
        seen = played.first_seen.setdefault(request.tenant, time.monotonic())
        if played.first_seen.setdefault("count", 0) == 0:
            played.first_seen["count"] = 1
            return Reply(503 if played.row.name.endswith("seconds") else 429, "", {"Retry-After": header()})
        waited = time.monotonic() - seen
        assert waited >= seconds - 0.1, f"asked again after {waited:.2f} s"
        return None
    return fault


def config_words(kind):
    return [Row(f"400-{i}", status(400, words), only=SICK, codes="400", state="held") for i, words in enumerate(LOKI_CONFIG)]


# --- something in it ---


def n_lines(request):
    return len(request.lines())


def at_most(n, refusal):
    """Requests of more lines than that are refused as a whole."""
    return lambda played, request: refusal(request) if n_lines(request) > n else None


def fat(request):
    return any(len(line) > FAT for line in request.lines())


def rate_words(request):
    size = sum(len(line) for line in request.lines())
    return Reply(429, f"ingestion rate limit exceeded for user {request.tenant} (limit: {size // 2} bytes/sec) while "
                      f"attempting to ingest '{n_lines(request)}' lines totaling '{size}' bytes, reduce log volume or "
                      f"contact your Loki administrator to see if the limit can be increased")


def stream_rate_words(request):
    n, size = n_lines(request), sum(len(line) for line in request.lines())
    text = request.loki()[0].text
    return Reply(429, f"entry with timestamp 2026-01-02 03:04:05.6 +0000 UTC ignored, reason: 'Per stream rate limit "
                      f"exceeded (limit: {size // 2048}KB/sec) while attempting to ingest for stream '{text}' totaling "
                      f"{size // 1024 + 1}KB, consider splitting a stream',\nuser 'x', total ignored: {n} out of {n} for stream: {text}")


def seq_of(line):
    return int(re.search(rb"S(\d{10})", line)[1])


POISON = {3, 17, 40}  # the 4th and 18th line of the first tenant, one of the other


def poisoned(line):
    return seq_of(line) in POISON


def parse_error(played, request):
    return Reply(400, "couldn't parse push request: bad wire type") if any(map(poisoned, request.lines())) else None


def validation(played, request):
    """Loki's way: the rest is stored, and each refused entry is named by its length."""
    bad = [(s, e) for s in request.loki() for e in s.entries if poisoned(e.line)]
    if not bad:
        return None
    words = "; ".join(f"1 errors like: max entry size '100' bytes exceeded for stream '{s.text}' while adding an entry "
                      f"with length '{len(e.line)}' bytes" for s, e in bad)
    same = [e.line for s in request.loki() for e in s.entries if len(e.line) in {len(b.line) for _, b in bad}]
    played.first_seen.setdefault("named", set()).update(same)
    return Chosen(played.store, Reply(400, words), lambda line: line not in same)


def far_behind(played, request):
    """All entries of a stream older than a bound: ten are named at most, the rest is a figure."""
    streams = [s for s in request.loki() if request.tenant == WELL]
    if not streams or played.first_seen.get("done"):
        return None
    s = streams[0]
    entries = sorted(s.entries, key=lambda e: e.ts)
    late, bound = entries[:12], entries[12].ts if len(entries) > 12 else None
    if bound is None:
        return None
    played.first_seen["done"] = True

    def go(ns):
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(ns // 10**9)) + f".{ns % 10**9:09d}".rstrip("0") + " +0000 UTC"

    def go_t(ns):
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ns // 10**9)) + f".{ns % 10**9:09d}".rstrip("0") + "Z"

    words = "".join(f"entry with timestamp {go(e.ts)} ignored, reason: 'entry too far behind, entry timestamp is: {go_t(e.ts)}, "
                    f"oldest acceptable timestamp is: {go_t(bound)}',\n" for e in late[:10])
    words += f"user '{request.tenant}', total ignored: {len(late)} out of {len(entries)} for stream: {s.text}"
    gone = {e.line for e in late}
    return Chosen(played.store, Reply(400, words), lambda line: line not in gone)


class Chosen(Taken):
    def __init__(self, store, answer, choose):
        super().__init__(store, answer)
        self.choose = choose

    def play(self, conn, request):
        conn.read_body(request)
        self.store.take(request, self.choose)
        return self.step.play(conn, request)


def resets_when_large(played, request):
    """Elasticsearch 9: the socket is closed before the 413 is read, while smaller requests pass."""
    limit = both(played.kind, 80_000, 62_000)
    return Reset("mid") if int(request.headers.get("Content-Length", 0)) > limit else None


def contents(kind):
    large = both(kind, "request body too large: message size too large than max (1 vs 0)", "")
    whole = {3, 17, 40}
    rows = [
        Row("413", at_most(7, lambda r: Reply(413, large)), codes="413", settles=True),
        Row("413-early", lambda p, r: EarlyReply(413, large) if int(r.headers["content-length"]) > 30_000 else None,
            codes={"413", "reset"}, settles=True),
        Row("413-down-to-a-line", lambda p, r: Reply(413, large) if fat(r) else None, codes="413", dead=LINES,
            reason="too_large", settles=True),
        Row("resets-when-large", resets_when_large, codes="reset", settles=True,
            conf={"queue": {"batch_wait": "50ms", "sync": "10ms"}}),
    ]
    if kind == "loki":
        rows += [
            Row("500-larger-than-max", at_most(9, lambda r: Reply(500, "rpc error: code = ResourceExhausted desc = grpc: received "
                                               "message larger than max (5138493 vs. 4194304)\n")), codes="500", settles=True),
            Row("429-above-the-burst", at_most(5, rate_words), codes="429", settles=True),
            Row("429-above-a-streams-burst", at_most(5, stream_rate_words), codes="429", settles=True),
            Row("400-parse", parse_error, codes="400", dead=len(whole), reason="bad_request", settles=True),
            Row("400-parse-all", status(400, "couldn't parse labels: 1:2: parse error"), codes="400", state="held",
                reason="bad_request", only=SICK),
            Row("400-validation", validation, codes="400", dead=None, reason="line_too_long", settles=True),
            Row("400-too-far-behind", far_behind, codes="400", dead=12, reason="too_far_behind", settles=True),
            Row("400-validation-unclear", once(Reply(400, "entry for stream '' has timestamp too old: long ago")), only=WELL,
                codes="400", dead=LINES, reason="refused", settles=True),
        ]
    return rows


# --- items of a bulk ---


def es(code, words="scripted", kind="x_exception"):
    return Reply(code, {"error": {"root_cause": [], "type": kind, "reason": words}, "status": code})


def decide(choose, *verdicts):
    """Lines that choose() takes are answered with each verdict in turn, then stored; the others at once."""
    def fault(played, request):
        def one(item):
            if not choose(item.doc):
                return played.store.take_item(item)
            n = played.first_seen[item.meta["_id"]] = played.first_seen.get(item.meta["_id"], -1) + 1
            return verdicts[n] if n < len(verdicts) else played.store.take_item(item)
        return BulkReply(lambda items: [one(i) for i in items])
    return fault


def mixed(played, request):
    """Every kind of answer among one bulk's items, in an order that changes."""
    ways = [201, 409, (429, "es_rejected_execution_exception"), (400, "document_parsing_exception"),
            (503, "unavailable_shards_exception"), (500, "exception"), (429, "circuit_breaking_exception"), (408, "timeout"),
            (502, "bad_gateway")]

    def one(item):
        seq = seq_of(item.doc)
        if ways[seq % len(ways)] == (400, "document_parsing_exception"):
            return ways[seq % len(ways)]
        if played.first_seen.setdefault(seq, 0) == 0:
            played.first_seen[seq] = 1
            way = ways[seq % len(ways)]
            if way == 201:
                return played.store.take_item(item)
            if way == 409:  # it was there from before: what "lost reply" leaves behind
                played.store.take_item(item)
                return (409, "version_conflict_engine_exception")
            return way
        return played.store.take_item(item)

    return BulkReply(lambda items: [one(i) for i in items])


def sick_items(*verdict):
    def fault(played, request):
        return BulkReply(lambda items: [verdict if i.meta["_index"].endswith(SICK) else played.store.take_item(i)
                                        for i in items])
    return fault


def some_taken(drop):
    """All are stored; the answer speaks of fewer, or of more."""
    def fault(played, request):
        if drop > 0:
            return BulkReply(lambda items: [played.store.take_item(i) for i in items], drop=drop)
        played.store.take(request)
        n = n_lines(request) + 1
        return Reply(200, {"took": 1, "errors": False, "items": [{"create": {"status": 201}}] * n})
    return fault


def items(kind):
    deads = len([i for i in range(3 * LINES) if i % 9 == 3])
    shards = "this action would add [2] shards, but this cluster currently has [999]/[1000] maximum normal shards open"
    return [
        Row("mixed-items", mixed, codes="200", dead=deads, reason="document_parsing_exception", settles=True),
        Row("fewer-items", some_taken(1), codes="200", state="backoff", reason="item_count"),
        Row("more-items", some_taken(-1), codes="200", state="backoff", reason="item_count"),
        Row("no-items", taken(Reply(200, {"took": 1, "errors": True, "items": []})), codes="200", state="backoff"),
        Row("items-refused-429", sick_items(429, "es_rejected_execution_exception", "queue is full"), codes="200",
            state="backoff", only=SICK, says="queue is full|es_rejected"),
        Row("items-refused-401", sick_items(401, "security_exception", "no such user"), codes="200", state="held",
            only=SICK, says="no such user|security"),
        Row("items-refused-403", sick_items(403, "cluster_block_exception", "index [x] blocked by: [FORBIDDEN/8/index write (api)];"),
            codes="200", state="held", only=SICK, says="FORBIDDEN/8|cluster_block"),
        Row("items-refused-404", sick_items(404, "index_not_found_exception", "no such index [x]"), codes="200", state="held",
            only=SICK, says="no such index|index_not_found"),
        Row("items-over-the-shard-limit", sick_items(400, "validation_exception", shards), codes="200", state="held",
            only=SICK, says="shards|validation"),
        Row("items-in-flood-stage", sick_items(429, "cluster_block_exception", "disk usage exceeded flood-stage watermark"),
            codes="200", state="backoff", only=SICK, says="flood|cluster_block"),
        Row("items-in-flood-stage-of-old", sick_items(403, "cluster_block_exception", "blocked by: [FORBIDDEN/12/index read-only];"),
            codes="200", state="backoff", only=SICK),
    ]


def bulk_whole(kind):
    return [
        Row("401", step(es(401, "missing credentials", "security_exception")), codes="401", state="held",
            says="missing credentials"),
        Row("403", step(es(403, "not for you", "security_exception")), codes="403", state="held", says="not for you"),
        Row("404", step(Reply(404, "no handler")), codes="404", state="held", says="not_found"),
        Row("400-always", step(es(400, "unexpected parameter", "illegal_argument_exception")), codes="400", state="held",
            says="unexpected parameter"),
        Row("405-always", step(Reply(405, {"error": "Incorrect HTTP method for uri [/_bulk]", "status": 405})), codes="405",
            state="held", says="Incorrect HTTP method"),
        Row("406-always", step(Reply(406, {"error": "Content-Type header [x] is not supported", "status": 406})), codes="406",
            state="held", says="is not supported"),
        Row("400-for-one-line", lambda p, r: es(400, "malformed") if any(map(poisoned, r.lines())) else None, codes="400",
            dead=3, reason="bad_request", settles=True),
        Row("429", step(es(429, "rejected execution of coordinating operation", "es_rejected_execution_exception")),
            codes="429", state="backoff", says="rejected execution"),
        Row("503", step(es(503, "SERVICE_UNAVAILABLE/1/state not recovered", "cluster_block_exception")), codes="503",
            state="backoff", says="not recovered"),
        Row("503-html", step(Reply(503, "<html>no upstream</html>", HTML)), codes="503", state="backoff"),
        Row("a-web-page", step(Reply(200, "<html>Welcome!</html>", HTML)), codes="200", state="held", reason="not_elasticsearch"),
        Row("another-json", step(Reply(200, {"ok": True})), codes="200", state="held", reason="not_elasticsearch"),
        Row("empty-200", taken(Reply(200, b"", {"Content-Type": "application/json"})), codes="200", state="backoff"),
        Row("307", step(Reply(307, b"", {"Location": "http://127.0.0.1:9/_bulk"})), codes="307", state="held", says="redirect"),
        Row("200-cut-inside", taken(CutReply(BulkReply(), at=30)), codes="reset", state="down", says="reset: "),
    ]


WORLDS = {
    "loki-connection": connection, "loki-garbage": garbage, "loki-trust": trust, "loki-refusals": refusals,
    "loki-moments": moments, "loki-config": config_words, "loki-contents": contents,
    "bulk-connection": connection, "bulk-garbage": garbage, "bulk-trust": trust, "bulk-whole": bulk_whole,
    "bulk-items": items, "bulk-contents": contents,
}
ROWS = {name: {row.name: row for row in make(name.partition("-")[0])} for name, make in WORLDS.items()}


def pytest_generate_tests(metafunc):
    rows = [(w, r) for w in WORLDS for r in (*ROWS[w], "archive")]
    metafunc.parametrize("world, row", rows, indirect=["world"], scope="module")


@pytest.fixture(scope="module")
def world(request, tmp_path_factory):
    """Has lived through both of its times: what was wrong with a row is in .problems."""
    name = request.param
    path = tmp_path_factory.mktemp(name)
    w = World(path, name.partition("-")[0], list(ROWS[name].values()), Certs(path))
    try:
        w.start()
        w.judge(while_it_lasts)
        w.mend()
        w.judge(afterwards)
        yield w
    finally:
        w.close()


def test_row(world, row):
    """What was found out about it while its server did that, and afterwards; the archive: nobody else noticed."""
    if row == "archive":
        world.assert_archived()
        assert world.peak_bytes <= PEAK, world.peak_bytes
        assert world.stop_seconds < 3, world.stop_seconds
        return
    for problem in world.problems[row]:
        raise problem


# --- what is found out ---


def while_it_lasts(world, row):
    p, a = world.played[row], world.agent
    rule = p.row
    world.wait(lambda: not rule.codes or rule.codes & set(world.codes(row)),
               lambda: f"{row}: a request with {rule.codes}: {world.codes(row)}")
    if rule.settles:
        world.wait(lambda: world.rests(row), lambda: f"{row} settles by itself: {world.rows_of(row)} {world.output(row)}", 60)
        assert a.metric("output_up", output=row) == 1
        if rule.reason:
            assert a.metric("dead_letter_lines_total", output=row, reason=rule.reason) > 0
            event = next(e for e in a.events("dead.written") if e["fields"]["output"] == row)
            assert event["fields"]["reason"] == rule.reason, event
        return
    world.wait(lambda: total(world.rows_of(row), "accepted_lines") == len(world.lines()), "all is in the queue")
    if rule.only:  # the other tenant does not notice
        well = seqs(world.lines(WELL))
        world.wait(lambda: not well - seqs(list(p.store.held.values())), lambda: f"{row}: the other flows: {world.output(row)}", 20)
        assert total(world.rows_of(row), "delivered_lines", tenant=SICK) == 0
    else:
        assert total(world.rows_of(row), "delivered_lines") == 0
    assert set(world.codes(row)) <= rule.codes | GOOD[world.kind], world.codes(row)
    assert total(world.rows_of(row), "dead_lines") == 0
    assert_state(world, row, rule)
    if rule.event:
        event = next(e for e in a.events("output.failing") if e["fields"]["output"] == row)
        assert re.search(rule.says, event["fields"]["error"]), event
        assert a.metric("output_up", output=row) == 0


def assert_state(world, row, rule):
    shown = {}

    def is_so():
        shown.update(world.output(row))
        keys = shown.get("keys", [])
        if rule.state == "down":
            return any(u["failures"] > 0 for u in shown["urls"])
        return rule.state is None or any(k["state"] == rule.state for k in keys)

    world.wait(is_so, lambda: f"{row} is {rule.state}: {shown}", 10)
    words = [shown.get("last_error", "")] + [f"{k['reason']} {k['error']}" for k in shown.get("keys", [])]
    assert any(re.search(rule.says, w) for w in words), words
    if rule.reason:
        assert any(k["reason"] == rule.reason for k in shown["keys"]), shown
    if rule.state == "held":
        assert world.agent.health()["level"] in ("Degraded", "Unhealthy")
        assert world.agent.metric("route_keys_held", output=row) >= 1


def afterwards(world, row):
    p = world.played[row]
    if p.row.again == "never":
        assert not p.store.held
        return
    world.assert_once(row)
    if p.row.dead:
        assert world.agent.metric("dead_letter_lines_total", output=row) == p.row.dead
    world.wait(lambda: not world.output(row).get("keys") and not world.output(row)["failing"], "nothing is held")
