"""`tailrace queue`: what it shows beside a running agent, and what it changes, also when it is killed at any of its writes."""

import json
import shutil
import subprocess

import pytest

from support import config, file_input, loki_output, wait_rest
from tailrace_test import Reply, binary, run, write

TOO_OLD = ("entry for stream '{}' has timestamp too old: 2020-01-01T00:00:00Z, oldest acceptable timestamp is: "
           "2026-01-01T00:00:00Z")
LETTERS, WAITING = 4, 3
# What changes something on disk. SIGKILL comes before the call is made.
CHANGES = "pwritev,pwrite64,write,fdatasync,fsync,unlink,unlinkat,ftruncate,fallocate,renameat,mkdirat"


def queue(conf, *args):
    return run("queue", *args, "-c", str(conf))


def objects(r):
    assert r.returncode == 0, r
    return [json.loads(line) for line in r.stdout.splitlines()]


def lines_of(conf, *more):
    """Text of each line in frames that wait, with repeats."""
    return sorted(e["message"] if "message" in e else e["line"]
                  for f in objects(queue(conf, "cat", "--format", "json", *more, "out")) for e in f["entries"])


def sent(server):
    return [line.decode() for line in server.lines()]


@pytest.fixture
def refused(agent, tmp_path, faults):
    """An agent with LETTERS dead letters and WAITING lines that wait for a server that is down."""
    server = faults()
    a = agent(config({"app": file_input(tmp_path / "app.log", multiline="off")}, {"out": loki_output(server.url)}))
    for i in range(LETTERS):
        server.script(Reply(400, TOO_OLD))
        write(tmp_path / "app.log", [f"dead {i}"])
        a.wait_metric("dead_letter_lines_total", i + 1)
    wait_rest(a, read=LETTERS)
    server.stop()
    write(tmp_path / "app.log", [f"waits {i}" for i in range(WAITING)])
    a.wait_metric("accepted_lines_total", LETTERS + WAITING)
    return a, server


def test_beside_a_running_agent(refused):
    a, server = refused
    conf = a.config_path
    letters = objects(queue(conf, "dead", "ls", "--format", "json", "out"))
    assert len(letters) == LETTERS and {f["orig"]["status"] for f in letters} == {400}
    assert {f["fate"] for f in letters} == {"open"} and {f["place"] for f in letters} == {"dead"}
    assert len({f["letter"] for f in letters}) == LETTERS
    text = queue(conf, "dead", "ls", "out").stdout
    assert all(f"letter {f['letter']}," in text for f in letters)
    assert queue(conf, "dead", "ls", "--reason", "nothing", "out").stdout == ""
    assert len(objects(queue(conf, "dead", "ls", "--format", "json", "--reason", letters[0]["orig"]["reason"], "out"))) == LETTERS
    ls, = objects(queue(conf, "ls", "--format", "json"))
    assert ls["output"] == "out" and not ls["orphan"]
    assert ls["queued"]["lines"] == WAITING and ls["dead"]["lines"] == LETTERS
    verify, = objects(queue(conf, "verify", "--format", "json"))
    assert verify["problems"] == [] and verify["n_problems"] == 0
    assert lines_of(conf) == [f"waits {i}" for i in range(WAITING)]
    for args in (["dead", "resend", "--all", "out"], ["dead", "drop", "--all", "out"], ["skip", "out", "3"]):
        r = queue(conf, *args)
        assert r.returncode == 1 and f"(pid {a.pid})" in r.stderr and "stop the agent first" in r.stderr, r
    server.start()
    wait_rest(a, read=LETTERS + WAITING)
    assert sent(server)[LETTERS:] == [f"waits {i}" for i in range(WAITING)]


@pytest.mark.parametrize("args, word", [
    (["dead"], "ls, resend or drop"), (["dead", "bury"], "ls, resend or drop"), (["dead", "ls"], "name one output"),
    (["dead", "resend", "out"], "say which"), (["dead", "resend", "out", "7"], "FILE:SEQ"), (["skip", "out"], "seq"),
    (["skip", "out", "x"], "seq"), (["cat", "nobody"], "no output 'nobody'"), (["ls", "--format", "xml"], "xml")])
