"""The audit archive: chained by hashes, verified and exported by the command, whatever happened while it was written."""

import gzip
import json
import os
import random

import pytest

from support import config, documents, file_input, total, wait_rest
from tailrace_test import LoggenRun, assert_arrived, run, run_loggen

FULL = os.environ.get("TAILRACE_FULL") == "1"
LINES = 1_000_000 if FULL else 60_000
TENANTS = ("acme", "globex")


def archive(a, *args, ok=True):
    """Runs tailrace archive; its output as text, and that its exit status is as expected."""
    done = run("archive", *args, "-c", str(a.config_path), timeout=300)
    assert done.returncode == (0 if ok else 1), (done.returncode, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


def chained(tmp_path, **more):
    """Two tenants by folder; each has its own files, and a chain of its own."""
    return config({t: file_input(tmp_path / "logs" / t / "*.log", tenant=t) for t in TENANTS},
                  {"audit": {"type": "file", "path": str(tmp_path / "archive/{tenant}/%Y-%m-%d.ndjson"), "compress": False,
                             "chain": True, **more}})


def files_of(tmp_path):
    return sorted((tmp_path / "archive").glob("*/*.ndjson"))


@pytest.fixture
def written(agent, tmp_path):
    """An archive of LINES lines of a stopped agent that was killed on the way."""
    a = agent(chained(tmp_path))  # first: what was rotated away before it came is not followed
    runs = {t: LoggenRun(tmp_path / "logs" / t, lines=LINES // 2, files=4, rotate=500_000, seed=i, rate=LINES // 8)
            for i, t in enumerate(TENANTS)}
    moments = random.Random(7)
    for _ in range(3):
        a.wait_metric("delivered_lines_total", moments.randrange(1, LINES // 4), output="audit")
        a.kill9()
        a.start()
    lines = {t: run.wait() for t, run in runs.items()}
    _, outputs = wait_rest(a, read=LINES, timeout=120)
    assert total(outputs, "delivered_lines") == LINES
    a.sigterm()
    return a, lines


def test_the_chain_holds_and_export_is_what_was_written(written, tmp_path):
    a, lines = written
    assert "the chain holds" in archive(a, "verify")
    for t in TENANTS:
        day = files_of(tmp_path)[0].stem
        found = [json.loads(line) for line in archive(a, "export", "--tenant", t, "--from", day).splitlines()]
        assert_arrived(sorted(lines[t].ids()), found)
        assert {d["tenant"] for d in found} == {t}
    everything = json.loads(archive(a, "export", "--format", "json"))
    assert len(everything) == LINES
    assert archive(a, "export", "--to", "2020-01-01") == ""
    plain = [d for f in files_of(tmp_path) for d in documents(f) if "@chain" not in d]
    assert everything == plain


def test_each_change_shows(written, tmp_path):
    a, _ = written
    dice = random.Random(11)
    for path in files_of(tmp_path):
        whole = path.read_bytes()
        lines = whole.splitlines(keepends=True)
        for _ in range(20):
            broken = bytearray(whole)
            broken[dice.randrange(len(broken))] ^= 1 << dice.randrange(8)
            path.write_bytes(broken)
            assert "does not hold" in archive(a, "verify", ok=False)
        for at in [0, len(lines) - 1, *(dice.randrange(len(lines)) for _ in range(5))]:
            path.write_bytes(b"".join(lines[:at] + lines[at + 1:]))
            assert "does not hold" in archive(a, "verify", ok=False)
        links = [i for i, line in enumerate(lines) if line.startswith(b'{"@chain"')]
        # A whole block with its link, from the middle and from the end; all of the file.
        path.write_bytes(b"".join(lines[:links[0] + 1] + lines[links[1] + 1:]))
        assert "something is missing" in archive(a, "verify", ok=False)
        path.write_bytes(b"".join(lines[:links[-2] + 1]))
        assert "the last link that was written is not there" in archive(a, "verify", ok=False)
        path.unlink()
        assert "the last link that was written is not there" in archive(a, "verify", ok=False)
        path.write_bytes(whole)
        assert "the chain holds" in archive(a, "verify")
        # Remade by someone who knows how: only a hash that was kept elsewhere tells.
        last = json.loads(lines[-1])["@chain"]["hash"]
        assert "the chain holds" in archive(a, "verify", "--hash", last)
        assert "no link has this hash" in archive(a, "verify", "--hash", last[::-1], ok=False)


def test_compressed_files_are_read_as_well(written, tmp_path):
    a, lines = written
    for path in files_of(tmp_path):
        with gzip.open(f"{path}.gz", "wb") as f:
            f.write(path.read_bytes())
        path.unlink()
    assert "the chain holds" in archive(a, "verify")
    assert_arrived(sorted(lines[TENANTS[0]].ids()), archive(a, "export", "--tenant", TENANTS[0]).splitlines())
    cut = next((tmp_path / "archive").glob("*/*.gz"))
    cut.write_bytes(cut.read_bytes()[:-100])
    assert "cannot be read" in archive(a, "verify", ok=False)


def test_what_cannot_be_done_is_said(agent, tmp_path):
    run_loggen(tmp_path / "logs/acme", lines=100, files=1, rotate=0)
    conf = chained(tmp_path)
    conf["outputs"]["more"] = {"type": "file", "path": str(tmp_path / "more.ndjson"), "compress": False}
    a = agent(conf)
    wait_rest(a, read=100)

    def misuse(*args):
        done = run("archive", *args, "-c", str(a.config_path))
        assert done.returncode == 2, done
        return done.stderr

    assert "name one with --output" in misuse("verify")
    assert "there is no output 'none'" in misuse("verify", "-o", "none")
    assert "no {tenant} in its path" in misuse("export", "-o", "more", "--tenant", "acme")
    assert "no date down to the day" in misuse("export", "-o", "more", "--from", "2026-01-01")
    assert "is no day" in misuse("export", "-o", "audit", "--from", "yesterday")
    assert "say ls, export or verify" in misuse()
    # Beside the running agent; the last block may lack its link for a moment, which is no mistake.
    assert "the chain holds" in archive(a, "verify", "-o", "audit")
    assert "there is no chain in it" in archive(a, "verify", "-o", "more", ok=False)
    assert len(archive(a, "export", "-o", "more").splitlines()) == 100
    assert f"{tmp_path}/more.ndjson  100 lines, 0 links" in archive(a, "ls", "-o", "more")
