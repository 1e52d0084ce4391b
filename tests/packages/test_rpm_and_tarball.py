"""The RPM package and the tarball, each with its life in a clean system with systemd: installed, upgraded over a running agent,
removed. As root.

The system is Debian, for no other is to be had from Debian's mirrors: rpm itself, the package's scripts and its files are tried,
not the names of the libraries' packages on Fedora (rpm finds those by itself, from the binary).
"""

import shutil

import pytest

from clean_system import CONFIG, Writer, archived, booted, libraries, made, sh, shipped_once, ships
from tailrace_test import wait_until

FILES = {"/usr/bin/tailrace", "/usr/lib/systemd/system/tailrace.service", "/usr/lib/sysusers.d/tailrace.conf",
         "/usr/share/man/man1/tailrace.1", "/usr/share/bash-completion/completions/tailrace", "/etc/tailrace/tailrace.yaml"}
# Of what the sources need for a build, Debian has other names.
ANYWHERE = "--nodeps --define '_unitdir /usr/lib/systemd/system' --define '_sysusersdir /usr/lib/sysusers.d'"


@pytest.fixture(scope="module")
def tree(deb):
    return deb.parents[2]


@pytest.fixture(scope="module")
def rpms(tree):
    """The package, and the same as a newer one."""
    return [made("rpm", tree, RPM_OPTIONS=f"{ANYWHERE} --define 'dist .{n}'") for n in (1, 2)]


@pytest.fixture
def system(deb, tmp_path):
    yield from booted(tmp_path, libraries(deb) | {"rpm"})


def test_rpm_holds_the_same_files(rpms):
    listed = sh("rpm", "-qp", "--nosignature", "--queryformat", "[%{FILENAMES} %{FILEFLAGS:fflags} %{FILEUSERNAME}\\n]", rpms[0]).stdout
    rows = [line.split(" ") for line in listed.splitlines()]
    names = {name.removesuffix(".gz") for name, _, _ in rows}
    assert FILES <= names and {user for _, _, user in rows} == {"root"}, names
    assert {name for name, flags, _ in rows if "c" in flags} == {"/etc/tailrace/tailrace.yaml"}
    needs = sh("rpm", "-qp", "--nosignature", "--requires", rpms[0]).stdout
    for library in ("libcurl", "libyajl", "libsnappy", "libmicrohttpd", "libyaml", "libisal", "libdeflate"):
        assert library in needs, needs


def rpm(system, *args):
    return system.run("rpm", "--nodeps", "--nosignature", "--force-debian", *args)


def test_rpm_installed_upgraded_while_running_removed(system, rpms):
    root = system.root
    for package, name in zip(rpms, ("first.rpm", "newer.rpm")):
        system.bring(package, name)
    rpm(system, "-i", "/srv/first.rpm")
    assert "tailrace:" in (root / "etc/passwd").read_text()
    assert system.run("systemctl", "is-enabled", "tailrace").stdout.strip() == "enabled"
    (root / "etc/tailrace/tailrace.yaml").write_text("# changed by the operator\n" + CONFIG)
    system.run("systemctl", "start", "tailrace")
    pid = system.pid()
    assert system.run("ps", "-o", "user=", "-p", pid).stdout.strip() == "tailrace"
    with Writer(system) as writer:
        ships(system)
        rpm(system, "-U", "/srv/newer.rpm")
        assert system.is_active() and system.pid() != pid, system.journal()
        ships(system)
    shipped_once(system, writer)
    assert system.run("rpm", "-q", "tailrace").stdout.startswith("tailrace-") and ".2." in system.run("rpm", "-q", "tailrace").stdout
    assert (root / "etc/tailrace/tailrace.yaml").read_text().startswith("# changed by the operator")
    assert system.run("tailrace", "health", "ready").returncode == 0
    rpm(system, "-e", "tailrace")
    assert not system.is_active() and not (root / "usr/bin/tailrace").exists()
    assert not (root / "etc/systemd/system/multi-user.target.wants/tailrace.service").is_symlink()
    assert (root / "etc/tailrace/tailrace.yaml.rpmsave").read_text().startswith("# changed by the operator")
    assert archived(system), "the state stays"


def test_tarball_as_PACKAGES_md_says(system, tree):
    """docs/PACKAGES.md, "From the tarball"."""
    root = system.root
    shutil.copy(made("tarball", tree), root / "srv/tailrace.tar.gz")
    system.run("tar", "-C", "/", "--no-overwrite-dir", "-xzf", "/srv/tailrace.tar.gz")
    assert all((root / f.lstrip("/")).is_file() for f in FILES)
    (root / "etc/tailrace/tailrace.yaml").write_text(CONFIG)
    system.run("systemd-sysusers")
    system.run("systemctl", "daemon-reload")
    system.run("systemctl", "enable", "--now", "tailrace")
    assert system.run("ps", "-o", "user=", "-p", system.pid()).stdout.strip() == "tailrace"
    with Writer(system) as writer:
        ships(system)
        pid = system.pid()
        system.run("tar", "-C", "/", "--no-overwrite-dir", "--exclude=./etc", "-xzf", "/srv/tailrace.tar.gz")
        system.run("systemctl", "restart", "tailrace")
        assert system.is_active() and system.pid() != pid
        ships(system)
    shipped_once(system, writer)
    assert (root / "etc/tailrace/tailrace.yaml").read_text() == CONFIG
    system.run("systemctl", "disable", "--now", "tailrace")
    wait_until(lambda: not system.is_active(), 20, system.journal)
