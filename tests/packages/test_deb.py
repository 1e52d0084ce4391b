"""The Debian package: lintian, the same bytes twice, and its life in a clean Debian 12: installed, upgraded over a running
agent, removed, purged. As root: Debian boots in a container, with its systemd (systemd-nspawn).
"""

import hashlib
import json
import os
import pathlib
import re
import shutil
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


def sources(to, tree):
    """A copy of a tree as a package would have it."""
    for f in sh(tree / "scripts/sources.sh").stdout.split("\n")[:-1]:
        (to / f).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(tree / f, to / f)
    return to


def built(tree):
    sh("nice", "make", "-j2", "deb", cwd=tree, env={k: v for k, v in os.environ.items() if not k.startswith("MAKE")})
    return next(p for p in (tree / "build/dist").glob("tailrace_*.deb"))


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="session")
def deb(tmp_path_factory):
    """$TAILRACE_DEB: one that was built already."""
    if os.environ.get("TAILRACE_DEB"):
        return pathlib.Path(os.environ["TAILRACE_DEB"]).resolve()
    return built(sources(tmp_path_factory.mktemp("first") / "a", ROOT))


def test_lintian_has_nothing_to_say(deb):
    changes = next(deb.parent.glob("*.changes"))
    got = sh("lintian", "--allow-root", "--fail-on", "error,warning", changes, check=False)
    assert got.returncode == 0 and not got.stdout.strip(), got.stdout + got.stderr


def test_built_twice_it_is_the_same(deb, tmp_path):
    first = deb.parents[2]  # its sources: the tree may change meanwhile
    again = built(sources(tmp_path / "a-longer-name" / "b", first))
    assert sha256(again) == sha256(deb)
    trees = [first, again.parents[2]]
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

    def stop(self):
        if self.nspawn.poll() is None:
            self.run("systemctl", "poweroff", check=False)
            try:
                self.nspawn.wait(60)
            except subprocess.TimeoutExpired:
                self.nspawn.kill()
                self.nspawn.wait()


