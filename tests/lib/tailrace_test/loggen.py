"""Lines as real loggers write them, each with an id of its own, so that arrival can be checked exactly.

The id is "S" and ten digits, in the field `seq` of every line and nowhere else in it. seqs(lines) finds the ids again
in lines, documents or request bodies. Times are of now unless said otherwise; one seed gives the same lines but for
the times.
"""

import collections
import datetime
import json
import random
import re
import time

Line = collections.namedtuple("Line", "seq text shape level module ts message")  # level: our six names; ts: ns

SEQ = re.compile(rb"(?<![0-9A-Za-z])S([0-9]{10})(?![0-9A-Za-z])")
LEVELS = ("trace", "debug", "info", "warn", "error", "fatal")
FIVE = ("tracing", "pino", "structlog", "pythonjson", "zap")
WORDS = (
    "request connection leader commit view replica tenant cache miss hit replicate peer discovered index query apply "
    "projection lag prepare timeout retry failed success token agent register federation heartbeat snapshot flush"
).split()
MODULES = {
    "tracing": ("kv_consensus", "kv_storage", "kv_storage::wal", "kv_server::http", "kv_server::auth"),
    "tracing_flat": ("shop::db", "shop::cart", "hyper::proto"),
    "pino": ("http", "cache", "discovery"),
    "bunyan": ("api", "worker"),
    "structlog": ("registry.api", "federation.peer", "layer"),
    "pythonjson": ("app.db", "app.web", "celery.worker"),
    "zap": ("controller", "controller.pods", "scheduler"),
    "slog": ("",),
    "logrus": ("",),
    "ecs": ("com.example.Orders", "com.example.Stock"),
}
_WEIGHTS = (2, 18, 62, 12, 5, 1)


