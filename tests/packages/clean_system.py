"""A clean Debian 12 that boots in a container, with its systemd (systemd-nspawn): what packages are tried in. As root."""

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import threading
import time

from tailrace_test import wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(os.environ.get("TAILRACE_TEST_CACHE") or pathlib.Path(
    os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "tailrace-tests")
# What an agent is given to do there.
CONFIG = """
inputs: { app: { type: file, include: ["/var/log/app/*.log"], multiline: off } }
outputs: { out: { type: file, path: /var/lib/tailrace/archive/out.ndjson, compress: false, queue: { batch_wait: 50ms } } }
"""


def sh(*argv, check=True, **kw):
    got = subprocess.run([str(a) for a in argv], capture_output=True, text=True, check=False, **kw)
    assert not check or got.returncode == 0, f"{argv}: {got.returncode}\n{got.stdout[-3000:]}\n{got.stderr[-3000:]}"
    return got


def sources(to, tree):
    """A copy of a tree as a package would have it."""
    for f in sh(tree / "scripts/sources.sh").stdout.split("\n")[:-1]:
        (to / f).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(tree / f, to / f)
    return to


def made(what, tree, **more):
    """The package that `make deb`, `rpm` or `tarball` makes of these sources."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    sh("nice", "make", "-j2", what, *(f"{k}={v}" for k, v in more.items()), cwd=tree, env=env)
    pattern = {"deb": "tailrace_*.deb", "rpm": "tailrace-[0-9]*.rpm", "tarball": "*-linux-*.tar.gz"}[what]
    return max((p for p in (tree / "build/dist").glob(pattern)), key=lambda p: p.stat().st_mtime_ns)


def clean_debian(packages):
    """A minimal Debian 12 with these packages, made once."""
    key = hashlib.sha256(" ".join(packages).encode()).hexdigest()[:10]
    root = CACHE / f"debian-12-{key}"
    if not root.exists():
        tmp = root.with_suffix(".tmp")
        shutil.rmtree(tmp, ignore_errors=True)
        CACHE.mkdir(parents=True, exist_ok=True)
        mirror = os.environ.get("TAILRACE_DEBIAN_MIRROR", "http://deb.debian.org/debian")
        sh("debootstrap", "--variant=minbase", "--include=" + ",".join(packages), "bookworm", tmp, mirror)
        tmp.rename(root)
    return root


class System:
    """A running Debian, and what is done in it."""

    def __init__(self, root, tmp):
        self.root, self.log = root, tmp / "console"
        with open(self.log, "wb") as console:
            self.nspawn = subprocess.Popen(
                ["systemd-nspawn", "--quiet", "-D", str(root), "--register=no", "--keep-unit", "--private-network", "--boot"],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console)
        wait_until(self._init, 30, self.describe)
        wait_until(lambda: self.run("systemctl", "is-system-running", check=False).stdout.strip() in ("running", "degraded"), 120,
                   self.describe, interval=0.5)

    def _init(self):
        """The pid of its first process."""
        assert self.nspawn.poll() is None, self.describe()
        got = sh("pgrep", "-P", self.nspawn.pid, check=False).stdout.split()
        self.init = got[0] if got else None
        return self.init

    def describe(self):
        return self.log.read_text(errors="replace")[-3000:]

    def run(self, *argv, check=True, **kw):
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C", "HOME": "/root"}
        return sh("nsenter", "-t", self.init, "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "--", *argv, check=check, env=env, **kw)

    def bring(self, deb, name):
        shutil.copy(deb, self.root / "srv" / name)

    def pid(self):
        return self.run("systemctl", "show", "-P", "MainPID", "tailrace").stdout.strip()

    def is_active(self):
        return self.run("systemctl", "is-active", "tailrace", check=False).stdout.strip() == "active"

    def journal(self):
        return self.run("journalctl", "-u", "tailrace", "-n", "50", "--no-pager").stdout

    def stop(self):
        if self.nspawn.poll() is None:
            self.run("systemctl", "poweroff", check=False)
            try:
                self.nspawn.wait(60)
            except subprocess.TimeoutExpired:
                self.nspawn.kill()
                self.nspawn.wait()


def libraries(deb):
    """What our package needs of Debian."""
    depends = sh("dpkg-deb", "-f", deb, "Depends").stdout
    return {d.split("|")[0].split("(")[0].strip() for d in depends.split(",")}


def booted(tmp, packages):
    """A fixture's generator: a copy of its own, with these packages, that runs until the end of the test."""
    root = tmp / "root"
    sh("cp", "-a", "--reflink=auto", clean_debian(sorted(packages | {"systemd", "systemd-sysv", "dbus"})), root)
    running = System(root, tmp)
    yield running
    running.stop()
    sh("rm", "-rf", root)


def archived(system):
    path = system.root / "var/lib/tailrace/archive/out.ndjson"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line)["seq"] for line in text.split("\n")[:-1]]


class Writer:
    """A service that writes its log, a line a millisecond, until the end of the block."""

    def __init__(self, system):
        self.log, self.written = system.root / "var/log/app/a.log", 0
        self.log.parent.mkdir(exist_ok=True)
        self.log.touch(0o600)
        self._stop, self._thread = threading.Event(), threading.Thread(target=self._write)

    def _write(self):
        with open(self.log, "a", encoding="ascii") as f:
            while not self._stop.is_set():
                f.write(json.dumps({"level": "info", "seq": self.written}) + "\n")
                f.flush()
                self.written += 1
                time.sleep(0.001)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


def ships(system, more=100, timeout=30):
    """Waits until so many lines more have arrived than now."""
    before = len(archived(system))
    wait_until(lambda: len(archived(system)) >= before + more, timeout, system.journal)


def shipped_once(system, writer, timeout=30):
    """Every line that was written is there, once."""
    wait_until(lambda: len(archived(system)) >= writer.written, timeout,
               lambda: f"{len(archived(system))} of {writer.written}\n{system.journal()}")
    assert sorted(archived(system)) == list(range(writer.written))
