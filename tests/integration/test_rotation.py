"""Files that are rotated, by the real logrotate, by the kubelet's manner, by hand: each line arrives exactly once."""

import gzip
import json
import os
import random
import signal
import subprocess

import pytest

from arrival import archived_once, counted_once, indexed_once
from support import archive_output, config, documents, file_input, folder, search_output, wait_rest
from tailrace_test import CountServer, Loggen, cri, seqs, wait_until, write

UID = "0a1b2c3d-4e5f-6789-abcd-ef0123456789"


@pytest.fixture
def server(tmp_path):
    with CountServer(tmp_path / "server") as s:
        yield s


class Service:
    """A log file, who writes it, and a logrotate that rotates it."""

    def __init__(self, tmp_path, rules=""):
        self.dir = folder(tmp_path / "log")
        self.path = self.dir / "app.log"
        self.tmp, self.rules = tmp_path, rules
        self.generator = Loggen(seed=5)
        self.written = []
        self.days = 0

    def write(self, n=150, path=None):
        lines = self.generator.lines(n)
        write(path or self.path, lines)
        self.written += lines

    def rotate(self):
        """A day later by its clock, for dateext names a file a day."""
        conf = self.tmp / "logrotate.conf"
        conf.write_text(f"{self.path} {{\n  rotate 50\n  missingok\n  " + "\n  ".join(self.rules.split()) + "\n}\n")
        conf.chmod(0o644)
        self.days += 1
        run = subprocess.run(
            ["faketime", "-f", f"+{self.days}d", "/usr/sbin/logrotate", "-f", "-s", str(self.tmp / "logrotate.state"),
             str(conf)], capture_output=True, text=True, check=False)
        assert run.returncode == 0 and not run.stderr, run.stderr

    def names(self):
        return sorted(p.name for p in self.dir.iterdir())

    def ship(self, agent, server, **more):
        """An agent that sends it to the counting server as Elasticsearch."""
        return agent(config({"app": file_input(self.path, multiline="off")},
                            {"search": search_output(server.url, index="all", template="off")}), **more)


RULES = [f"{how}{date}{late}" for how in ("create", "copytruncate") for date in ("", " dateext")
         for late in ("", " compress", " compress delaycompress")]


@pytest.mark.parametrize("rules", RULES)
def test_logrotate(agent, server, tmp_path, rules):
    """Three times without a pause, read or not; once more when all of it is read."""
    service = Service(tmp_path, rules)
    service.write()
    a = service.ship(agent, server)
    for _ in range(3):
        service.rotate()
        service.write()
    server.wait_lines("bulk", len(service.written), 30)
    service.rotate()
    service.write()
    counted_once(a, server, len(service.written))
    assert len(service.names()) == 5, service.names()
    assert any(n.endswith(".gz") for n in service.names()) == ("compress" in rules.split())


@pytest.mark.parametrize("rules", RULES)
def test_rotated_twice_while_down(agent, server, tmp_path, rules):
    """No include names app.log.1; what is newer than the last known file is read, oldest first."""
    service = Service(tmp_path, rules)
    service.write()
    service.rotate()  # older than the agent: never read
    old, service.written = service.written, []
    service.generator = Loggen(seed=6)
    service.write()
    a = service.ship(agent, server)
    a.wait_delivered(len(service.written), "search")
    service.rotate()
    service.write()
    a.wait_delivered(len(service.written), "search")
    a.sigterm()
    service.write()  # into the file that is known in part
    for _ in range(2):
        service.rotate()
        service.write()
    a.start()
    counted_once(a, server, len(service.written))
    assert len(old) == 150


@pytest.mark.parametrize("rules", ["create", "copytruncate", "create compress"])
def test_rotated_while_killed(agent, server, tmp_path, rules):
    """kill -9 right after a rotation: what was read of the old file is known, its rest is found under its new name."""
    service = Service(tmp_path, rules)
    service.write()
    a = service.ship(agent, server)
    a.wait_delivered(len(service.written), "search")
    for _ in range(3):
        service.write()
        service.rotate()
        a.kill9()
        service.write()
        a.start()
    wait_until(lambda: server.report()["bulk"]["ids"]["distinct"] >= len(service.written), 30,
               lambda: f"{len(service.written)} lines: {server.report(lines=len(service.written))['bulk']}\n{a.describe()}")
    wait_rest(a, read=len(service.written))
    assert server.report(lines=len(service.written))["bulk"]["ids"]["missing"] == 0


