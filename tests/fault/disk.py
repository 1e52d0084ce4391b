"""A small disk of one's own: ext4 in a loop file whose power can be cut, or a tmpfs that can be full. Needs root."""

import fcntl
import os
import pathlib
import shutil
import struct
import subprocess
import time

EXT4_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2  # nothing more reaches the disk, not even the journal that is in memory


def _call(*args):
    done = subprocess.run([str(a) for a in args], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(map(str, args))}: {done.stderr.strip()}")


class Ext4:
    def __init__(self, folder, megabytes=96):
        self.image, self.path = pathlib.Path(folder) / "image", pathlib.Path(folder) / "disk"
        self.path.mkdir(parents=True, exist_ok=True)
        if os.path.ismount(self.path):  # of a run that was killed
            self.off()
        with open(self.image, "wb") as f:
            f.truncate(megabytes << 20)
        _call("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1", self.image)
        self.on()

    def on(self):
        """The journal is replayed. A mount namespace that somebody made meanwhile still holds the disk that was cut: then a
        copy of it goes on."""
        _call("mount", "-o", "loop", self.image, self.path)
        if not self._works():
            self.off()
            held, self.image = self.image, self.image.with_name(f"image{time.monotonic_ns()}")
            shutil.copyfile(held, self.image)
            held.unlink()
            _call("mount", "-o", "loop", self.image, self.path)

    def _works(self):
        try:
            with open(self.path / ".works", "wb"):
                os.unlink(self.path / ".works")
            return True
        except OSError:
            return False

    def cut(self):
        """The power is gone: what was not synced is lost, every call from now on fails."""
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(fd)

    def off(self):
        _call("umount", self.path)

    def close(self):
        try:
            self.off()
        finally:
            self.image.unlink()


class Tmpfs:
    def __init__(self, folder, megabytes):
        self.path = pathlib.Path(folder) / "tmpfs"
        self.path.mkdir(parents=True, exist_ok=True)
        _call("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tailrace-fault", self.path)

    def fill(self):
        """Takes all space that is left; returns what gives it back."""
        ballast = self.path / "ballast"
        with open(ballast, "ab", buffering=0) as f:
            for size in (1 << 20, 4096):
                try:
                    while True:
                        f.write(b"\0" * size)
                except OSError:
                    pass
        return ballast.unlink

    def close(self):
        _call("umount", self.path)
