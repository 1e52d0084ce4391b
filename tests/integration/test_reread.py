"""Damage in the queue of a stopped agent: what it took is read again from the files while they are there, once."""

import json
import os
import pathlib
import random
import sys

import pytest

from support import config, file_input, total, wait_read, wait_rest
from tailrace_test import Reply, wait_until, write

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "reader"))
import tailrace_queue  # noqa: E402

TENANTS = ("acme", "globex", "initech")
# Bodies of a few lines, many in one group: most damage meets a group of which other frames are whole.
QUEUE = {"batch_wait": "60ms", "sync": "10ms", "batch_bytes": "4KiB"}


def lines_of(first, n, seed):
    rng = random.Random(seed)
    return [json.dumps({"timestamp": f"2026-11-21T10:00:{i % 60:02d}.{i:06d}Z", "level": "info", "seq": f"S{i:010d}",
                        "tenant": rng.choice(TENANTS), "message": "x" * rng.randrange(5, 120)}) for i in range(first, first + n)]


def seqs(path):
    found = []
    for archive in pathlib.Path(path).glob("*.ndjson"):
        found += [json.loads(line)["seq"] for line in archive.read_text().splitlines()]
    return sorted(found)


def frames(directory):
    return [f for f, _, _ in tailrace_queue.cat(directory) if f["place"] == "queued"]


def flip(directory, frame, at):
    with open(directory / frame["file"], "r+b") as f:
        f.seek(frame["offset"] + at)
        byte = f.read(1)
        f.seek(-1, os.SEEK_CUR)
        f.write(bytes([byte[0] ^ 0x40]))


class World:
    """Two files, an archive by tenant whose folder is not there, and a server that is down; the agent has read all and is
    stopped."""

    def __init__(self, agent, tmp_path, url, index, faults):
        self.tmp = tmp_path
        self.gate = tmp_path / "out"
        self.gate.write_text("no folder")
        self.lines = 0
        self.index, self.url = index, url
        self.refusing = faults(default=Reply(503))
        self.write(3000)
        self.a = agent(self.config(self.refusing.url))
        wait_read(self.a, self.lines)
        self.write(2000)
        wait_read(self.a, self.lines)
        wait_until(lambda: self.a.metric("accepted_lines_total", output="archive") == self.lines
                   and self.a.metric("accepted_lines_total", output="search") == self.lines, 20, "all is in the queues")
        self.a.sigterm()
        self.queues = {name: self.a.state_dir / "queue" / name for name in ("archive", "search")}

    def write(self, n):
        more = lines_of(self.lines, n, self.lines)
        write(self.tmp / "a.log", more[::2])
        write(self.tmp / "b.log", more[1::2])
        self.lines += n

    def config(self, url):
        return config({"app": file_input(self.tmp / "*.log", tenant="{record.tenant}")},
                      {"archive": {"type": "file", "path": str(self.gate) + "/{tenant}.ndjson", "compress": False, "queue": QUEUE},
                       "search": {"type": "elasticsearch", "url": url, "index": self.index, "queue": QUEUE}},
                      tenants={"allow": list(TENANTS)})

    def go_on(self):
        self.gate.unlink()
        self.gate.mkdir()
        self.a.configure(self.config(self.url))
        self.a.start()

    def once(self, elasticsearch, lost=0):
        want = [f"S{i:010d}" for i in range(self.lines)]
        wait_until(lambda: len(seqs(self.gate)) >= self.lines - lost, 30,
                   lambda: f"{self.lines} in the archive, not {len(seqs(self.gate))}\n{self.a.describe()}")
        wait_until(lambda: self.a.metric("reread_pending_bytes") == 0, 30, "all is read again")
        _, outputs = wait_rest(self.a)
        elasticsearch.wait_count(self.index, self.lines - lost, 30)
        if lost == 0:
            assert seqs(self.gate) == want
            assert total(outputs, "lost_damage_lines") == 0, outputs
        assert len(seqs(self.gate)) == len(set(seqs(self.gate)))
        elasticsearch.refresh(self.index)
        assert elasticsearch.count(self.index) == self.lines - lost
        return outputs


