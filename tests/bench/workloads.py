"""workloads.py: what the benchmark's programs read: folders of log files, made the same for the same seed.

Levels are such that every program, the floor included, drops the same lines: DEBUG, "debug" and pino's 20.
"""
import dataclasses
import datetime
import json
import pathlib
import random
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
WORDS = ("request connection leader commit view replica tenant cache miss hit replicate peer discovered index query apply "
         "projection lag prepare timeout retry failed success token agent register federation heartbeat snapshot").split()


@dataclasses.dataclass
class Workload:
    """Of one kind of lines: where they are and what must come of them."""
    name: str
    logs: pathlib.Path          # the folder with *.log
    plain: pathlib.Path         # the same lines without framing in one file, for the floor
    source_bytes: int
    payload_bytes: int          # without framing
    lines: int
    kept: int
    kept_bytes: int             # of the payload
    levels: str = "info"
    format: str = "json"


class Lines:
    """JSON lines as five loggers write them, from a seed; `debug`: the share of DEBUG lines."""

    def __init__(self, seed, debug=0.2, filler=0):
        self.r = random.Random(seed)
        self.debug, self.filler = debug, filler
        self.now = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(minutes=2)

    def _level(self, debug, others):
        return debug if self.r.random() < self.debug else self.r.choices(others, (88, 9, 3))[0]

    def line(self, i):
        """(bytes with newline, is it a debug line, its module)"""
        r, t = self.r, self.now + datetime.timedelta(microseconds=i * 37)
        text = " ".join(r.choices(WORDS, k=r.randint(4, 10) + self.filler))
        stamp, ident = t.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), f"{r.getrandbits(128):032x}"
        kind = i % 5
        if kind == 0:      # Rust tracing
            level, module = self._level("DEBUG", ("INFO", "WARN", "ERROR")), r.choice(("kmb_vsr", "kmb_storage", "kmb_query"))
            d = {"timestamp": stamp, "level": level, "target": module, "message": text,
                 "fields": {"node_id": r.randint(1, 13), "commit_index": i, "latency_us": r.randint(10, 90000)}}
        elif kind == 1:    # pino
            level, module = self._level(20, (30, 40, 50)), r.choice(("http", "cache", "discovery"))
            d = {"level": level, "time": int(t.timestamp() * 1000), "pid": r.randint(1, 999), "hostname": "kv-responder-3",
                 "module": module, "req": {"id": ident, "method": "GET", "url": f"/kv/{r.randint(1, 99999)}?ttl=60"},
                 "responseTime": r.random() * 100, "msg": text}
        elif kind == 2:    # structlog
            level, module = self._level("debug", ("info", "warning", "error")), r.choice(("registry.api", "teg.layer"))
            d = {"event": text.replace(" ", "_"), "agent_id": "did:key:" + ident[:24], "capabilities": r.sample(WORDS, 3),
                 "level": level, "logger": module, "timestamp": stamp, "trace_id": ident}
        elif kind == 3:    # python-json-logger
            level, module = self._level("DEBUG", ("INFO", "WARNING", "ERROR")), r.choice(("app.db", "app.web"))
            d = {"asctime": stamp, "name": module, "levelname": level, "level": level, "message": text, "taskName": None,
                 "request_id": ident, "status": r.choice((200, 201, 404))}
        else:              # zap
            level, module = self._level("debug", ("info", "warn", "error")), r.choice(("controller", "scheduler"))
            d = {"level": level, "ts": round(t.timestamp(), 6), "logger": module, "caller": f"queue/worker.go:{r.randint(10, 900)}",
                 "msg": text, "shard": r.randint(0, 63), "took": r.random()}
        return json.dumps(d, separators=(",", ":")).encode() + b"\n", level in ("DEBUG", 20, "debug"), module


def _spread(logs, rows, files):
    logs.mkdir(parents=True)
    for i in range(files):
        (logs / f"app-{i:05}.log").write_bytes(b"".join(rows[i::files]))


