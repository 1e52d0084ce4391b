"""The image: built from scratch by buildah, small, the same each time, and it runs. As root."""

import json
import os
import pathlib
import subprocess

import pytest

from tailrace_test import wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
LARGEST = 12 << 20  # compressed


class Buildah:
    """With a store of its own."""

    def __init__(self, tmp):
        self.flags = ["--storage-driver", "vfs", "--root", str(tmp / "store"), "--runroot", str(tmp / "run")]

    def __call__(self, *args, check=True):
        got = subprocess.run(["buildah", *self.flags, *map(str, args)], capture_output=True, text=True, check=False)
        assert not check or got.returncode == 0, f"{args}\n{got.stdout[-3000:]}\n{got.stderr[-3000:]}"
        return got


@pytest.fixture(scope="module")
def buildah(tmp_path_factory):
    made = Buildah(tmp_path_factory.mktemp("buildah"))
    image(made)
    return made


def image(buildah):
    env = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    got = subprocess.run(["make", "image", "BUILDAH_FLAGS=" + " ".join(buildah.flags)], cwd=ROOT, capture_output=True, text=True,
                         check=False, env=env)
    assert got.returncode == 0, got.stdout[-3000:] + got.stderr[-3000:]
    found = json.loads(buildah("inspect", "--type", "image", "tailrace").stdout)
    return found["OCIv1"]["rootfs"]["diff_ids"], found


def test_small_and_the_same_each_time(buildah):
    archive = ROOT / "build/dist/tailrace-image.tar"
    first, found = image(buildah)
    assert first == image(buildah)[0]
    assert found["Docker"]["config"]["Healthcheck"]["Test"] == ["CMD", "/usr/bin/tailrace", "health", "live"]
    size = len(subprocess.run(["gzip", "-9c", archive], capture_output=True, check=True).stdout)
    print(f"image: {archive.stat().st_size} bytes, compressed {size}")
    assert size <= LARGEST
    listed = subprocess.run(["tar", "-tf", archive], capture_output=True, text=True, check=True).stdout
    assert "manifest.json" in listed


def test_only_what_the_binary_needs():
    root = ROOT / "build/image/image/root"
    programs = [p for p in root.rglob("*") if p.is_file() and os.access(p, os.X_OK) and ".so" not in p.name]
    assert [p.relative_to(root).as_posix() for p in programs] == ["usr/bin/tailrace"], "no shell, no package manager"
    needed = subprocess.run(["ldd", root / "usr/bin/tailrace"], capture_output=True, text=True, check=True).stdout
    for p in root.rglob("*.so*"):
        assert p.name in needed, p


def test_it_runs(buildah, tmp_path):
    container = buildah("from", "localhost/tailrace").stdout.strip()
    for name in ("logs", "state"):
        (tmp_path / name).mkdir()
    (tmp_path / "logs/a.log").write_text('{"level":"info","message":"hello","time":"2026-06-01 12:00:00"}\n')
    (tmp_path / "c.yaml").write_text(
        'state_dir: /var/lib/tailrace\nadmin: { listen: "127.0.0.1:0" }\n'
        'inputs: { a: { type: file, include: ["/var/log/*.log"], timezone: Europe/Berlin, ignore_older: 0s } }\n'
        'outputs: { o: { type: file, path: /var/lib/tailrace/out.ndjson, compress: false } }\n')
    mounts = ["-v", f"{tmp_path}/logs:/var/log:ro", "-v", f"{tmp_path}/state:/var/lib/tailrace",
              "-v", f"{tmp_path}/c.yaml:/etc/tailrace/tailrace.yaml:ro"]
    argv = ["buildah", *buildah.flags, "run", "--isolation", "chroot", "--cap-add", "CAP_DAC_READ_SEARCH", *mounts, container,
            "--", "/usr/bin/tailrace", "run"]
    with open(tmp_path / "log", "wb") as log:
        agent = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    out = tmp_path / "state/out.ndjson"
    try:
        wait_until(lambda: out.exists() and out.read_text().endswith("\n"), 60, lambda: (tmp_path / "log").read_text())
        assert json.loads(out.read_text())["message"] == "hello"
        # As the HEALTHCHECK would: another process in the same container.
        got = buildah("run", "--isolation", "chroot", *mounts, container, "--", "/usr/bin/tailrace", "health", "live", check=False)
        assert got.returncode == 0, got.stdout + got.stderr
    finally:
        agent.terminate()
        agent.wait(30)
    got = buildah("run", "--isolation", "chroot", container, "--", "/usr/bin/tailrace", "check", "--quiet", check=False)
    assert got.returncode == 0, got.stderr  # the configuration that it brings
