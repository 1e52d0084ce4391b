"""The two fast tools in C, built by make into build/release/tools: a writer and a counting server."""

import json
import os
import pathlib

from . import client
from .loggen import LEVELS
from .proc import Process
from .servers import ROOT
from .wait import wait_until


def tool(name):
    """$TAILRACE_TOOLS/NAME, else build/release/tools/NAME."""
    path = pathlib.Path(os.environ.get("TAILRACE_TOOLS") or ROOT / "build" / "release" / "tools").resolve() / name
    assert path.is_file(), f"{path} is not there: run make first"
    return path


def _arguments(options):
    """lines=10, cri=True -> --lines 10 --cri"""
    for key, value in options.items():
        if value is not False and value is not None:
            yield f"--{key.replace('_', '-')}"
            if value is not True:
                yield str(value)


class Written:
    """What loggen wrote: its summary as attributes (lines, bytes, rotations, first_ts, last_ts, seconds, by_level,
    by_tenant ...), and each line's logger, level, module and tenant."""

    def __init__(self, summary, index):
        self.summary = summary
        self.__dict__.update(summary)
        self.index = index

    def rows(self):
        """Yields (id, logger, level, module, tenant) of every line; tenant is "t00" ... or None."""
        data = pathlib.Path(self.index).read_bytes()
        assert len(data) == 4 * self.lines
        names, modules = self.loggers, [self.modules[n] for n in self.loggers]
        tenants = [f"t{i:02d}" for i in range(256)] if len(self.by_tenant) > 1 else [None] * 256
        for i in range(self.lines):
            logger, level, module, tenant = data[4 * i : 4 * i + 4]
            yield f"S{self.first + i:010d}", names[logger], LEVELS[level], modules[logger][module], tenants[tenant]

    def ids(self, keep=None):
        """The ids as a set; keep(logger, level, module, tenant) chooses."""
        return {row[0] for row in self.rows() if keep is None or keep(*row[1:])}


class LoggenRun:
    """loggen in the background: wait() gives Written."""

    def __init__(self, directory, **options):
        self.dir = pathlib.Path(directory)
        self.dir.mkdir(parents=True, exist_ok=True)
        base = self.dir.parent / f".{self.dir.name}.loggen"
        self.index = f"{base}.index"
        self.process = Process([tool("loggen"), self.dir, "--index", self.index, *_arguments(options)], base)
        self._from = os.path.getsize(self.process.out)

    def wait(self, timeout=600):
        code = self.process.wait(timeout)
        assert code == 0, f"loggen failed\n{self.process.describe()}"
        return Written(json.loads(pathlib.Path(self.process.out).read_text().splitlines()[-1]), self.index)


def run_loggen(directory, timeout=600, **options):
    """Writes lines by the five loggers into directory/app-NNN.log and waits: Written.

    options: lines files rotate tenants first seed rate block keep prefix, and the switches cri torn late append.
    """
    return LoggenRun(directory, **options).wait(timeout)


class CountServer:
    """Takes pushes of both protocols fast, and counts. check: finds the id of every line. latency: ms an answer.
    delays: how long after its time each Loki entry came, by tenant, in the report."""

    def __init__(self, tmpdir, check=True, latency=0, raw=False, port=0, delays=False):
        tmpdir = pathlib.Path(tmpdir)
        tmpdir.mkdir(parents=True, exist_ok=True)
        self.base = tmpdir / "countserver"
        self.options = dict(check=check, latency=latency or None, raw=raw, delays=delays)
        self.port, self.process = port, None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self, timeout=10):
        """The port stays over stop() and start(); what was counted does not."""
        self.base.with_suffix(".out").unlink(missing_ok=True)
        self.process = Process([tool("countserver"), *_arguments(dict(self.options, port=self.port))], self.base)

        def ready():
            assert self.process.running(), f"countserver ended\n{self.process.describe()}"
            text = pathlib.Path(self.process.out).read_text()
            return text.split()[1] if text.startswith("READY ") and text.endswith("\n") else None

        self.port = int(wait_until(ready, timeout, "countserver is ready"))
        return self

    def stop(self):
        if self.process:
            process, self.process = self.process, None
            code = process.stop()
            assert code == 0, f"countserver ended with {code}\n{process.describe()}"

    __enter__ = start

    def __exit__(self, *_):
        self.stop()

    def report(self, lines=0, first=0):
        """{"loki": {requests, lines, line_bytes, body_bytes, decoded_bytes, refused, unsorted, tenants, ids}, "bulk": {..}}

        unsorted: entries older than the one before in their stream and request. With lines=N the ids of [first, first+N) that did not come are counted: ids.missing, ids.first_missing."""
        return client.request("GET", f"{self.url}/report?first={first}&lines={lines}").expect(200).json()

    def ids(self, kind):
        """The ids that came, kind "loki" or "bulk", as a set."""
        bits = client.request("GET", f"{self.url}/ids/{kind}").expect(200).body
        return {f"S{8 * i + b:010d}" for i, byte in enumerate(bits) if byte for b in range(8) if byte >> b & 1}

    def reset(self):
        client.request("POST", self.url + "/reset").expect(204)

    def wait_lines(self, kind, n, timeout):
        """Waits until at least n lines came; returns the number."""
        last = [0]

        def enough():
            last[0] = self.report()[kind]["lines"]
            return last[0] >= n

        wait_until(enough, timeout, lambda: f"{n} lines at the counting server ({kind}): {last[0]}", interval=0.05)
        return last[0]
