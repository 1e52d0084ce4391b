"""The agent under test: the real binary, with a config of its own, asked over its admin endpoint."""

import json
import os
import pathlib
import re
import signal
import subprocess

from . import client, prom
from .proc import Process, tail
from .servers import ROOT
from .wait import wait_until

_SANITIZER = ("ERROR: AddressSanitizer", "WARNING: ThreadSanitizer", "runtime error:", "ERROR: LeakSanitizer")


def binary():
    """$TAILRACE_BINARY, else build/release/tailrace."""
    path = pathlib.Path(os.environ.get("TAILRACE_BINARY") or ROOT / "build" / "release" / "tailrace").resolve()
    assert path.is_file(), f"{path} is not there: run make first"
    return path


def run(*args, stdin=None, timeout=60, env=None):
    """One call of the command line, `tailrace check -c FILE`: the CompletedProcess, output as text."""
    return subprocess.run(
        [str(binary()), *map(str, args)], input=stdin, capture_output=True, text=True, timeout=timeout, check=False,
        env=dict(os.environ, **env) if env else None, stdin=subprocess.DEVNULL if stdin is None else None,
    )


class Agent:
    """start(), sigterm(), kill9(), start() again on the same state: tmpdir/state.

    config: the YAML text, or a dict. state_dir and admin.listen ("127.0.0.1:0") are added where missing.
    """

    def __init__(self, tmpdir, config, name="tailrace", env=None, args=(), nofile=None, wrap=()):
        """nofile: the limit of open files. args: more arguments of `tailrace run`. wrap: a command before it that
        becomes it by exec, like valgrind or faketime."""
        self.dir = pathlib.Path(tmpdir)
        self.dir.mkdir(parents=True, exist_ok=True)
        self.name, self.env, self.args = name, dict(env or {}), list(args)
        self.wrap = (["prlimit", f"--nofile={nofile}:{nofile}"] if nofile else []) + list(wrap)
        self.config_path = self.dir / f"{name}.yaml"
        self.state_dir = self.dir / "state"
        self.process = None
        self.exits = []  # the exit codes of all runs that were waited for
        self._awaited = None
        self._log_from = 0
        self.configure(config)

    # --- config ---

    def configure(self, config):
        """Writes a new config; sighup() or a restart makes it count."""
        if isinstance(config, dict):
            config = dict(config)
            config.setdefault("state_dir", str(self.state_dir))
            config.setdefault("admin", {"listen": "127.0.0.1:0"})
            self.state_dir = pathlib.Path(config["state_dir"])
            config = json.dumps(config, indent=1)
        else:
            given = re.search(r"^state_dir:\s*[\"']?([^\s\"'#]+)", config, re.M)
            if given:
                self.state_dir = pathlib.Path(given[1])
            else:
                config = f"state_dir: {self.state_dir}\n{config}"
            if not re.search(r"^admin:", config, re.M):
                config = f'admin: {{ listen: "127.0.0.1:0" }}\n{config}'
        new = self.config_path.with_suffix(".new")
        new.write_text(config)
        os.replace(new, self.config_path)

    # --- running ---

    def start(self, ready=True, timeout=30):
        """Starts it; ready=False returns at once."""
        assert self.process is None or not self.process.running(), "the agent runs already"
        if not self.state_dir.exists():
            self.state_dir.mkdir(parents=True)
        self._address_file.unlink(missing_ok=True)

        self._log_from = os.path.getsize(self.err) if os.path.exists(self.err) else 0
        self.process = Process(
            [*self.wrap, binary(), "run", "-c", self.config_path, *self.args], self.dir / self.name,
            env=dict(os.environ, **self.env),
        )
        if ready:
            self.wait_ready(timeout)
        return self

    @property
    def pid(self):
        return self.process.pid

    @property
    def err(self):
        return f"{self.dir / self.name}.err"

    @property
    def out(self):
        return f"{self.dir / self.name}.out"

    @property
    def _address_file(self):
        return self.state_dir / "admin.addr"

    def running(self):
        return self.process is not None and self.process.running()

    @property
    def admin(self):
        """The base URL of the admin endpoint."""
        text = self._address_file.read_text().strip()
        assert text, "admin.addr is empty"
        return text if text.startswith("http") else f"http://{text}"

    def get(self, path, timeout=10, headers=None):
        return client.request("GET", self.admin + path, timeout=timeout, headers=headers)

    def ready(self):
        try:
            return self.get("/health/ready").status == 200
        except (OSError, AssertionError):
            return False

    def wait_ready(self, timeout=30):
        def ready():
            assert self.process.running(), f"the agent ended while starting\n{self.describe()}"
            return self.ready()

        wait_until(ready, timeout, lambda: f"the agent is ready\n{self.describe()}")

    def sighup(self):
        self.process.signal(signal.SIGHUP)

    def signal(self, sig):
        self.process.signal(sig)

    def wait_exit(self, timeout=10):
        """The exit code."""
        code = self.process.wait(timeout)
        self.exits.append(code)
        self._awaited = self.process
        return code

    def sigterm(self, timeout=10, code=0):
        """SIGTERM, and the exit must come in time with this code (None: any)."""
        self.process.signal(signal.SIGTERM)
        got = self.wait_exit(timeout)
        assert code is None or got == code, f"exit {got} after SIGTERM, expected {code}\n{self.describe()}"
        return got

    def kill9(self):
        """SIGKILL; that it ended by something else before is a failure."""
        self.process.signal(signal.SIGKILL)
        code = self.wait_exit()
        assert code == -signal.SIGKILL, f"the agent had ended with {code}\n{self.describe()}"

    def restart(self):
        self.sigterm()
        return self.start()

    def close(self):
        """The end of a test: stopped if it still runs, and nothing of a sanitizer in its output. A crash fails."""
        problem = None
        if self.running():
            self.sigterm()
        elif self.process and self._awaited is not self.process:
            problem = f"the agent ended by itself with {self.process.code}"
        text = pathlib.Path(self.err).read_text(errors="replace") if os.path.exists(self.err) else ""
        for mark in _SANITIZER:
            if mark in text:
                problem = f"a sanitizer complains:\n{text[max(0, text.index(mark) - 200) :][:8000]}"
        assert problem is None, f"{problem}\n{self.describe()}"

    def describe(self):
        """The last 50 lines of its log, and how it fares."""
        state = "was never started" if not self.process else (
            f"pid {self.process.pid} runs" if self.process.running() else f"ended with {self.process.code}")
        return f"--- {self.name}: {state}; last lines of {self.err}\n{tail(self.err)}"

    # --- what it says ---

    def metrics(self):
        """{(name, frozenset of (label, value)): value}"""
        return prom.parse(self.get("/metrics").expect(200).text)

    def metric(self, name, **labels):
        """The sum of all series of that name with these labels; 0 when there is none. "tailrace_" may be left out."""
        samples = self.metrics()
        if not name.startswith(("tailrace_", "process_")):
            name = f"tailrace_{name}"
        return prom.total(samples, name, **labels)

    def wait_metric(self, name, at_least, timeout=30, **labels):
        """Waits until metric() reaches a value; returns it."""
        last = [0]

        def reached():
            assert self.process.running(), f"the agent ended\n{self.describe()}"
            last[0] = self.metric(name, **labels)
            return last[0] >= at_least

        wait_until(
            reached, timeout, lambda: f"{name}{labels or ''} at least {at_least}, is {last[0]}\n{self.describe()}",
            interval=0.05,
        )
        return last[0]

    def wait_delivered(self, lines, output, timeout=60):
        """Waits until that many lines are delivered by an output, since this start."""
        return self.wait_metric("delivered_lines_total", lines, timeout, output=output)

    def status(self):
        """/status as a dict."""
        return self.get("/status").expect(200).json()

    def health(self):
        """/health as a dict."""
        return self.get("/health", headers={"Accept": "application/json"}).expect(200, 503).json()

    # --- its log ---

    def log(self, all_runs=False):
        """Its own log as dicts, of the present run or of all; what is not JSON becomes {"raw": text}."""
        if not os.path.exists(self.err):
            return []
        with open(self.err, "rb") as f:
            f.seek(0 if all_runs else self._log_from)
            data = f.read()
        found = []
        for line in data.split(b"\n")[:-1]:
            try:
                entry = json.loads(line)
                found.append(entry if isinstance(entry, dict) else {"raw": line.decode("utf-8", "replace")})
            except ValueError:
                found.append({"raw": line.decode("utf-8", "replace")})
        return found

    def events(self, name=None, all_runs=False):
        """The log entries with this `event`."""
        return [e for e in self.log(all_runs) if "event" in e and name in (None, e["event"])]

    def wait_event(self, name, timeout=30, count=1):
        """Waits until the event was logged that many times in this run; returns them."""
        wait_until(
            lambda: len(self.events(name)) >= count, timeout,
            lambda: f"event {name} {count} time(s)\n{self.describe()}",
        )
        return self.events(name)

    # --- what the kernel counts ---

    def memory(self):
        """Bytes: VmRSS, RssAnon, VmHWM ..."""
        return self.process.memory()

    def cpu_seconds(self):
        return self.process.cpu_seconds()

    def descriptors(self):
        return self.process.descriptors()