def _iso(ns, digits=6, zone="Z", sep="T"):
    t = datetime.datetime.fromtimestamp(ns // 1_000_000_000, datetime.timezone.utc)
    text = t.strftime(f"%Y-%m-%d{sep}%H:%M:%S")
    return text + (f".{ns % 1_000_000_000:09d}"[: digits + 1] if digits else "") + zone


def _dump(fields, spaced=False):
    return json.dumps(fields, separators=(", ", ": ") if spaced else (",", ":"))


# Each shape gives (text, the time as precise as the line carries it).


def _tracing(seq, ns, level, module, message, r):
    name = {"fatal": "ERROR", "warn": "WARN"}.get(level, level.upper())
    return _dump({
        "timestamp": _iso(ns), "level": name,
        "fields": {"message": message, "seq": seq, "commit": r.randrange(10**6)}, "target": module,
        "span": {"req": f"{r.getrandbits(32):08x}", "name": "http"},
        "spans": [{"node": r.randrange(9), "name": "main"}, {"req": f"{r.getrandbits(32):08x}", "name": "http"}],
        "threadName": "tokio-runtime-worker",
    }), ns // 1000 * 1000


def _tracing_flat(seq, ns, level, module, message, r):
    name = {"fatal": "ERROR", "warn": "WARN"}.get(level, level.upper())
    return _dump({"timestamp": _iso(ns), "level": name, "message": message, "seq": seq,
                  "ms": r.randrange(1000), "target": module}), ns // 1000 * 1000


_PINO = {"trace": 10, "debug": 20, "info": 30, "warn": 40, "error": 50, "fatal": 60}


def _pino(seq, ns, level, module, message, r):
    return _dump({
        "level": _PINO[level], "time": ns // 1_000_000, "pid": r.randrange(1, 999), "hostname": f"kv-{r.randrange(9)}",
        "module": module, "seq": seq, "req": {"id": f"{r.getrandbits(64):016x}", "method": r.choice(("GET", "PUT"))},
        "responseTime": round(r.random() * 100, 3), "msg": message,
    }), ns // 1_000_000 * 1_000_000


def _bunyan(seq, ns, level, module, message, r):
    return _dump({"name": module, "hostname": "h1", "pid": r.randrange(999), "level": _PINO[level], "seq": seq,
                  "msg": message, "time": _iso(ns, 3), "v": 0}), ns // 1_000_000 * 1_000_000


def _structlog(seq, ns, level, module, message, r):
    name = {"warn": "warning", "fatal": "critical", "trace": "debug"}.get(level, level)
    return _dump({
        "agent_id": f"did:key:{r.getrandbits(48):x}", "peers": r.sample(WORDS, 2), "seq": seq,
        "event": message.replace(" ", "_"), "level": name, "logger": module, "timestamp": _iso(ns),
    }, spaced=True), ns // 1000 * 1000


def _pythonjson(seq, ns, level, module, message, r):
    name = {"warn": "WARNING", "fatal": "CRITICAL", "trace": "DEBUG"}.get(level, level.upper())
    fields = {"asctime": _iso(ns, 3, "", " ").replace(".", ","), "levelname": name, "name": module, "seq": seq,
              "message": message, "user": r.randrange(1000)}
    if level == "error":
        fields["error"] = "EOF"  # where zap has an object: the two clash in one Elasticsearch index
    return _dump(fields, spaced=True), ns // 1_000_000 * 1_000_000


def _zap(seq, ns, level, module, message, r):
    name = {"trace": "debug"}.get(level, level)
    us = ns // 1000
    text = _dump({"level": name, "ts": "@", "logger": module, "caller": f"db/pg.go:{r.randrange(999)}", "msg": message,
                  "seq": seq, "error": {"code": r.randrange(9)} if level == "error" else None})
    return text.replace('"@"', f"{us // 10**6}.{us % 10**6:06d}", 1).replace(',"error":null', ""), us * 1000


def _slog(seq, ns, level, module, message, r):
    name = {"fatal": "ERROR+4", "trace": "DEBUG-4"}.get(level, level.upper())
    return _dump({"time": _iso(ns, 9), "level": name, "msg": message, "seq": seq, "dev": f"sd{r.choice('abc')}"}), ns


def _logrus(seq, ns, level, module, message, r):
    name = {"warn": "warning"}.get(level, level)
    return _dump({"level": name, "msg": message, "n": r.randrange(99), "seq": seq, "time": _iso(ns, 0)}
                 ), ns // 10**9 * 10**9


def _ecs(seq, ns, level, module, message, r):
    return _dump({"@timestamp": _iso(ns, 3), "ecs.version": "1.2.0", "log.level": level.upper(), "message": message,
                  "seq": seq, "process.thread.name": "main", "log.logger": module}), ns // 1_000_000 * 1_000_000


_MAKE = {
    "tracing": _tracing, "tracing_flat": _tracing_flat, "pino": _pino, "bunyan": _bunyan, "structlog": _structlog,
    "pythonjson": _pythonjson, "zap": _zap, "slog": _slog, "logrus": _logrus, "ecs": _ecs,
}
SHAPES = tuple(_MAKE)
# What a logger cannot say, it writes as the nearest level that it has.
_SAYS = {
    "tracing": {"fatal": "error"}, "tracing_flat": {"fatal": "error"}, "structlog": {"trace": "debug"},
    "pythonjson": {"trace": "debug"}, "zap": {"trace": "debug"},
}


class Loggen:
    """loggen.lines(1000) gives 1000 Line, ids going on where the last call ended."""

    def __init__(self, seed=1, shapes=FIVE, first=0):
        self.random, self.shapes, self.next = random.Random(seed), tuple(shapes), first
        self._last = 0

    def line(self, shape=None, level=None, module=None, ts=None, message=None):
        """One line; what is not given is drawn. ts in ns; without, now, and later than the one before."""
        r = self.random
        shape = shape or self.shapes[self.next % len(self.shapes)]
        level = level or r.choices(LEVELS, _WEIGHTS)[0]
        level = _SAYS.get(shape, {}).get(level, level)
        module = r.choice(MODULES[shape]) if module is None else module
        message = message or " ".join(r.choices(WORDS, k=r.randint(4, 10)))
        if ts is None:
            self._last = max(time.time_ns(), self._last + 1)
            ts = self._last
        seq, self.next = f"S{self.next:010d}", self.next + 1
        text, ts = _MAKE[shape](seq, ts, level, module, message, r)
        return Line(seq, text, shape, level, module, ts, message)

    def lines(self, n, **fixed):
        return [self.line(**fixed) for _ in range(n)]


def write(path, lines, mode="a"):
    """Appends the lines (Line or str) to a file in one go."""
    data = "".join((l.text if isinstance(l, Line) else l) + "\n" for l in lines)
    with open(path, mode, encoding="utf-8") as f:
        f.write(data)


def cri(line, stream="stdout", tag="F", ts=None):
    """The line as a container runtime frames it."""
    ts = ts or (line.ts if isinstance(line, Line) else time.time_ns())
    return f"{_iso(ts, 9)} {stream} {tag} {line.text if isinstance(line, Line) else line}"


def docker(line, stream="stdout", ts=None):
    """The line as Docker's json-file driver frames it."""
    ts = ts or (line.ts if isinstance(line, Line) else time.time_ns())
    text = line.text if isinstance(line, Line) else line
    return _dump({"log": text + "\n", "stream": stream, "time": _iso(ts, 9)})


def seqs(items):
    """The ids in lines, str, bytes, dicts (documents) or Line: a Counter, so that doubles show."""
    found = collections.Counter()
    for item in items:
        if isinstance(item, Line):
            found[item.seq] += 1
            continue
        if isinstance(item, dict):
            item = json.dumps(item)
        if isinstance(item, str):
            item = item.encode()
        for m in SEQ.finditer(item):
            found["S" + m[1].decode()] += 1
    return found


def assert_arrived(written, arrived, doubles=False):
    """Every written line arrived, nothing else did, and (unless doubles) each once. Fails with examples."""
    want, got = seqs(written), seqs(arrived)
    missing = sorted(set(want) - set(got))
    foreign = sorted(set(got) - set(want))
    twice = sorted(s for s in got if got[s] > want.get(s, 1))
    problems = []
    if missing:
        problems.append(f"{len(missing)} of {len(want)} missing: {missing[:5]} .. {missing[-5:]}")
    if foreign:
        problems.append(f"{len(foreign)} that were not written: {foreign[:10]}")
    if twice and not doubles:
        problems.append(f"{len(twice)} more than once: {[(s, got[s]) for s in twice[:10]]}")
    assert not problems, "; ".join(problems)