def test_elasticsearch_has_each_line_once(agent, elasticsearch, index, tmp_path):
    service = Service(tmp_path, "create compress delaycompress")
    service.write()
    a = agent(config({"app": file_input(service.path, multiline="off")},
                     {"search": search_output(elasticsearch.url, index=index)}))
    a.wait_delivered(150, "search")  # a first start knows no siblings
    for round_ in range(4):
        service.rotate()
        service.write()
        if round_ == 1:
            a.kill9()
        if round_ == 2:
            a.start()
    wait_rest(a, read=len(service.written))
    indexed_once(elasticsearch, index, service.written)


def test_deleted_while_held(agent, server, tmp_path):
    """The service goes on writing to a file that has no name any more."""
    service = Service(tmp_path)
    service.write(20)
    a = service.ship(agent, server)
    a.wait_delivered(20, "search")
    with open(service.path, "a", encoding="utf-8", buffering=1) as f:
        os.unlink(service.path)
        for _ in range(3):
            lines = service.generator.lines(50)
            f.write("".join(line.text + "\n" for line in lines))
            service.written += lines
            a.wait_delivered(len(service.written), "search")
        lines = service.generator.lines(1)
        f.write(lines[0].text)  # its last line has no newline
        service.written += lines
    service.write(30)
    counted_once(a, server, len(service.written))


def test_created_again_and_again(agent, server, tmp_path):
    """The same name, often the same inode, sometimes the same length and beginning."""
    service = Service(tmp_path)
    service.write(1)
    a = service.ship(agent, server)
    for i in range(12):
        a.wait_delivered(len(service.written), "search")
        os.unlink(service.path)
        if i % 3 == 0:
            service.path.touch()
        service.write(7)
    counted_once(a, server, len(service.written))


def test_replaced_by_rename(agent, server, tmp_path):
    """An editor's way: another file takes the name of the one that is followed."""
    service = Service(tmp_path)
    service.write(10)
    a = service.ship(agent, server)
    for _ in range(5):
        a.wait_delivered(len(service.written), "search")
        new = service.dir / "new.tmp"
        service.write(10, path=new)
        new.rename(service.path)
    counted_once(a, server, len(service.written))


def test_truncated_between_writes(agent, server, tmp_path):
    """`> app.log`, and the service, which appends, goes on: shorter, as long, and longer than before."""
    service = Service(tmp_path)
    service.write(50)
    a = service.ship(agent, server)
    for n in (10, 50, 49, 200, 50):
        a.wait_delivered(len(service.written), "search")
        os.truncate(service.path, 0)
        service.write(n)
    counted_once(a, server, len(service.written))


@pytest.mark.parametrize("how", ["sigterm", "kill9"])
def test_gz_of_a_file_partly_read(agent, server, tmp_path, how):
    """Read to its middle, then stopped; meanwhile the rest was written and all of it compressed under another name."""
    service = Service(tmp_path)
    service.write(100)
    a = service.ship(agent, server)
    a.wait_delivered(100, "search")
    getattr(a, how)()
    service.write(100)
    with open(service.path, "rb") as f, gzip.open(service.dir / "app.log.1.gz", "wb") as g:
        g.write(f.read())
    os.unlink(service.path)
    service.write(30)
    a.start()
    wait_until(lambda: server.report()["bulk"]["ids"]["distinct"] == 230, 30,
               lambda: f"230 lines: {server.report(lines=230)['bulk']}\n{a.describe()}")
    wait_rest(a, read=230)
    if how == "sigterm":
        counted_once(a, server, 230)


# --- as the kubelet and containerd do it ---