@pytest.fixture
def world(agent, tmp_path, elasticsearch, index, faults):
    return World(agent, tmp_path, elasticsearch.url, index, faults)


PLACES = {
    "body": lambda f: f["end"] - 9,
    "meta": lambda f: 64 + 20,
    "header": lambda f: 9,
}


@pytest.mark.parametrize("place", PLACES)
def test_one_frame(world, elasticsearch, place):
    """One bit of one frame in the middle, of both queues."""
    for directory in world.queues.values():
        known = frames(directory)
        frame = known[len(known) // 2]
        with open(directory / frame["file"], "rb") as f:
            f.seek(frame["offset"] + 24)
            meta = int.from_bytes(f.read(4), "little")
        flip(directory, frame, PLACES[place]({"end": 64 + meta + frame["body_bytes"]}))
        assert tailrace_queue.verify(directory)["n_problems"] > 0
    world.go_on()
    outputs = world.once(elasticsearch)
    assert total(outputs, "reread_lines") > 0
    world.a.wait_event("lines.reread", count=2)
    assert world.a.metric("reread_lines_total", output="archive") == total(outputs, "reread_lines", output="archive")
    world.a.restart()
    _, outputs = wait_rest(world.a)
    assert total(outputs, "lost_damage_lines") == 0 and total(outputs, "reread_lines") > 0
    world.once(elasticsearch)


def test_many_frames_and_kills(world, elasticsearch):
    """Every seventh frame; killed while it is read again, several times."""
    rng = random.Random(7)
    for directory in world.queues.values():
        for frame in frames(directory)[3::7]:
            flip(directory, frame, 64 + rng.randrange(20, 60))
    world.go_on()
    for _ in range(4):
        wait_until(lambda: world.a.metric("reread_lines_total") > 0, 20, "something is read again")
        world.a.kill9()
        world.a.start()
        if world.a.metric("reread_lines_total") == 0 and world.a.metric("reread_pending_bytes") == 0:
            break
    world.once(elasticsearch)


def test_a_segment_is_gone(world, elasticsearch):
    """All of it: nothing but the positions behind it say what it held."""
    for directory in world.queues.values():
        segments = sorted({f["file"] for f in frames(directory)})
        (directory / segments[0]).write_bytes(b"\0" * (directory / segments[0]).stat().st_size)
    world.go_on()
    world.once(elasticsearch)


@pytest.mark.skipif(os.environ.get("TAILRACE_FULL") != "1", reason="the queues hear of quiet files each 30 s: two minutes")
def test_files_are_gone(world, elasticsearch):
    """What is not in the files any more stays lost, is counted with its bytes, and the log says so."""
    world.a.start()
    for name in ("a.log", "b.log"):
        (world.tmp / name).unlink()
    wait_until(lambda: not world.a.status()["files"], 180, "the files are forgotten")
    world.a.sigterm()
    for directory in world.queues.values():
        known = frames(directory)
        flip(directory, known[len(known) // 2], 64 + 30)
    world.go_on()
    wait_until(lambda: world.a.metric("reread_lost_bytes_total", output="archive") > 0
               and world.a.metric("reread_lost_bytes_total", output="search") > 0, 60,
               lambda: f"it is given up\n{world.a.describe()}")
    _, outputs = wait_rest(world.a)
    assert world.a.metric("reread_pending_bytes") == 0
    assert any("cannot be read again" in json.dumps(e) for e in world.a.events("lines.lost"))
    lost = total(outputs, "lost_damage_lines", output="archive")
    assert lost > 0 and total(outputs, "reread_lines") == 0
    assert len(seqs(world.gate)) == len(set(seqs(world.gate))) == world.lines - lost
    world.a.sigterm()
    for directory in world.queues.values():
        assert tailrace_queue.verify(directory)["rereads"] == 0
