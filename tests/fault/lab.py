"""One run: an agent on a folder of its own, a world that logs, the server; and the judgement at the end."""

import collections
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))

from tailrace_test import Agent, binary, client, wait_until  # noqa: E402

from page import Page  # noqa: E402
from server import Server  # noqa: E402
from world import World, check_sum, line_id  # noqa: E402

# Small batches, at once; several frames a group; a queue of the smallest kind.
QUEUE = {"max_bytes": "64MiB", "batch_bytes": "8KiB", "batch_wait": "10ms", "sync": "5ms"}
PATIENCE = 120  # seconds for what must come; a run that is well takes less than one, and only one that is not so long


class Violation(Exception):
    """A promise was not kept."""


class Ended(Violation):
    """The agent ended by itself: wrong, unless it was at its start and said why."""

    def __init__(self, code):
        super().__init__(f"the agent ended by itself, exit {code}")
        self.code = code


class Lab:
    """What all runs have in common."""

    def __init__(self, base, shim):
        self.base, self.shim = pathlib.Path(base), shim
        self.base.mkdir(parents=True, exist_ok=True)
        self.server = Server()
        self._at_end = []

    def at_end(self, call):
        self._at_end.append(call)

    def close(self):
        for call in self._at_end:
            call()
        self.server.stop()