class Pod:
    """One container's log, rotated: 0.log becomes 0.log.YYYYMMDD-HHMMSS, the one before that is compressed."""

    def __init__(self, tmp_path):
        self.dir = folder(tmp_path / "pods" / f"shop_web-7d9f-x2x_{UID}" / "app")
        self.path = self.dir / "0.log"
        self.generator = Loggen(seed=8)
        self.written, self.rotated = [], []

    def write(self, n, unfinished=None):
        """n lines of which a third comes in parts; unfinished: the first part of one more stays without its rest."""
        texts = []
        for i, line in enumerate(self.generator.lines(n)):
            stream = ("stdout", "stderr")[i % 2]
            texts += [cri(line.text[:40], stream, "P"), cri(line.text[40:], stream)] if i % 3 == 0 else [cri(line, stream)]
            self.written.append(line)
        if unfinished:
            line = self.generator.line()
            self.written.append(line)
            texts.append(cri(line.text[:unfinished], "stderr", "P"))
            self.rest = cri(line.text[unfinished:], "stderr")
        write(self.path, texts)

    def rotate(self):
        old = self.path.with_name(f"0.log.202601{len(self.rotated) + 10}-030405")
        self.path.rename(old)
        write(self.path, [])  # the runtime opens the new file before the kubelet compresses anything
        if self.rotated:
            plain = self.rotated[-1]
            made = plain.with_name(plain.name + ".tmp")
            with open(plain, "rb") as f, gzip.open(made, "wb") as g:
                g.write(f.read())
            made.rename(plain.with_name(plain.name + ".gz"))
            os.unlink(plain)
        self.rotated.append(old)


def n_lines(path):
    """That are whole: it may be being written to."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.parametrize("down", [False, True])
def test_kubelet_rotation(agent, server, tmp_path, down):
    """A line whose first part stands at the end of one file and its rest in the next is one record."""
    pod = Pod(tmp_path)
    a = agent(config(
        {"pods": {"type": "kubernetes", "include": [str(tmp_path / "pods/*/*/*.log")], "tenant": "{namespace}",
                  "multiline": "off"}},
        {"search": search_output(server.url, index="all", template="off"),
         "archive": archive_output(tmp_path / "out.ndjson")}))
    pod.write(60)
    a.wait_delivered(60, "archive")
    for round_ in range(4):
        pod.write(60, unfinished=50)
        if round_ % 2 or not down:  # the kubelet looks every 10 s only; not read before is what a stop is for
            wait_until(lambda: n_lines(tmp_path / "out.ndjson") >= len(pod.written) - 1, 20, a.describe)
        if down:
            a.sigterm()
        pod.rotate()
        write(pod.path, [pod.rest])
        pod.write(60)
        if down:
            a.start()
    wait_until(lambda: n_lines(tmp_path / "out.ndjson") >= len(pod.written), 30,
               lambda: f"{len(pod.written)}, there are {n_lines(tmp_path / 'out.ndjson')}\n{a.describe()}")
    found = documents(tmp_path / "out.ndjson")
    assert len(found) == len(pod.written) and all(d["pod"] == "web-7d9f-x2x" for d in found)
    assert not [d for d in found if "severity" not in d or d["severity"] == "unknown"], "a line in two pieces"
    wait_rest(a)
    report = server.report(lines=len(pod.written))["bulk"]
    assert (report["ids"]["missing"], report["ids"]["duplicates"]) == (0, 0), report
    assert sorted(p.name for p in pod.dir.iterdir()) == [
        "0.log", "0.log.20260110-030405.gz", "0.log.20260111-030405.gz", "0.log.20260112-030405.gz",
        "0.log.20260113-030405"]


@pytest.mark.parametrize("order", ["files first", "rounds first"])
def test_storm(agent, server, tmp_path, order):
    """20 files, each rotated 10 times through all the numbers that logrotate gives, without a pause."""
    services = [Service(tmp_path / str(i)) for i in range(20)]
    generator = Loggen(seed=9)
    for s in services:
        s.generator = generator
        s.write(20)
    a = agent(config({"app": file_input(tmp_path / "*/log/app.log", multiline="off")},
                     {"search": search_output(server.url, index="all", template="off")}))
    turns = [(s, n) for s in services for n in range(10)]
    if order == "rounds first":
        turns.sort(key=lambda turn: turn[1])
    for s, n in turns:
        for k in range(n, 0, -1):
            (s.dir / f"app.log.{k}").rename(s.dir / f"app.log.{k + 1}")
        s.path.rename(s.dir / "app.log.1")
        s.write(20)
    counted_once(a, server, 20 * 11 * 20)


# --- records in pieces, whatever happens ---


class Container:
    """Its runtime cuts records anywhere, and reopens its log anywhere, too: what is unfinished goes on in the next file."""

    def __init__(self, tmp_path, name, rng, generator):
        self.dir = folder(tmp_path / "logs" / name)
        self.path = self.dir / "app.log"
        self.rng, self.generator = rng, generator
        self.written, self.rotations = [], 0

    def write(self, n, rotates=False):
        """n records; rotates: the last one goes on in a new file."""
        for i in range(n):
            line = self.generator.line()
            self.written.append(line)
            stream = self.rng.choice(["stdout", "stderr"])
            cuts = sorted(self.rng.sample(range(1, len(line.text)), self.rng.choice([0, 0, 1, 2, 3])))
            if rotates and i == n - 1:
                cuts = cuts or [len(line.text) // 2]
            pieces = [line.text[a:b] for a, b in zip([0, *cuts], [*cuts, len(line.text)])]
            for k, piece in enumerate(pieces):
                if rotates and i == n - 1 and k == len(pieces) - 1:
                    self.rotate()
                write(self.path, [cri(piece, stream, "F" if k == len(pieces) - 1 else "P")])

    def rotate(self):
        self.rotations += 1
        self.path.rename(self.dir / f"app.log.20260101-{self.rotations:06}")

    def copy_and_cut(self):
        """As logrotate's copytruncate, and compress: with a writer that waits meanwhile."""
        self.rotations += 1
        data = self.path.read_bytes()
        with gzip.open(self.dir / f"app.log.20260101-{self.rotations:06}.gz.tmp", "wb") as z:
            z.write(data)
        made = self.dir / f"app.log.20260101-{self.rotations:06}.gz.tmp"
        made.rename(made.with_suffix(""))
        os.truncate(self.path, 0)