@pytest.fixture
def system(deb, tmp_path):
    depends = sh("dpkg-deb", "-f", deb, "Depends").stdout
    names = sorted({d.split("|")[0].split("(")[0].strip() for d in depends.split(",")} | {"systemd", "systemd-sysv", "dbus"})
    root = tmp_path / "root"
    sh("cp", "-a", "--reflink=auto", clean_debian(names), root)
    running = System(root, tmp_path)
    yield running
    running.stop()
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
    system.bring(deb, "tailrace.deb")
    system.run("dpkg", "-i", "/srv/tailrace.deb")
    assert "tailrace:" in (root / "etc/passwd").read_text()
    assert set(system.run("dpkg-query", "-W", "-f", "${Conffiles}", "tailrace").stdout.split()[::2]) == {
        "/etc/default/tailrace", "/etc/tailrace/tailrace.yaml"}
    assert system.run("systemctl", "is-enabled", "tailrace").stdout.strip() == "enabled" and system.is_active()
    pid = system.pid()
    assert system.run("ps", "-o", "user=", "-p", pid).stdout.strip() == "tailrace"
    capability = re.search(r"CapEff:\s*(\w+)", system.run("cat", f"/proc/{pid}/status").stdout)[1]
    assert int(capability, 16) == 1 << 2, "CAP_DAC_READ_SEARCH alone"
    assert system.run("tailrace", "health", "ready").returncode == 0

    (root / "etc/tailrace/tailrace.yaml").write_text("# changed by the operator\n" + CONFIG)
    (root / "var/log/app").mkdir()
    log, stop, written = root / "var/log/app/a.log", threading.Event(), [0]
    log.touch(0o600)
    system.run("systemctl", "restart", "tailrace")

    def write():
        with open(log, "a", encoding="ascii") as f:
            while not stop.is_set():
                f.write(json.dumps({"level": "info", "seq": written[0]}) + "\n")
                f.flush()
                written[0] += 1
                time.sleep(0.001)  # a service's pace

    def journal():
        return system.run("journalctl", "-u", "tailrace", "-n", "50", "--no-pager").stdout

    writer, pid = threading.Thread(target=write), system.pid()
    writer.start()
    try:
        wait_until(lambda: len(archived(system)) > 100, 30, journal)
        system.bring(upgrade_of(deb, tmp_path), "newer.deb")
        system.run("dpkg", "--force-confold", "-i", "/srv/newer.deb")
        before = len(archived(system))
        assert system.is_active() and system.pid() != pid, journal()
        wait_until(lambda: len(archived(system)) > before + 100, 30, journal)
    finally:
        stop.set()
        writer.join()
    wait_until(lambda: len(archived(system)) >= written[0], 30, lambda: f"{len(archived(system))} of {written[0]}\n{journal()}")
    assert sorted(archived(system)) == list(range(written[0])), "each line once, over the upgrade"
    assert "0tailrace2" in system.run("dpkg-query", "-W", "-f", "${Version}", "tailrace").stdout
    assert (root / "etc/tailrace/tailrace.yaml").read_text().startswith("# changed by the operator")

    # A configuration that is wrong: the start ends with 2, and systemd does not try again.
    (root / "etc/tailrace/conf.d/wrong.yaml").write_text("nonsense: 1\n")
    system.run("systemctl", "restart", "tailrace", check=False)
    shown = system.run("systemctl", "show", "-p", "ActiveState,ExecMainStatus,NRestarts", "tailrace").stdout.split()
    assert {"ActiveState=failed", "ExecMainStatus=2", "NRestarts=0"} == set(shown)
    (root / "etc/tailrace/conf.d/wrong.yaml").unlink()

    system.run("dpkg", "-r", "tailrace")
    assert archived(system) and (root / "etc/tailrace/tailrace.yaml").exists() and not (root / "usr/bin/tailrace").exists()
    system.run("dpkg", "-i", "/srv/newer.deb")
    wait_until(system.is_active, 20, journal)
    system.run("debconf-set-selections", input="tailrace tailrace/purge_state boolean false\n")
    system.run("dpkg", "-P", "tailrace")
    assert sorted(archived(system)) == list(range(written[0])), "the answer was no; nor was a line sent again"
    assert not (root / "etc/tailrace").exists() and not (root / "etc/default/tailrace").exists()
    system.run("dpkg", "-i", "/srv/newer.deb")
    system.run("dpkg", "-P", "tailrace")
    assert not (root / "var/lib/tailrace").exists(), "unanswered it is removed"


def test_a_secret_by_load_credential(system, deb):
    """The sample drop-in: the service has the secret, its user cannot read where it is kept."""
    root = system.root
    system.bring(deb, "tailrace.deb")
    system.run("dpkg", "-i", "/srv/tailrace.deb")
    dropin = root / "etc/systemd/system/tailrace.service.d"
    dropin.mkdir(parents=True)
    shutil.copy(ROOT / "packaging/systemd/credentials.conf", dropin)
    secrets = root / "etc/tailrace/secrets"
    secrets.mkdir(mode=0o700)
    (secrets / "loki-token").write_text("secret\n")
    os.chmod(secrets / "loki-token", 0o600)
    (root / "etc/tailrace/tailrace.yaml").write_text(CONFIG.replace(
        "outputs: {", 'outputs: { loki: { type: loki, url: "http://127.0.0.1:9", auth: { bearer_file: "${CREDENTIALS_DIRECTORY}/loki-token" } },'))
    system.run("systemctl", "daemon-reload")
    system.run("systemctl", "restart", "tailrace")
    assert system.is_active(), system.run("journalctl", "-u", "tailrace", "--no-pager").stdout[-2000:]
    log = system.run("journalctl", "-u", "tailrace", "-o", "cat", "--no-pager").stdout
    assert "secret\n" not in log and "config.rejected" not in log
