"""The Debian package: lintian, the same bytes twice, and its life in a clean Debian 12: installed, upgraded over a running
agent, removed, purged. As root: it takes a chroot.

systemd does not run in there; what its unit would do (user, capability, restart) is done by hand.
"""

import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import threading
import time

import pytest

from tailrace_test import wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(os.environ.get("TAILRACE_TEST_CACHE") or pathlib.Path(
    os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "tailrace-tests")


def sh(*argv, check=True, **kw):
    got = subprocess.run([str(a) for a in argv], capture_output=True, text=True, check=False, **kw)
    assert not check or got.returncode == 0, f"{argv}: {got.returncode}\n{got.stdout[-3000:]}\n{got.stderr[-3000:]}"
    return got


def sources(to):
    """A copy of the tree as git has it, changes included."""
    files = sh("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).stdout.split("\0")
    for f in filter(None, files):
        if (ROOT / f).is_file():
            (to / f).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / f, to / f)
    return to


def built(tree):
    sh("nice", "make", "-j2", "deb", cwd=tree, env={k: v for k, v in os.environ.items() if not k.startswith("MAKE")})
    return next(p for p in (tree / "build/dist").glob("tailrace_*.deb"))


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="session")
def deb(tmp_path_factory):
    return built(sources(tmp_path_factory.mktemp("first") / "a"))


def test_lintian_has_nothing_to_say(deb):
    changes = next(deb.parent.glob("*.changes"))
    got = sh("lintian", "--allow-root", "--fail-on", "error,warning", changes, check=False)
    assert got.returncode == 0 and not got.stdout.strip(), got.stdout + got.stderr


def test_built_twice_it_is_the_same(deb, tmp_path):
    again = built(sources(tmp_path / "a-longer-name" / "b"))
    assert sha256(again) == sha256(deb)
    trees = [deb.parents[2], again.parents[2]]
    for tree in trees:
        sh("nice", "make", "-j2", "tarball", cwd=tree)
    assert len({sha256(next((t / "build/dist").glob("*-linux-*.tar.gz"))) for t in trees}) == 1


# --- a clean system ---


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
    """The root folder, and what is done in it."""

    def __init__(self, root, deb):
        self.root = root
        self.deb(deb)

    def deb(self, deb, name="tailrace.deb"):
        shutil.copy(deb, self.root / "tmp" / name)

    def run(self, *argv, check=True, **kw):
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C", "HOME": "/root"}
        return sh("chroot", self.root, *argv, check=check, env=env, **kw)

    def start(self):
        """As the unit does: its user, its one capability."""
        argv = ["chroot", str(self.root), "setpriv", "--reuid=tailrace", "--regid=tailrace", "--init-groups",
                "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "/usr/bin/tailrace", "run"]
        with open(self.root / "tmp/agent.log", "ab") as log:
            return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


@pytest.fixture
def system(deb, tmp_path):
    depends = sh("dpkg-deb", "-f", deb, "Depends").stdout
    names = sorted({d.split("|")[0].split("(")[0].strip() for d in depends.split(",")} | {"systemd", "debconf"})
    root = tmp_path / "root"
    sh("cp", "-a", "--reflink=auto", clean_debian(names), root)
    (root / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")
    os.chmod(root / "usr/sbin/policy-rc.d", 0o755)
    yield System(root, deb)
    sh("rm", "-rf", root)


CONFIG = """
inputs: { app: { type: file, include: ["/var/log/app/*.log"], multiline: off } }
outputs: { out: { type: file, path: /var/lib/tailrace/archive/out.ndjson, compress: false, queue: { batch_wait: 50ms } } }
"""


def upgrade_of(deb, tmp_path):
    """The same as a newer version."""
    tree = tmp_path / "newer"
    sh("dpkg-deb", "-R", deb, tree)
    control = tree / "DEBIAN/control"
    control.write_text(control.read_text().replace("0tailrace1", "0tailrace2"))
    sh("dpkg-deb", "--root-owner-group", "-b", tree, tmp_path / "newer.deb")
    return tmp_path / "newer.deb"


def archived(system):
    path = system.root / "var/lib/tailrace/archive/out.ndjson"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line)["seq"] for line in text.split("\n")[:-1]]