def _make(tmp, name, rows, is_kept, files=4, framed=None, **more):
    """rows and is_kept: one a line; framed: the raw lines, when they are others."""
    tmp.mkdir(parents=True)
    _spread(tmp / "logs", framed or rows, files)
    plain = b"".join(rows)
    (tmp / "plain.log").write_bytes(plain)
    source = sum(len(r) for r in framed) if framed else len(plain)
    return Workload(name, tmp / "logs", tmp / "plain.log", source, len(plain), len(rows), sum(is_kept),
                    sum(len(row) for row, yes in zip(rows, is_kept) if yes), **more)


def _five(tmp, name, lines, seed, debug=0.2, filler=0, files=4):
    rows, kept, gen = [], [], Lines(seed, debug, filler)
    for i in range(lines):
        row, is_debug, _ = gen.line(i)
        rows.append(row)
        kept.append(not is_debug)
    return _make(tmp, name, rows, kept, files)


def three(tmp, lines, seed):
    """gen.py's lines: the bytes of the floor's own table. The seed is gen.py's."""
    rows = subprocess.run([sys.executable, str(HERE / "gen.py"), str(lines)], check=True,
                          stdout=subprocess.PIPE).stdout.splitlines(keepends=True)
    debug = (b'"level":"DEBUG"', b'"level":20,', b'"level":"debug"')
    return _make(tmp, "three", rows, [not any(d in row for d in debug) for row in rows])


def five(tmp, lines, seed):
    return _five(tmp, "five", lines, seed)


def one_file(tmp, lines, seed):
    return _five(tmp, "one-file", lines, seed, files=1)


def many_files(tmp, lines, seed):
    return _five(tmp, "200-files", lines, seed, files=200)


def long_lines(tmp, lines, seed):
    """About 4 KiB a line."""
    return _five(tmp, "long", max(lines // 14, 1), seed, filler=520)


def filtered(tmp, lines, seed):
    """Nine of ten lines are out: by level, and by the module's level. Three times as many, for it is soon done."""
    quiet = ("kmb_storage", "kmb_query", "http", "cache", "registry.api", "app.db", "scheduler")
    rows, kept, gen = [], [], Lines(seed, debug=0.82)
    for i in range(3 * lines):
        row, is_debug, module = gen.line(i)
        is_quiet = module in quiet and (b'"level":"INFO"' in row or b'"level":30' in row or b'"level":"info"' in row)
        rows.append(row)
        kept.append(not (is_debug or is_quiet))
    return _make(tmp, "filtered", rows, kept, levels=",".join(["info"] + [f"{m}=warn" for m in quiet]))


def cri(tmp, lines, seed):
    """The five loggers' lines as containerd frames them; one in fifty comes in two parts."""
    rows, framed, kept, gen = [], [], [], Lines(seed)
    for i in range(lines):
        row, is_debug, _ = gen.line(i)
        stamp = (gen.now + datetime.timedelta(microseconds=i * 37)).strftime("%Y-%m-%dT%H:%M:%S.%f123Z").encode()
        rows.append(row)
        kept.append(not is_debug)
        half = len(row) // 2 if i % 50 == 7 else 0
        parts = stamp + b" stdout P " + row[:half] + b"\n" if half else b""
        framed.append(parts + stamp + b" stdout F " + row[half:])
    return _make(tmp, "cri", rows, kept, framed=framed, format="cri")


def idle_files(tmp, lines, seed):
    """Four busy files beside 10,000 that hold one line each."""
    w = _five(tmp, "idle-10000", lines, seed)
    row = b'{"level":"info","logger":"idle","message":"started"}\n'
    for i in range(10_000):
        (w.logs / f"idle-{i:05}.log").write_bytes(row)
    w.lines, w.kept = w.lines + 10_000, w.kept + 10_000
    w.source_bytes += 10_000 * len(row)
    w.payload_bytes += 10_000 * len(row)
    w.kept_bytes += 10_000 * len(row)
    return w


WORKLOADS = {"three": three, "five": five, "cri": cri, "long": long_lines, "filtered": filtered, "one-file": one_file,
             "200-files": many_files, "idle-10000": idle_files}
