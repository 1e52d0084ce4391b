"""The Debian package: lintian, the same bytes twice, and its life in a clean Debian 12: installed, upgraded over a running
agent, removed, purged. As root: Debian boots in a container, with its systemd (systemd-nspawn).
"""

import hashlib
import os
import re
import shutil

import pytest

from clean_system import CONFIG, ROOT, Writer, archived, booted, libraries, made, sh, shipped_once, ships, sources
from tailrace_test import wait_until


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_lintian_has_nothing_to_say(deb):
    changes = next(deb.parent.glob("*.changes"))
    got = sh("lintian", "--allow-root", "--fail-on", "error,warning", changes, check=False)
    assert got.returncode == 0 and not got.stdout.strip(), got.stdout + got.stderr


def test_built_twice_it_is_the_same(deb, tmp_path):
    first = deb.parents[2]  # its sources: the tree may change meanwhile
    again = made("deb", sources(tmp_path / "a-longer-name" / "b", first))
    assert sha256(again) == sha256(deb)
    trees = [first, again.parents[2]]
    assert len({sha256(made("tarball", tree)) for tree in trees}) == 1


@pytest.fixture
def system(deb, tmp_path):
    yield from booted(tmp_path, libraries(deb))


def upgrade_of(deb, tmp_path):
    """The same as a newer version."""
    tree = tmp_path / "newer"
    sh("dpkg-deb", "-R", deb, tree)
    control = tree / "DEBIAN/control"
    control.write_text(control.read_text().replace("0tailrace1", "0tailrace2"))
    sh("dpkg-deb", "--root-owner-group", "-b", tree, tmp_path / "newer.deb")
    return tmp_path / "newer.deb"


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
    system.run("systemctl", "restart", "tailrace")
    pid = system.pid()
    with Writer(system) as writer:
        ships(system)
        system.bring(upgrade_of(deb, tmp_path), "newer.deb")
        system.run("dpkg", "--force-confold", "-i", "/srv/newer.deb")
        assert system.is_active() and system.pid() != pid, system.journal()
        ships(system)
    shipped_once(system, writer)
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
    wait_until(system.is_active, 20, system.journal)
    system.run("debconf-set-selections", input="tailrace tailrace/purge_state boolean false\n")
    system.run("dpkg", "-P", "tailrace")
    shipped_once(system, writer)  # the answer was no; nor was a line sent again
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