def test_misuse(tmp_path, args, word):
    conf = tmp_path / "tailrace.yaml"
    conf.write_text(json.dumps({"state_dir": str(tmp_path / "state"), **config(
        {"app": file_input(tmp_path / "app.log")}, {"out": loki_output("http://127.0.0.1:1")})}))
    r = queue(conf, *args)
    assert r.returncode == 2 and r.stdout == "" and word in r.stderr, r


def test_resent_once(refused):
    """Stopped, sent again by letter and all, started: the server gets each line once more."""
    a, server = refused
    a.sigterm()
    conf = a.config_path
    first = objects(queue(conf, "dead", "ls", "--format", "json", "out"))[0]["letter"]
    r = queue(conf, "dead", "resend", "out", first, "999:1")
    assert r.returncode == 1 and "1 dead letters, 1 lines resent" in r.stdout and "1 of the letters named are not there" in r.stderr
    done, = objects(queue(conf, "dead", "resend", "--format", "json", "--all", "out"))
    assert done["letters"] == LETTERS - 1 and done["lines"] == LETTERS - 1 and done["error"] is None
    done, = objects(queue(conf, "dead", "resend", "--format", "json", "--all", "out"))
    assert done["letters"] == 0
    assert queue(conf, "dead", "ls", "out").stdout == ""
    assert queue(conf, "verify").returncode == 0
    server.start()
    seen = len(server.lines())
    a.start()
    wait_rest(a, read=LETTERS + WAITING)
    assert sorted(sent(server)[seen:]) == [f"dead {i}" for i in range(LETTERS)] + [f"waits {i}" for i in range(WAITING)]


def test_skip(refused):
    a, server = refused
    a.sigterm()
    conf = a.config_path
    frames = objects(queue(conf, "cat", "--format", "json", "out"))
    gone = frames[0]
    got, = objects(queue(conf, "skip", "--format", "json", "out", str(gone["seq"])))
    assert got == {"output": "out", "seq": gone["seq"], "lines": gone["lines"]}
    assert queue(conf, "skip", "out", str(gone["seq"])).returncode == 1
    left = [e for f in frames[1:] for e in f["entries"]]
    server.start()
    seen = len(server.lines())
    a.start()
    _, outputs = wait_rest(a, read=LETTERS + WAITING)
    assert len(server.lines()) - seen == len(left)
    assert sum(r.get("lost_dropped_lines", 0) for r in outputs) == gone["lines"], outputs


def killed_at(nth, state, conf, copy, *args):
    """Runs the command on a copy of the state, killed before its nth change. False: it made fewer."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(state, copy)
    r = subprocess.run(["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={CHANGES}", "-e",
                        f"inject={CHANGES}:signal=SIGKILL:when={nth}", binary(), "queue", *args, "-c", str(conf)],
                       capture_output=True, text=True, timeout=60)
    assert r.returncode in (0, -9, 137), r
    return r.returncode != 0


@pytest.mark.parametrize("what", ["resend", "drop"])
def test_killed_at_each_change(refused, tmp_path, what):
    a, server = refused
    a.sigterm()
    conf, copy = tmp_path / "copy.yaml", tmp_path / "copy"
    settings = json.loads((tmp_path / a.config_path).read_text())
    state = settings["state_dir"]
    conf.write_text(json.dumps({**settings, "state_dir": str(copy)}))
    everything = sorted([f"dead {i}" for i in range(LETTERS)] + [f"waits {i}" for i in range(WAITING)])
    nth = 1
    while killed_at(nth, state, conf, copy, "dead", what, "--all", "out"):
        assert queue(conf, "dead", what, "--all", "out").returncode == 0
        assert queue(conf, "dead", what, "--all", "out").returncode == 0
        assert lines_of(conf) == (everything if what == "resend" else everything[LETTERS:]), nth
        assert queue(conf, "dead", "ls", "out").stdout == "", nth
        verify = queue(conf, "verify")
        assert verify.returncode == 0, (nth, verify.stdout)
        nth += 1
    assert nth > 10
