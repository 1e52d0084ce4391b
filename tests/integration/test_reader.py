"""The independent reader, written from docs/FORMATS.md, and the agent's own tools say the same of any queue folder."""

import json
import os
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import zlib

import pytest

from support import config, file_input
from tailrace_test import run

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "reader"))
import tailrace_queue  # noqa: E402

TOOLS = pathlib.Path(os.environ.get("TAILRACE_TOOLS", pathlib.Path(__file__).parents[2] / "build/release/tools"))
OUTPUTS = {1: {"type": "loki", "url": "http://127.0.0.1:1"}, 3: {"type": "elasticsearch", "url": "http://127.0.0.1:1"},
           4: {"type": "file", "path": "/nowhere/a.ndjson"}, 5: {"type": "stdout"}}


def write_config(tmp_path, state, form):
    path = tmp_path / "tailrace.yaml"
    path.write_text(json.dumps({"state_dir": str(state), "admin": {"listen": ""}, **config(
        {"app": file_input(tmp_path / "app.log")}, {"out": OUTPUTS[form]})}))
    return str(path)


def queuegen(state, form, seed, *more):
    subprocess.run([TOOLS / "queuegen", str(state), str(form), str(seed), *map(str, more)], check=True, timeout=60)
    return state / "queue/out"


def theirs(conf, *args):
    r = run("queue", *args, "--format", "json", "-c", conf)
    assert r.returncode in (0, 1) and "Sanitizer" not in r.stderr, r
    return [json.loads(line) for line in r.stdout.splitlines()]


def assert_agree(conf, directory):
    """verify and cat, member by member; the lines where bodies are whole. Returns the number of problems."""
    got, = theirs(conf, "verify", "out")
    for key in ("output", "dir", "orphan"):
        got.pop(key)
    assert got == tailrace_queue.verify(directory)
    ours = list(tailrace_queue.cat(directory))
    told = theirs(conf, "cat", "--all", "out") + theirs(conf, "cat", "--dead", "--all", "out")
    entries = [f.pop("entries", None) for f in told]
    assert told == [o[0] for o in ours]
    for (frame, form, body), decoded in zip(ours, entries):
        assert (body is None) == (decoded is None), frame
        if body is not None:
            lines = [tailrace_queue.text(line) for line in tailrace_queue.body_lines(form, body)]
            assert len(lines) == len(decoded) == frame["lines"]
            if form == 1:
                assert lines == [e["line"] for e in decoded]
            else:
                assert [json.loads(line)["message"] for line in lines] == [e["message"] for e in decoded]
    return got["n_problems"]


@pytest.mark.parametrize("form", [1, 3, 4, 5])
def test_queues_of_many_shapes(tmp_path, form):
    for seed in range(5):
        state = tmp_path / f"state{seed}"
        directory = queuegen(state, form, seed)
        assert assert_agree(write_config(tmp_path, state, form), directory) == 0, seed


def damage(rng, directory):
    """One random injury."""
    files = [p for p in directory.rglob("*") if p.is_file() and (p.suffix in (".seg", ".parked", ".dead") or p.name == "cursor")]
    path = rng.choice(files)
    size = path.stat().st_size
    at = rng.randrange(max(size, 1))
    kind = rng.choice(("flip", "zero", "garbage", "cut", "cut", "longer", "remove", "swap", "hole", "name", "foreign", "fifo"))
    with open(path, "r+b") as f:
        f.seek(at)
        if kind == "flip":
            byte = f.read(1) or b"\0"
            f.seek(at)
            f.write(bytes([byte[0] ^ 1 << rng.randrange(5)]))
        elif kind == "zero":
            f.write(bytes(rng.randrange(1, 3000)))
        elif kind == "garbage":
            f.write(rng.randbytes(rng.randrange(1, 3000)))
        elif kind == "cut":
            f.truncate(at)
        elif kind == "longer":
            f.truncate(size + rng.randrange(1, 5000))
        elif kind == "hole":  # bytes are missing, the rest moved up
            rest = f.read()
            f.seek(at)
            f.write(rest[rng.randrange(1, 700):])
            f.truncate()
    if kind == "remove":
        path.unlink()
    elif kind == "swap":
        other = rng.choice(files)
        path.rename(directory / "x")
        if other.exists():
            other.rename(path)
        (directory / "x").rename(other)
    elif kind == "name":
        path.rename(path.with_name("00000000000000f0" + path.suffix))
    elif kind == "foreign":
        shutil.copy(directory / "foreign", path)
    elif kind == "fifo":
        path.unlink()
        os.mkfifo(path)


@pytest.mark.parametrize("form", [1, 3])
def test_damaged_queues(tmp_path, form):
    """Agreement about every problem of folders with one to four random injuries."""
    rng = random.Random(form)
    conf = write_config(tmp_path, tmp_path / "state", form)
    whole = [queuegen(tmp_path / f"whole{i}", form, 100 + i) for i in range(4)]
    foreign = sorted(queuegen(tmp_path / "other", form, 7).glob("*.seg"))[-1]
    found = 0
    for n in range(80):
        directory = tmp_path / "state/queue/out"
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(rng.choice(whole), directory)
        shutil.copy(foreign, directory / "foreign")
        for _ in range(rng.randrange(1, 5)):
            damage(rng, directory)
        try:
            found += assert_agree(conf, directory) > 0
        except AssertionError:
            shutil.copytree(directory, tmp_path / f"failed{n}")
            raise
    assert found > 60


def lost_frame(seq, salt):
    """A LOST frame with nothing but the mark that its ranges are to be read again."""
    meta = struct.pack("<BBHII", tailrace_queue.HELD, 0, 0, 4, 0)
    head = struct.pack("<4sBBHQQIIIIqIII", b"TRF1", tailrace_queue.LOST, 0, 64, seq, seq - 1, len(meta), 0, 0, 0, 0, salt,
                       zlib.crc32(meta), 0)
    return (head + struct.pack("<I", zlib.crc32(head)) + meta).ljust(80, b"\0")


@pytest.mark.parametrize("between", [None, b"", b"torn"])
def test_fence_in_dead(tmp_path, between):
    """What a failed sync left is void by what the next good file says: letters, and ranges that are to be read again."""
    directory = queuegen(tmp_path / "state", 3, 100)
    conf = write_config(tmp_path, tmp_path / "state", 3)
    left, torn, new = (directory / f"dead/{i:016x}.dead" for i in (1, 2, 3))
    data = bytearray(left.read_bytes())
    last = max(frame.seq for f in tailrace_queue.Queue(directory).dead for _, frame in tailrace_queue.Queue(directory).frames(f))
    data += lost_frame(last + 1, tailrace_queue.parse_head(data).salt)
    left.write_bytes(data)

    def letters():
        return [got["seq"] for got, _, _ in tailrace_queue.cat(directory) if got["file"] == "dead/" + left.name]

    def rereads():
        return theirs(conf, "verify", "out")[0]["rereads"]

    assert_agree(conf, directory)
    before = letters()
    assert len(before) > 1 and rereads() == 1
    struct.pack_into("<QQQ", data, 32, 3, before[0] + 1, before[0])  # id, first seq, fence
    struct.pack_into("<I", data, 124, zlib.crc32(data[:124]))
    new.write_bytes(data[:128])
    if between is not None:
        torn.write_bytes(between)
    assert_agree(conf, directory)
    assert letters() == before[:1] and rereads() == 0