def is_as_written(record, text):
    """Every member is there, or the whole text is the message."""
    if not text.startswith("{"):
        return record["message"] == text
    return all(record[k] == v for k, v in json.loads(text).items())


@pytest.mark.parametrize("seed", [1, 7, 8, 13])
def test_storm_of_records(agent, server, tmp_path, seed):
    """Rotations in the middle of records, kills, a server that stands still, an output that comes and goes: each record arrives
    once, as it was written."""
    rng, generator = random.Random(seed), Loggen(seed=seed)
    pods = [Container(tmp_path, name, rng, generator) for name in ("a", "b", "c")]
    inputs = {"pods": file_input(tmp_path / "logs/*/app.log", multiline="off", format="cri")}
    outputs = {"archive": archive_output(tmp_path / "out.ndjson"),
               "search": search_output(server.url, index="all", template="off")}
    more = {"more": archive_output(tmp_path / "more.ndjson"), **outputs}
    for pod in pods:
        pod.write(5)
    a = agent(config(inputs, outputs))
    a.wait_delivered(15, "archive")
    has_more = False
    for _ in range(30):
        pod = rng.choice(pods)
        pod.write(rng.randrange(1, 12), rotates=rng.random() < 0.4)
        what = rng.randrange(8)
        if what == 0:
            a.kill9()
            if rng.random() < 0.5:
                pod.write(3, rotates=True)
            a.start()
        elif what == 1:
            has_more = not has_more
            a.configure(config(inputs, more if has_more else outputs))
            a.sighup()
        elif what == 2:
            server.process.signal(signal.SIGSTOP)
        elif what == 3:
            server.process.signal(signal.SIGCONT)
        elif what == 4 and pod is pods[2]:
            a.wait_delivered(sum(len(p.written) for p in pods), "archive")
            pod.copy_and_cut()
    server.process.signal(signal.SIGCONT)
    written = {line.seq: line for p in pods for line in p.written}
    wait_until(lambda: n_lines(tmp_path / "out.ndjson") >= len(written), 30,
               lambda: f"{len(written)}, there are {n_lines(tmp_path / 'out.ndjson')}\n{a.describe()}")
    wait_rest(a)
    found = documents(tmp_path / "out.ndjson")
    archived_once(tmp_path / "out.ndjson", set(written))
    for record in found:
        ids = list(seqs([record]))
        assert len(ids) == 1 and is_as_written(record, written[ids[0]].text), (record, written[ids[0]].text)
    # What a kill made the agent send again has its id still: Elasticsearch would say 409.
    assert server.report(lines=len(written))["bulk"]["ids"]["missing"] == 0
