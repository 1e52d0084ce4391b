"""What is installed: the unit, the manifests, the samples, the completion and the manual say what the program does."""
import pathlib
import re
import subprocess

import pytest

from tailrace_test import run

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_unit_verifies_and_is_hardened(tmp_path):
    unit = (ROOT / "packaging/systemd/tailrace.service").read_text()
    local = tmp_path / "tailrace.service"  # with a program that is there, and no manual to look up
    local.write_text(unit.replace("/usr/bin/tailrace", "/bin/true").replace("Documentation=man:tailrace(1)\n", ""))
    got = subprocess.run(["systemd-analyze", "verify", str(local)], capture_output=True, text=True)
    assert got.returncode == 0 and not got.stderr, got.stderr
    got = subprocess.run(["systemd-analyze", "security", "--offline=yes", str(local)], capture_output=True, text=True)
    level = float(re.search(r"Overall exposure level for \S+: ([0-9.]+)", got.stdout).group(1))
    assert level <= 2.0
    for line in ("Type=notify", "AmbientCapabilities=CAP_DAC_READ_SEARCH", "LimitNOFILE=65536",
                 "LogsDirectory=tailrace", "RestartPreventExitStatus=2"):
        assert line in unit


@pytest.mark.parametrize("sample", ["tailrace.yaml", "kubernetes.yaml"])
def test_samples_are_valid(sample):
    got = run("check", "-c", str(ROOT / "conf" / sample))
    assert got.returncode == 0, got.stderr
    assert "***" in got.stdout or "password" not in got.stdout


def test_completion_and_manual_know_every_command():
    commands = re.findall(r"^  (\w+) ", run("--help").stdout, re.M)
    assert {"run", "check", "explain", "health", "status", "queue", "archive", "version"} <= set(commands)
    completion = (ROOT / "packaging/completion/tailrace.bash").read_text()
    manual = (ROOT / "packaging/man/tailrace.1").read_text()
    for c in commands:
        assert re.search(rf"\b{c}\b", completion) and re.search(rf"\b{c}\b", manual), c
    assert subprocess.run(["bash", "-n", str(ROOT / "packaging/completion/tailrace.bash")]).returncode == 0


def test_install(tmp_path):
    subprocess.run(["make", "-s", "install", f"DESTDIR={tmp_path}", "PREFIX=/usr"], cwd=ROOT, check=True)
    for f in ("usr/bin/tailrace", "etc/tailrace/tailrace.yaml", "usr/lib/systemd/system/tailrace.service",
              "usr/share/man/man1/tailrace.1", "usr/lib/sysusers.d/tailrace.conf"):
        assert (tmp_path / f).exists(), f
    got = subprocess.run([str(tmp_path / "usr/bin/tailrace"), "--version"], capture_output=True, text=True)
    assert got.returncode == 0 and "tailrace" in got.stdout
