"""The programs that log: numbered lines with a check sum in files of three tenants, rotated in every way.

Tenant t1 writes JSON to files that are renamed away, t2 to one that is copied and truncated, t3 through a container
runtime (CRI, some records in two parts).
"""

import base64
import datetime
import json
import os
import pathlib
import random
import shutil
import zlib

# Messages are pieces of this: they compress badly, and cost little to make.
TEXT = base64.b85encode(random.Random(1).randbytes(1 << 20)).decode()
TENANTS = ("t1", "t2", "t3")


def line_id(line):
    """The number after "seq": without decoding the rest; -1 when there is none."""
    at = line.find(b'"seq":')
    if at < 0:
        return -1
    end = at + 6
    while line[end : end + 1].isdigit():
        end += 1
    return int(line[at + 6 : end] or -1)


def check_sum(seq, message):
    return f"{zlib.crc32(f'{seq}:{message}'.encode()):08x}"


class World:
    def __init__(self, logs, seed, width=120):
        self.logs = pathlib.Path(logs)
        self.random = random.Random(seed)
        self.width = width  # the longest message
        self.tenant_of = []  # by number
        self.perishable = set()  # numbers whose file was deleted: if the agent dies then, nobody can have them
        self.durable = set()  # numbers that were synced with their file
        self.vanished = set()  # numbers that a power cut took from their file
        self.shortened = set()  # numbers whose file lost its end to a cut: it is read anew, under other ids
        self.is_torn = False  # a cut left half a line
        self._in_file = {}  # path -> numbers in it
        for t in TENANTS:
            (self.logs / t).mkdir(parents=True, exist_ok=True)

    def __len__(self):
        return len(self.tenant_of)

    def in_file(self, name):
        """The numbers of the lines in it."""
        return self._in_file.get(self.path(name), [])

    def path(self, name):
        """name: "t1/app" """
        return self.logs / f"{name}.log"

    def _line(self, tenant):
        seq = len(self.tenant_of)
        self.tenant_of.append(tenant)
        n = self.random.randrange(self.width // 4, self.width)
        at = self.random.randrange(len(TEXT) - n)
        message = TEXT[at : at + n]
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        text = json.dumps({"ts": now, "level": "info", "seq": seq, "message": message, "crc": check_sum(seq, message)},
                          separators=(",", ":"))
        if tenant != "t3":
            return seq, text + "\n"
        if seq % 7:
            return seq, f"{now} stdout F {text}\n"
        half = len(text) // 2
        return seq, f"{now} stdout P {text[:half]}\n{now} stdout F {text[half:]}\n"

    def append(self, name, lines, sync=False, torn=False):
        """torn: the last line is left without its second half; finish() completes it."""
        path, data, new = self.path(name), [], []
        for _ in range(lines):
            seq, text = self._line(name.partition("/")[0])
            data.append(text)
            new.append(seq)
        rest = ""
        if torn:
            cut = len(data[-1]) // 3
            data[-1], rest = data[-1][:cut], data[-1][cut:]
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, "".join(data).encode())
            if sync:
                os.fdatasync(fd)
                self.durable.update(self._in_file.get(path, []))
                self.durable.update(new if not torn else new[:-1])
        finally:
            os.close(fd)
        self._in_file.setdefault(path, []).extend(new)
        return rest

    def finish(self, name, rest):
        with open(self.path(name), "a", encoding="ascii") as f:
            f.write(rest)

    def look_what_is_left(self):
        """After a power cut: which lines are still in their files. Half a line that is left gets its newline, as if by the
        next line of the program. Not for files with records in two parts."""
        for path, numbers in self._in_file.items():
            data = path.read_bytes() if path.exists() else b""
            left = {line_id(line) for line in data.split(b"\n")[:-1] if line.endswith(b"}")}
            gone = set(numbers) - left
            assert not gone & self.durable, f"synced lines are gone: {sorted(gone & self.durable)[:5]}"
            self.vanished |= gone
            if gone:
                self.shortened |= set(numbers)
            self._in_file[path] = [n for n in numbers if n in left]
            if data and not data.endswith(b"\n"):
                self.is_torn = True
                with open(path, "ab") as f:
                    f.write(b"\n")

    def _away(self, path):
        """The name for the rotated file, free: .1 becomes .2 and so on, as logrotate does it."""
        def name(i):
            return path.with_name(f"{path.name}.{i}")

        last = 1
        while name(last).exists():
            last += 1
        for i in range(last, 1, -1):
            os.rename(name(i - 1), name(i))
            self._in_file[name(i)] = self._in_file.pop(name(i - 1), [])
        return name(1)

    def rotate(self, name):
        """The file gets another name; the next append makes a new one."""
        path = self.path(name)
        away = self._away(path)
        os.rename(path, away)
        self._in_file[away] = self._in_file.pop(path, [])

    def copytruncate(self, name):
        """Nothing is written between copy and truncation: each line is in a file all the time."""
        path = self.path(name)
        away = self._away(path)
        shutil.copyfile(path, away)
        os.truncate(path, 0)
        self._in_file[away] = self._in_file.pop(path, [])

    def delete(self, name):
        path = self.path(name)
        os.unlink(path)
        gone = self._in_file.pop(path, [])
        self.perishable.update(gone)
        return gone
