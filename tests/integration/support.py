"""What the integration tests have in common: small configs, waiting for rest, reading archives back."""

import datetime
import json
import os
import pathlib

from tailrace_test import wait_until

SECOND = 1_000_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR
# Small batches at once: a test waits for lines, not for a batch to fill.
QUICK = {"batch_wait": "50ms", "sync": "10ms"}


def file_input(include, **more):
    """An input of type file; times without an offset are UTC, as the generator writes them."""
    include = [str(p) for p in (include if isinstance(include, (list, tuple)) else [include])]
    return {"type": "file", "include": include, "timezone": "UTC", "ignore_older": "0s", **more}


def loki_output(url, **more):
    return {"type": "loki", "url": url, "queue": QUICK, **more}


def search_output(url, **more):
    urls = {"urls": url} if isinstance(url, list) else {"url": url}
    return {"type": "elasticsearch", "queue": QUICK, **urls, **more}


def archive_output(path, **more):
    return {"type": "file", "path": str(path), "compress": False, "queue": QUICK, **more}


def config(inputs, outputs, **more):
    return {"inputs": inputs, "outputs": outputs, **more}


def folder(path):
    path = pathlib.Path(path)
    path.mkdir(parents=True, exist_ok=True)
    return path


def documents(path):
    """The objects of a file of JSON lines; [] when it is not there. A half line at the end is an error."""
    path = pathlib.Path(path)
    if not path.exists():
        return []
    data = path.read_bytes()
    assert not data or data.endswith(b"\n"), f"{path} ends within a line"
    # Numbers as floats: Python itself refuses integers of thousands of digits.
    return [json.loads(line, parse_int=lambda n: int(n) if len(n) < 100 else float(n)) for line in data.split(b"\n")[:-1]]


def ledger(agent):
    """(rows of inputs, rows of outputs)"""
    found = agent.status()["ledger"]
    return found["inputs"], found["outputs"]


def total(rows, key, **which):
    return sum(r.get(key, 0) for r in rows if all(r[k] == v for k, v in which.items()))


def wait_read(agent, lines, timeout=30, **which):
    """Waits until that many lines are read in all."""
    last = [None]

    def reached():
        last[0] = ledger(agent)[0]
        return total(last[0], "read_lines", **which) >= lines

    wait_until(reached, timeout, lambda: f"{lines} lines read; ledger: {last[0]}\n{agent.describe()}")


def wait_rest(agent, read=None, timeout=30, parked=0):
    """Waits until everything is read (when told how much) and nothing is queued; both equations must hold then.
    Returns (rows of inputs, rows of outputs)."""
    if read is not None:
        wait_read(agent, read, timeout)
    last = [None]

    def rests():
        last[0] = ledger(agent)
        inputs, outputs = last[0]
        # What was kept by an input is accepted by an output once its group is written.
        return (
            total(outputs, "queued_lines") == 0 and total(outputs, "parked_lines") == parked
            and all(r["imbalance"] == 0 for r in inputs + outputs)
            and total(outputs, "accepted_lines") + total(outputs, "filtered_too_old") >= total(inputs, "kept_lines")
        )

    wait_until(rests, timeout, lambda: f"nothing is queued and the ledger balances; it says {last[0]}\n{agent.describe()}",
               interval=0.05)
    if read is not None:
        assert total(last[0][0], "read_lines") == read, last[0][0]
    assert agent.metric("ledger_imbalance_lines") == 0
    return last[0]


def wait_files(agent, files=None, timeout=30):
    """Waits until every output has durably passed the end of every followed file, of as many as said."""
    last = [None]

    def done():
        last[0] = agent.status()["files"]
        return (files is None or len(last[0]) >= files) and all(
            o["committed"] >= f["size"] for f in last[0] for o in f["outputs"].values())

    wait_until(done, timeout, lambda: f"all files are read to their ends; {last[0]}\n{agent.describe()}", interval=0.05)


def instant(text):
    """Nanoseconds of an RFC 3339 time in UTC."""
    assert text.endswith("Z"), text
    whole, _, fraction = text[:-1].partition(".")
    t = datetime.datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=datetime.timezone.utc)
    return int(t.timestamp()) * SECOND + int((fraction + "000000000")[:9])


def rfc3339(ns, digits=9):
    t = datetime.datetime.fromtimestamp(ns // SECOND, datetime.timezone.utc)
    return t.strftime("%Y-%m-%dT%H:%M:%S") + f".{ns % SECOND:09d}"[: digits + 1] + "Z"


def day(ns):
    """The UTC date as in an index name."""
    return datetime.datetime.fromtimestamp(ns // SECOND, datetime.timezone.utc).strftime("%Y.%m.%d")


class Clock:
    """The wall clock of an agent that is started with .env: so far ahead of ours, then as far as set() says. Timed waits for a
    condition end at once under libfaketime: /status lacks what other threads would say."""

    def __init__(self, tmpdir, ahead_ns=0):
        libs = [f"/usr/lib/{d}faketime/libfaketimeMT.so.1" for d in ("x86_64-linux-gnu/", "aarch64-linux-gnu/", "")]
        lib = next((p for p in libs if os.path.exists(p)), None)
        assert lib, "libfaketime is not there: apt-get install faketime"
        self._file = pathlib.Path(tmpdir) / "wall.clock"
        self.set(ahead_ns)
        self.env = {"ASAN_OPTIONS": "verify_asan_link_order=0", "LD_PRELOAD": lib, "FAKETIME_TIMESTAMP_FILE": str(self._file),
                    "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}

    def set(self, ahead_ns):
        new = self._file.with_suffix(".new")
        new.write_text(f"{ahead_ns / SECOND:+.3f}s\n")
        os.replace(new, self._file)


def without_override():
    """A command before the agent: permissions of files count for it, though it is root."""
    return ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all") if os.geteuid() == 0 else ()
