"""A child process with its output in files, stopped by its pid and awaited."""

import atexit
import os
import signal
import subprocess

_alive = set()


@atexit.register
def _kill_left():
    for p in list(_alive):
        p.kill()


def tail(path, lines=50):
    """The last lines of a file, as text."""
    try:
        with open(path, "rb") as f:
            f.seek(max(0, os.fstat(f.fileno()).st_size - 65536))
            return "\n".join(f.read().decode("utf-8", "replace").splitlines()[-lines:])
    except OSError as e:
        return f"({e})"


class Process:
    """argv runs at once, stdout and stderr appended to BASE.out and BASE.err."""

    def __init__(self, argv, base, env=None, cwd=None):
        self.argv = [str(a) for a in argv]
        self.out, self.err = f"{base}.out", f"{base}.err"
        with open(self.out, "ab") as out, open(self.err, "ab") as err:
            self.popen = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=env, cwd=cwd
            )
        self.pid = self.popen.pid
        _alive.add(self)

    @property
    def code(self):
        """None while it runs, else the exit code (negative: the signal)."""
        code = self.popen.poll()
        if code is not None:
            _alive.discard(self)
        return code

    def running(self):
        return self.code is None

    def signal(self, sig):
        if self.running():
            self.popen.send_signal(sig)

    def wait(self, timeout):
        """The exit code. A process that does not end is killed, and that is a failure."""
        try:
            code = self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(
                f"{self.argv[0]} (pid {self.pid}) did not end within {timeout:g} s and was killed\n{tail(self.err)}"
            ) from None
        _alive.discard(self)
        return code

    def stop(self, timeout=30):
        """SIGTERM and wait; the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def kill(self):
        """SIGKILL and wait; the exit code."""
        self.signal(signal.SIGKILL)
        code = self.popen.wait()
        _alive.discard(self)
        return code

    def describe(self):
        state = "runs" if self.running() else f"ended with {self.code}"
        return f"{self.argv[0]} (pid {self.pid}) {state}\n{tail(self.out, 10)}\n{tail(self.err)}"

    # What the kernel counts, for tests of memory and idle cost.
    def _proc(self, name):
        with open(f"/proc/{self.pid}/{name}", encoding="ascii") as f:
            return f.read()

    def memory(self):
        """Bytes by kind: VmRSS, RssAnon, RssFile, VmHWM ..."""
        found = {}
        for line in self._proc("status").splitlines():
            key, _, value = line.partition(":")
            if value.strip().endswith("kB"):
                found[key] = int(value.split()[0]) * 1024
        return found

    def cpu_seconds(self):
        fields = self._proc("stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))