def test_installed_upgraded_while_running_removed_purged(system, deb, tmp_path):
    root = system.root
    system.run("dpkg", "-i", "/tmp/tailrace.deb")
    assert "tailrace:" in (root / "etc/passwd").read_text()
    assert (root / "etc/systemd/system/multi-user.target.wants/tailrace.service").is_symlink()
    assert system.run("tailrace", "check", "--quiet").returncode == 0
    assert set(system.run("dpkg-query", "-W", "-f", "${Conffiles}", "tailrace").stdout.split()[::2]) == {
        "/etc/default/tailrace", "/etc/tailrace/tailrace.yaml"}
    sh("systemd-analyze", "verify", "--root", root, "--man=no", "tailrace.service")

    (root / "etc/tailrace/tailrace.yaml").write_text("# changed by the operator\n" + CONFIG)
    for folder in ("var/lib/tailrace", "var/lib/tailrace/archive"):  # StateDirectory= of the unit
        (root / folder).mkdir(exist_ok=True)
        system.run("chown", "tailrace:", f"/{folder}")
    (root / "var/log/app").mkdir()
    log, stop, written = root / "var/log/app/a.log", threading.Event(), [0]
    log.touch(0o600)

    def write():
        with open(log, "a", encoding="ascii") as f:
            while not stop.is_set():
                f.write(json.dumps({"level": "info", "seq": written[0]}) + "\n")
                f.flush()
                written[0] += 1
                time.sleep(0.001)  # a service's pace

    writer, agent = threading.Thread(target=write), system.start()
    writer.start()
    try:
        wait_until(lambda: len(archived(system)) > 100, 30, lambda: (root / "tmp/agent.log").read_text())
        system.deb(upgrade_of(deb, tmp_path), "newer.deb")
        system.run("dpkg", "--force-confold", "-i", "/tmp/newer.deb")
        assert agent.poll() is None, "the upgrade itself does not end the agent; systemd restarts it"
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(20) == 0
        before = len(archived(system))
        agent = system.start()
        wait_until(lambda: len(archived(system)) > before + 100, 30, lambda: (root / "tmp/agent.log").read_text())
        stop.set()
        writer.join()
        wait_until(lambda: len(archived(system)) >= written[0], 30, lambda: f"{len(archived(system))} of {written[0]}")
    finally:
        stop.set()
        writer.join()
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(20) == 0
    assert sorted(archived(system)) == list(range(written[0])), "each line once, over the upgrade"
    assert "0tailrace2" in system.run("dpkg-query", "-W", "-f", "${Version}", "tailrace").stdout
    assert (root / "etc/tailrace/tailrace.yaml").read_text().startswith("# changed by the operator")

    system.run("dpkg", "-r", "tailrace")
    assert (root / "var/lib/tailrace/archive/out.ndjson").exists() and (root / "etc/tailrace/tailrace.yaml").exists()
    assert not (root / "usr/bin/tailrace").exists()
    system.run("dpkg", "-i", "/tmp/newer.deb")
    system.run("debconf-set-selections", input="tailrace tailrace/purge_state boolean false\n")
    system.run("dpkg", "-P", "tailrace")
    assert (root / "var/lib/tailrace/archive/out.ndjson").exists(), "the answer was no"
    assert not (root / "etc/tailrace").exists() and not (root / "etc/default/tailrace").exists()
    system.run("dpkg", "-i", "/tmp/newer.deb")
    system.run("dpkg", "-P", "tailrace")
    assert not (root / "var/lib/tailrace").exists(), "unanswered it is removed"
