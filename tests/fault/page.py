"""The page that a run shares with the shim; see shim.h for what each field means."""

import ctypes
import mmap
import os


class _Count(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char * 24), ("n", ctypes.c_uint64)]


class _Page(ctypes.Structure):
    _fields_ = [
        ("armed", ctypes.c_uint32), ("hits", ctypes.c_uint32), ("nth", ctypes.c_uint64), ("matched", ctypes.c_uint64),
        ("times", ctypes.c_uint64), ("clock_offset_ns", ctypes.c_int64), ("clock_frozen_ns", ctypes.c_int64),
        ("action", ctypes.c_char * 16), ("err", ctypes.c_int32), ("delay_ms", ctypes.c_uint32), ("pad0", ctypes.c_uint64),
        ("calls", ctypes.c_char * 400), ("where", ctypes.c_char * 24), ("roots", (ctypes.c_char * 128) * 3),
        ("hit_call", ctypes.c_char * 24), ("hit_thread", ctypes.c_char * 16), ("hit_path", ctypes.c_char * 224),
        ("pad1", ctypes.c_uint64 * 95), ("counts", _Count * 50),
    ]


assert ctypes.sizeof(_Page) <= 4096 and _Page.counts.offset == 1912

NEVER = 1 << 62  # the nth call that no run reaches: to count


class Page:
    """Of one run of the agent: env() for its start, arm() for a fault, lift() ends it."""

    def __init__(self, path, shim, state, logs, archive):
        self.path, self.shim = str(path), str(shim)
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        os.ftruncate(fd, 4096)
        self._map = mmap.mmap(fd, 4096)
        os.close(fd)
        self._page = _Page.from_buffer(self._map)
        for i, root in enumerate((state, logs, archive)):
            self._page.roots[i].value = os.path.realpath(root).encode()

    def env(self):
        return {"LD_PRELOAD": self.shim, "TAILRACE_SHIM": self.path}

    def arm(self, calls, where, action, nth, times=1, err=0, delay_ms=0):
        """calls, where: sequences of names. From now on the nth matching call is hit, and times - 1 after it (0: all)."""
        p = self._page
        p.armed = 0
        p.calls, p.where, p.action = ",".join(calls).encode(), ",".join(where).encode(), action.encode()
        p.nth, p.times, p.err, p.delay_ms, p.matched = nth, times, err, delay_ms, 0
        p.armed = 1

    def lift(self):
        self._page.armed = 0

    def set_clock(self, offset_ns=0, frozen_ns=0):
        self._page.clock_offset_ns, self._page.clock_frozen_ns = offset_ns, frozen_ns

    @property
    def matched(self):
        return self._page.matched

    @property
    def hits(self):
        return self._page.hits

    @property
    def hit(self):
        """The first call that was hit, in words."""
        p = self._page
        return f"{p.hit_call.decode()} of {p.hit_path.decode() or '-'} in {p.hit_thread.decode()}" if p.hits else "none"

    def counts(self):
        """{call: how often}"""
        return {c.name.decode(): c.n for c in self._page.counts if c.n}