class Run:
    """In a folder of its own, or state, logs and archive elsewhere. queue: settings beside QUEUE."""

    def __init__(self, lab, name, seed=0, width=120, state=None, logs=None, archive=None, queue=None, outputs=("loki", "search", "archive"),
                 limits=None, **agent):
        self.lab, self.name, self.outputs = lab, name, outputs
        self.dir = lab.base / name
        shutil.rmtree(self.dir, ignore_errors=True)
        self.logs, self.state = pathlib.Path(logs or self.dir / "logs"), pathlib.Path(state or self.dir / "state")
        self.archive = pathlib.Path(archive or self.dir / "archive")
        for p in (self.dir, self.logs, self.archive, self.state.parent):
            p.mkdir(parents=True, exist_ok=True)
        self.world = World(self.logs, seed, width)
        self.arrivals = lab.server.arrivals(name)
        self.page = Page(self.dir / "page", lab.shim, self.state, self.logs, self.archive)
        self.agent = Agent(self.dir, self._config(queue, limits), **agent)
        self.died = 0  # ends of the agent that were not asked for by SIGTERM
        self.is_refused = lambda number: False
        self.trouble = []

    def _config(self, queue, limits):
        queue = {**QUEUE, **(queue or {})}
        url = self.lab.server.url(self.name)
        all_outputs = {
            "loki": {"type": "loki", "url": url, "max_age": "0s", "max_future": "0s", "late_after": "0s", "queue": queue},
            "search": {"type": "elasticsearch", "url": url, "index": "f-{tenant}", "template": "off",
                       "document": {"on_refused": "dead"}, "queue": queue},
            "archive": {"type": "file", "path": str(self.archive / "{tenant}.ndjson"), "compress": False, "queue": queue},
        }
        return {
            "state_dir": str(self.state),
            "limits": {"min_free": "0", **(limits or {})},
            "inputs": {"app": {"type": "file", "include": [str(self.logs / "<tenant>" / "*.log")], "timezone": "UTC",
                               "ignore_older": "0s", "multiline": "off", "tenant": "{path.tenant}"}},
            "outputs": {o: all_outputs[o] for o in self.outputs},
        }

    # --- the agent ---

    def start(self, with_shim=True):
        """Does not wait."""
        self.agent.env = self.page.env() if with_shim else {}
        self.agent.start(ready=False)

    def is_started(self):
        """It runs, and is past its start: before, a SIGHUP would end it like any program."""
        return self.alive() and bool(self.agent.events("agent.started"))

    def alive(self):
        return self.agent.running()

    def kill(self):
        """SIGKILL at this moment, if it still runs; its end is noted either way."""
        self.agent.signal(signal.SIGKILL)
        self.note_end()

    def note_end(self):
        """It is dead, or will be at once: the exit code."""
        self.died += 1
        code = self.agent.wait_exit(PATIENCE)
        core = pathlib.Path("core")  # the driver works in a folder of its own, and so does the agent
        if code not in (0, -9) and core.exists():
            self.say_stacks(str(core))
            core.unlink()
        return code

    def _waits(self, done, timeout):
        """Waits for done(), looked at when the server heard something; False when the agent died or it took too long."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if self.lab.server.wait(done, 0.02):
                return True
            if not self.alive():
                return False
        return False

    def seen(self, timeout=PATIENCE, but=frozenset()):
        """Waits until the servers have all that was written, but these numbers."""
        want = self._due() - but
        a = self.arrivals
        return self._waits(
            lambda: ("loki" not in self.outputs or want <= a.loki_ids)
            and ("search" not in self.outputs or want - self.dead_ids <= a.search_ids), timeout)

    def _due(self):
        """The numbers that must come: what was in a deleted file only if the agent lived to see it."""
        return set(range(len(self.world))) - self._may_lack()

    def _may_lack(self):
        return self.world.vanished | (self.world.perishable if self.died else set())

    def knows(self, name):
        """Have the agent's queues something of this file? A file that is renamed away before anybody ever followed it is
        not looked for under its new name."""
        seen = self.arrivals.loki_ids | self.arrivals.search_ids
        return any(i in seen for i in self.world.in_file(name))

    def holds(self, name):
        """Does the agent live, and has it the file open?"""
        return self.alive() and self.knows(name)

    def refuse(self, is_refused):
        """is_refused(number): the server of documents answers 400 for those lines from now on."""
        self.is_refused = is_refused
        self.arrivals.refuse = lambda doc: is_refused(line_id(doc))

    @property
    def dead_ids(self):
        return {i for i in range(len(self.world)) if self.is_refused(i)}

    def accepted(self, lines, timeout=PATIENCE):
        """Waits until each output has that many lines in its queue or behind it."""
        def reached():
            try:
                rows = self.agent.status()["ledger"]["outputs"]
            except (OSError, ValueError, AssertionError):
                return False
            return all(sum(r["accepted_lines"] for r in rows if r["output"] == o) >= lines for o in self.outputs)

        wait_until(reached, timeout, lambda: f"{lines} lines accepted\n{self.agent.describe()}", interval=0.005)

    def rest(self, timeout=PATIENCE, is_strict=False):
        """Waits until nothing is open, queued or on its way, and the ledger balances; fails with what it says.
        is_strict: the archive's lines are acknowledged too, not only in its files."""
        end = time.monotonic() + timeout
        last = "no answer"
        while time.monotonic() < end:
            if not self.alive():
                raise Ended(self.note_end())
            try:
                last = self._unrest(self.agent.status(), is_strict)
            except (OSError, ValueError, AssertionError) as e:
                last = repr(e)
            if last is None:
                return
            time.sleep(0.005)
        raise Violation(f"no rest within {timeout} s: {last}")

    def _unrest(self, status, is_strict=False):
        inputs, outputs = status["ledger"]["inputs"], status["ledger"]["outputs"]
        for row in inputs + outputs:
            if row["imbalance"]:
                return f"imbalance: {row}"
        if status["files"] is None:  # the reader had no time to answer
            return "the files are not known"
        for f in status["files"]:
            if f["state"] == "missing":  # a power cut made it shorter: what its queues knew of it is kept a day, in case
                continue
            for name, o in f["outputs"].items():
                if o["committed"] < f["size"]:
                    return f"{name} is at {o['committed']} of {f['size']} in {f['path']}"
        for row in outputs:
            # The archive is synced and acknowledged once a second: to wait for that in each run would double its time.
            if row["queued_lines"] and (is_strict or self.world.shortened or row["output"] != "archive" or not self._is_archived()):
                return f"queued: {row}"
        self.ledger = inputs, outputs
        return None

    def _is_archived(self):
        found = set()
        for path in self.archive.glob("*.ndjson"):
            found.update(map(line_id, path.read_bytes().split(b"\n")[:-1]))
        return self._due() <= found

    # --- the judgement ---

    def judge(self):
        """Everything written has arrived, once. {output: doubled lines of files that a power cut made shorter}"""
        want = dict(enumerate(self.world.tenant_of))
        may_lack = self._may_lack()
        figures = {}
        for output in self.outputs:
            found = getattr(self, f"_found_{output}")()
            dead = self.dead_ids if output == "search" else set()
            lost = [i for i in want if i not in found and i not in may_lack and i not in dead]
            strange = [i for i in found if i not in want and not (i == -1 and self.world.is_torn)]
            doubled = [i for i, n in found.items() if n > 1 and i != -1 and i not in self.world.shortened]
            if lost or doubled or strange:
                self.trouble.append(f"{output}: {len(lost)} lost {lost[:5]}, {len(doubled)} doubled {doubled[:5]}, "
                                    f"{len(strange)} strange {strange[:5]}")
            figures[output] = sum(n > 1 for i, n in found.items() if i in self.world.shortened)
        self._judge_ledger()
        self.trouble += [e for e in self.lab.server.errors if e.startswith(f"{self.name}:")]
        if self.trouble:
            raise Violation("; ".join(self.trouble))
        return figures

    def _content(self, raw, tenant, where):
        """The number of a line whose content is whole and whose tenant is right."""
        try:
            fields = json.loads(raw)
            seq = fields["seq"]
            if fields["crc"] != check_sum(seq, fields["message"]):
                self.trouble.append(f"{where}: line {seq} is damaged")
            if seq < len(self.world) and self.world.tenant_of[seq] != tenant:
                self.trouble.append(f"{where}: line {seq} of {self.world.tenant_of[seq]} went to {tenant}")
            return seq
        except (ValueError, KeyError) as e:
            if not self.world.is_torn:
                self.trouble.append(f"{where}: {raw[:80]!r}: {e!r}")
            return -1

    def _found_loki(self):
        return collections.Counter(self._content(line, tenant, "loki") for tenant, _, _, line, _ in self.arrivals.entries)

    def _found_search(self):
        return collections.Counter(
            self._content(doc, index.removeprefix("f-"), "search") for (index, _), doc in self.arrivals.documents.items())

    def _found_archive(self):
        found = collections.Counter()
        for path in self.archive.glob("*.ndjson"):
            data = path.read_bytes()
            if data and not data.endswith(b"\n"):
                self.trouble.append(f"archive: {path.name} ends within a line")
            found.update(self._content(line, path.stem, "archive") for line in data.split(b"\n")[:-1])
        return found

    def _judge_ledger(self):
        for row in self.ledger[1]:
            gone = {k: v for k, v in row.items() if (k.startswith("lost_") or k == "parked_lines") and v}
            if gone:
                self.trouble.append(f"ledger: {row['output']} {row['tenant']}: {gone}")
        dead = sum(r["dead_lines"] for r in self.ledger[1])
        if dead != len(self.dead_ids):
            self.trouble.append(f"ledger: {dead} dead lines, {len(self.dead_ids)} were refused")

    def finish(self, is_strict=False):
        """From whatever state: a clean agent, everything arrives, it stops in order; the judgement."""
        if not self.alive():
            self.start(with_shim=False)
        if not self.seen():
            self._say_what_lacks()
        self.rest(is_strict=is_strict)
        self.stop()
        return self.judge()

    def again(self):
        """Starts once more, when all has arrived: nothing may come a second time under another name."""
        self.start(with_shim=False)
        self.rest(is_strict=True)
        self.stop()
        return self.judge()

    def _say_what_lacks(self):
        if not self.alive():
            raise Ended(self.note_end())
        want = self._due()
        lacks = {o: len(want - ids) for o, ids in (("loki", self.arrivals.loki_ids),
                                                   ("search", self.arrivals.search_ids | self.dead_ids))}
        raise Violation(f"lines do not arrive within {PATIENCE} s: {lacks}")

    def stop(self, timeout=10):
        """SIGTERM: it must end by itself, in order."""
        code = self.end(timeout)
        if code != 0:
            raise Violation(f"exit {code} after SIGTERM")

    def end(self, timeout=10):
        """SIGTERM, whatever comes of it: the exit code; a hang is a violation."""
        self.agent.signal(signal.SIGTERM)
        try:
            return self.agent.process.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.say_stacks("-p", str(self.agent.pid))
            raise Violation(f"no end within {timeout} s of SIGTERM") from None

    def say_stacks(self, *what):
        """Where each thread is, or was, to FOLDER/stacks.txt; without gdb it says that."""
        with open(self.dir / "stacks.txt", "wb") as out:
            gdb = shutil.which("gdb")
            if gdb is None:
                out.write(b"gdb is not installed\n")
                return
            subprocess.run([gdb, "-batch", "-nx", "-ex", "thread apply all bt", binary(), *what], stdin=subprocess.DEVNULL,
                           stdout=out, stderr=subprocess.STDOUT, timeout=60, check=False)

    def crash_is_in(self, libraries):
        """Is the place of the crash in one of them?"""
        stacks = self.dir / "stacks.txt"
        text = stacks.read_text(errors="replace") if stacks.exists() else ""
        first = next((line for line in text.splitlines() if line.startswith("#0")), "")
        return any(name in first for name in libraries)

    def remove(self, folder):
        """What lies on another disk; a copy stays with the story of a case that fails."""
        if sys.exc_info()[0]:
            shutil.copytree(folder, self.dir / "disk", ignore_dangling_symlinks=True, dirs_exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    def close(self, keep=False):
        if self.alive():
            self.agent.process.kill()
        self.lab.server.drop(self.name)
        if not keep:
            shutil.rmtree(self.dir, ignore_errors=True)
