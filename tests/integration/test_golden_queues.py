"""Queue folders of format 1 as they were once written: they open for ever, with all that is in them.

tests/golden/queue-1/NAME.tar.gz is a folder state_dir/queue/OUTPUT, NAME.json what it holds: first what verify says, then each
frame with its lines. Never made again; a new format gets a folder of its own beside this one.
"""

import json
import pathlib
import shutil
import tarfile

import pytest

from test_reader import assert_agree, queuegen, tailrace_queue, theirs, write_config
from tailrace_test import run

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "queue-1"
FORMS = {"loki": 1, "elasticsearch": 3, "file": 4, "stdout": 5, "torn": 3, "short": 3, "damaged": 1}


def unpack(name, state):
    directory = state / "queue/out"
    directory.mkdir(parents=True)
    with tarfile.open(GOLDEN / f"{name}.tar.gz") as tar:
        tar.extractall(directory)
    verify, *frames = [json.loads(line) for line in (GOLDEN / f"{name}.json").read_text().splitlines()]
    return directory, {"rereads": 0, **verify["verify"]}, frames


def frames_of(directory):
    for frame, form, body in tailrace_queue.cat(directory):
        yield {**frame, "text": None if body is None else [tailrace_queue.text(s) for s in tailrace_queue.body_lines(form, body)]}


def waiting(frames):
    return [(f["seq"], f["route"], f["text"]) for f in frames if f["place"] in ("queued", "parked") and f["whole"]]


def test_every_folder_is_known():
    assert {p.name.removesuffix(".tar.gz") for p in GOLDEN.glob("*.tar.gz")} == set(FORMS)


@pytest.mark.parametrize("name", FORMS)
def test_golden(tmp_path, name):
    directory, verify, frames = unpack(name, tmp_path / "state")
    conf = write_config(tmp_path, tmp_path / "state", FORMS[name])
    assert tailrace_queue.verify(directory) == verify
    assert list(frames_of(directory)) == frames
    assert {"queued", "acked", "parked", "dead"} == {f["place"] for f in frames}
    assert assert_agree(conf, directory) == verify["n_problems"]


@pytest.mark.parametrize("name", FORMS)
def test_golden_opens(tmp_path, name):
    """A command that takes the lock recovers the folder as an agent does: what waits, still waits; nothing is deleted."""
    directory, verify, frames = unpack(name, tmp_path / "state")
    conf = write_config(tmp_path, tmp_path / "state", FORMS[name])
    r = run("queue", "skip", "-c", conf, "out", str(1 << 40))
    assert r.returncode == 1 and "no frame of this number waits" in r.stderr, r
    after = list(frames_of(directory))
    whole = {(s, r, tuple(t)) for s, r, t in waiting(frames)}
    left = {(s, r, tuple(t)) for s, r, t in waiting(after)}
    if name in ("torn", "damaged"):  # groups at the end that were never known durable are cut: they are read again
        assert left < whole and max(whole)[0] == max(whole - left)[0]
    else:
        assert left == whole
    assert [f for f in after if f["place"] == "dead"] == [f for f in frames if f["place"] == "dead"]
    ls, = theirs(conf, "ls", "out")
    assert ls["cursor"]["seq"] >= max((f["seq"] for f in frames if f["place"] == "acked"), default=0) - 2048
    if name != "damaged":
        assert tailrace_queue.verify(directory)["problems"] == []
    # And once more, and it takes new frames.
    assert run("queue", "skip", "-c", conf, "out", str(1 << 40)).returncode == 1
    got, = theirs(conf, "dead", "resend", "--all", "out")
    assert got["error"] is None
    assert got["letters"] + got["unsettled"] == sum(f["place"] == "dead" and f["fate"] == "open" for f in frames)
    assert sum(f["place"] == "queued" and f["whole"] for f in frames_of(directory)) == got["letters"] + sum(
        f["place"] == "queued" and f["whole"] for f in after)


def test_golden_of_today_is_like_that(tmp_path):
    """What is written now has the same shape: the folders above are not of a format that nobody writes."""
    directory = queuegen(tmp_path / "state", 3, 1)
    new = list(frames_of(directory))
    *_, frames = unpack("elasticsearch", tmp_path / "old")
    assert set(new[0]) == set(frames[0])
    shutil.rmtree(directory)
