#!/usr/bin/env python3
"""An independent reader of Tailrace's queues, written from docs/FORMATS.md alone, with the standard library only.

    tailrace_queue.py verify DIR     what `tailrace queue verify --format json` says of state_dir/queue/<output>, but its name
    tailrace_queue.py cat DIR        what `tailrace queue cat --all --format json` (and --dead) says, without the entries
    tailrace_queue.py lines DIR      the lines themselves, decoded by wire form: one JSON string a line

Section numbers in comments are those of docs/FORMATS.md.
"""

import dataclasses
import json
import os
import re
import stat
import struct
import sys
import zlib

SEQ_MAX = 1 << 62
LENGTH_MAX = 64 << 20
SNAP_MAX = 256 << 20
LOOKED_AT = 256 << 20
DATA, SNAP, POS, SEAL, LOST = 1, 2, 3, 4, 5
MORE, DEAD, GAP, ALONE = 1, 2, 4, 8
ROUTE, FILE_, POS_, PART, GONE, COUNT, ORIG, RUNS, TOTAL, LETTER, HELD, GIVEN = 1, 2, 3, 4, 6, 8, 9, 10, 12, 17, 19, 21
TAG_LAST = 21  # higher ones are a newer Tailrace's
FATES = {1: "resent", 2: "dropped"}


class Bad(Exception):
    """Bytes that are not valid."""


def text(raw):
    return raw.decode("utf-8", "replace")


# --- the bytes of one file ------------------------------------------------------------------------------------------


def load(path):
    """The bytes of a regular file, at most what is looked at; None when there is none or it is something else."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return None, 0
        with open(path, "rb") as f:
            return f.read(LOOKED_AT), os.fstat(f.fileno()).st_size
    except OSError:
        return None, 0


@dataclasses.dataclass
class Head:  # §1
    uuid: bytes
    id: int
    first_seq: int
    fence: int
    created: int
    salt: int
    wire_form: int


def parse_head(data):
    if len(data) < 128:
        raise Bad
    magic, major, _minor, length, uuid, id_, first, fence, created, salt, form = struct.unpack_from("<8sHHI16sQQQqII", data)
    if magic != b"TRQSEG1\n" or struct.unpack_from("<I", data, 124)[0] != zlib.crc32(data[:124]):
        raise Bad
    if major != 1 or length != 128 or not 1 <= id_ <= SEQ_MAX or not 1 <= first <= SEQ_MAX or fence >= first:
        raise Bad
    return Head(uuid, id_, first, fence, created, salt, form)


@dataclasses.dataclass
class Frame:  # §2
    offset: int
    type: int
    flags: int
    seq: int
    synced_seq: int
    meta_len: int
    body_len: int
    raw_len: int
    lines: int
    built: int
    meta_crc: int
    body_crc: int

    @property
    def end(self):
        return self.offset + (64 + self.meta_len + self.body_len + 7) // 8 * 8


def parse_frame(data, at, salt):
    """The frame whose header stands at `at`, or None."""
    if data[at : at + 4] != b"TRF1" or at + 64 > len(data):
        return None
    (_, type_, flags, meta_off, seq, synced, meta_len, body_len, raw_len, lines, built, salted, meta_crc, body_crc,
     crc) = struct.unpack_from("<4sBBHQQIIIIqIIII", data, at)
    f = Frame(at, type_, flags, seq, synced, meta_len, body_len, raw_len, lines, built, meta_crc, body_crc)
    if crc != zlib.crc32(data[at : at + 60]) or type_ == 0 or meta_off != 64 or not 1 <= seq <= SEQ_MAX or synced >= seq:
        return None
    if meta_len > LENGTH_MAX or body_len > LENGTH_MAX or salted != salt or f.end > len(data):
        return None
    return f


def find(data, at, lowest, highest, salt):
    """§7.3: the first valid header at or after `at` with lowest <= seq <= highest."""
    while True:
        at = data.find(b"TRF1", at)
        if at < 0:
            return None
        if at % 8 == 0:
            f = parse_frame(data, at, salt)
            if f and lowest <= f.seq <= highest:
                return f
        at += 1


def meta_of(data, f):
    """The meta, of a SNAP inflated. Bad when its CRC is wrong."""
    raw = data[f.offset + 64 : f.offset + 64 + f.meta_len]
    if zlib.crc32(raw) != f.meta_crc:
        raise Bad
    if f.type != SNAP:
        return raw
    if len(raw) < 4:
        raise Bad
    length = struct.unpack_from("<I", raw)[0]
    inflater = zlib.decompressobj()
    try:
        out = inflater.decompress(raw[4:], min(length, SNAP_MAX) + 1)
    except zlib.error:
        raise Bad from None
    if length > SNAP_MAX or len(out) != length or not inflater.eof:
        raise Bad
    return out


def body_of(data, f):
    raw = data[f.offset + 64 + f.meta_len : f.offset + 64 + f.meta_len + f.body_len]
    if zlib.crc32(raw) != f.body_crc:
        raise Bad
    return raw


def items(meta):
    """(tag, bytes) of each known item; Bad where it cannot go on."""
    at = 0
    while at < len(meta):
        if at + 8 > len(meta):
            raise Bad
        tag, critical, _, length = struct.unpack_from("<BBHI", meta, at)
        at += 8
        if length > len(meta) - at:
            raise Bad
        if 1 <= tag <= TAG_LAST:
            yield tag, meta[at : at + length]
        elif critical:
            raise Bad
        at += length


def parse_count(raw):
    if len(raw) < 12:
        raise Bad
    lines, n = struct.unpack_from("<QH", raw)
    if lines > SEQ_MAX or n > len(raw) - 12:
        raise Bad
    return raw[12 : 12 + n], raw[12 + n :], lines


def parse_pos(raw):
    if len(raw) < 40:
        raise Bad
    incarnation, start, end, flags, head_crc, tail_crc, tail_len = struct.unpack_from("<QQQIIIH", raw)
    if start > end or end >= 1 << 63 or tail_len > 64:
        raise Bad
    return incarnation, start, end, flags, head_crc, tail_crc, tail_len


def parse_orig(raw):
    if len(raw) < 20:
        raise Bad
    seq, item, status, n = struct.unpack_from("<QIiH", raw)
    if n > len(raw) - 20:
        raise Bad
    return {"seq": seq, "item": None if item == 0xFFFFFFFF else item, "status": status, "reason": text(raw[20 : 20 + n]),
            "text": text(raw[20 + n :])}


def parse_letter(raw):
    if len(raw) < 24:
        raise Bad
    file, seq, fate = struct.unpack_from("<QQI", raw)
    if fate not in FATES:
        raise Bad
    return file, seq, FATES[fate]


# --- a directory ----------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class File:
    name: str
    id: int
    kind: str  # good, empty, damaged, foreign
    bytes: int
    data: bytes = b""
    head: Head = None
    fence: int = SEQ_MAX


def parse_cursor(data):  # §3
    best = None
    for at in (0, 4096):
        slot = data[at : at + 512]
        if len(slot) < 512 or slot[:8] != b"TRQCUR1\n" or struct.unpack_from("<I", slot, 508)[0] != zlib.crc32(slot[:508]):
            continue
        generation, uuid, acked = struct.unpack_from("<Q16sQ", slot, 8)
        if generation > SEQ_MAX or acked > SEQ_MAX:
            continue
        if best is None or generation > best[0]:
            best = generation, uuid, acked, int.from_bytes(slot[40:296], "little")
    return best


class Queue:
    def __init__(self, directory):
        self.directory = directory
        data, self.cursor_bytes = load(os.path.join(directory, "cursor"))
        self.cursor = parse_cursor(data or b"")
        self.segments = self._list("", ".seg")
        self.parked = self._list("parked/", ".parked")
        self.dead = self._list("dead/", ".dead")
        uuid = self._uuid()
        for f in self.segments + self.parked + self.dead:
            if f.kind == "good" and f.head.uuid != uuid:
                f.kind = "foreign"
        if self.cursor and self.cursor[1] != uuid:
            self.cursor = None
        fence = SEQ_MAX
        for f in reversed(self.segments):
            f.fence = fence
            if f.kind == "good":
                fence = min(fence, f.head.fence)
        fence = SEQ_MAX
        for f in reversed(self.dead):  # §4
            f.fence = fence
            if f.kind == "good":
                fence = f.head.fence or SEQ_MAX
        self.fates = {}
        given = {}
        for f in self.dead:
            for data, frame in self.frames(f):
                if frame.type == LOST:
                    self._take_fates(data, frame)
                if frame.type in (LOST, SNAP):
                    given = self._given(data, frame, given)
        self.given = [f for f in self.parked if f.id in given and (f.kind != "good" or f.head.first_seq == given[f.id])]
        self.parked = [f for f in self.parked if f not in self.given]

    def _list(self, folder, suffix):
        found = []
        try:
            names = os.listdir(os.path.join(self.directory, folder))
        except OSError:
            names = []
        for name in names:
            if not re.fullmatch(r"[0-9a-f]{16}" + re.escape(suffix), name):
                continue
            id_ = int(name[:16], 16)
            if not 1 <= id_ <= SEQ_MAX:
                continue
            data, size = load(os.path.join(self.directory, folder, name))
            f = File(folder + name, id_, "damaged" if data is None or size else "empty", size, data or b"")
            try:
                f.head = parse_head(f.data)
                if f.head.id == id_:
                    f.kind = "good"
            except Bad:
                pass
            found.append(f)
        return sorted(found, key=lambda f: f.id)

    def _uuid(self):
        """The cursor's if a segment has it, else that of most of the newest segments, the later of two (§1)."""
        uuids = [f.head.uuid for f in self.segments if f.kind == "good"]
        if self.cursor and (not uuids or self.cursor[1] in uuids):
            return self.cursor[1]
        uuids = uuids[-1024:]
        return max(uuids, key=lambda u: (uuids.count(u), max(i for i, x in enumerate(uuids) if x == u)), default=None)

    def _take_fates(self, data, frame):
        try:
            for tag, raw in items(meta_of(data, frame)):
                if tag == LETTER:
                    file, seq, fate = parse_letter(raw)
                    self.fates.setdefault((file, seq), fate)
        except Bad:
            pass

    def _given(self, data, frame, before):
        """{id: seq} of the parked files that are given up after this frame (§5)."""
        named = {}
        try:
            for tag, raw in items(meta_of(data, frame)):
                if tag == GIVEN and len(raw) >= 16:
                    named[int.from_bytes(raw[:8], "little")] = int.from_bytes(raw[8:16], "little")
        except Bad:
            return before
        return named if named or frame.type == SNAP else before

    def cursor_top(self):
        """The highest seq that is done; 0 without a cursor."""
        return self.cursor[2] + self.cursor[3].bit_length() if self.cursor else 0

    def is_acked(self, seq):
        if not self.cursor:
            return False
        beyond = seq - self.cursor[2] - 1
        return beyond < 0 or (beyond < 2048 and self.cursor[3] >> beyond & 1 == 1)

    def frames(self, f):
        """(data, frame) of one file, what is damaged stepped over."""
        here, due = 128, f.head.first_seq if f.head else 0
        while f.kind == "good" and due <= f.fence:
            frame = find(f.data, here, due, f.fence, f.head.salt)
            if frame is None:
                return
            yield f.data, frame
            here, due = frame.end, frame.seq + 1


# --- cat ------------------------------------------------------------------------------------------------------------


def describe(queue, f, data, frame, place):
    meta = meta_of(data, frame)
    try:
        body_of(data, frame)
        whole = True
    except Bad:
        whole = False
    got = {"file": f.name, "offset": frame.offset, "seq": frame.seq, "place": place, "whole": whole, "lines": frame.lines,
           "raw_bytes": frame.raw_len, "body_bytes": frame.body_len, "body_crc": f"{frame.body_crc:08x}",
           "built_ns": frame.built,
           "flags": [n for bit, n in ((MORE, "more"), (DEAD, "dead"), (GAP, "gap"), (ALONE, "alone")) if frame.flags & bit],
           "route": "", "rows": []}
    for tag, raw in items(meta):
        if tag == ROUTE:
            got["route"] = text(raw)
        elif tag == COUNT:
            input_, tenant, lines = parse_count(raw)
            got["rows"].append({"input": text(input_), "tenant": text(tenant), "lines": lines})
        elif tag == ORIG:
            got["orig"] = parse_orig(raw)
    if place == "dead":
        got["letter"] = f"{f.id}:{frame.seq}"
        got["fate"] = queue.fates.get((f.id, frame.seq), "open")
    return got


def cat(directory):
    """(description, wire form, body or None) of every DATA frame, as §7 says."""
    queue = Queue(directory)
    apart = sorted([(f, "parked") for f in queue.parked] + [(f, "given_up") for f in queue.given], key=lambda p: p[0].id)
    for files in ([(f, None) for f in queue.segments], apart, [(f, "dead") for f in queue.dead]):
        for f, kind in files:
            for data, frame in queue.frames(f):
                if frame.type != DATA:
                    continue
                place = kind or ("acked" if queue.is_acked(frame.seq) else "queued")
                try:
                    got = describe(queue, f, data, frame, place)
                except Bad:
                    continue
                yield got, f.head.wire_form, body_of(data, frame) if got["whole"] else None


# --- bodies ---------------------------------------------------------------------------------------------------------


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def unsnappy(data):
    size, at = varint(data, 0)
    out = bytearray()
    while at < len(data):
        tag = data[at]
        at += 1
        if tag & 3 == 0:
            n = tag >> 2
            if n >= 60:
                extra = n - 59
                n = int.from_bytes(data[at : at + extra], "little")
                at += extra
            out += data[at : at + n + 1]
            at += n + 1
            continue
        if tag & 3 == 1:
            n, back = (tag >> 2 & 7) + 4, (tag >> 5) << 8 | data[at]
            at += 1
        else:
            width = 2 if tag & 3 == 2 else 4
            n, back = (tag >> 2) + 1, int.from_bytes(data[at : at + width], "little")
            at += width
        for _ in range(n):
            out.append(out[-back])
    if len(out) != size:
        raise Bad
    return bytes(out)


def fields(data):
    """(number, value) of a protobuf message; only what a PushRequest has."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 2:
            n, at = varint(data, at)
            yield key >> 3, data[at : at + n]
            at += n
        elif key & 7 == 0:
            value, at = varint(data, at)
            yield key >> 3, value
        else:
            raise Bad


def gunzip(data):
    out = b""
    while data:
        member = zlib.decompressobj(31)
        out += member.decompress(data)
        if not member.eof:
            raise Bad
        data = member.unused_data
    return out


def body_lines(form, body):
    if form == 1:
        return [line for number, stream in fields(unsnappy(body)) if number == 1 for n, entry in fields(stream) if n == 2
                for k, line in fields(entry) if k == 2]
    plain = body if form == 5 else gunzip(body)
    lines = plain.split(b"\n")[:-1]
    return lines[1::2] if form == 3 else lines


# --- verify, §7 -----------------------------------------------------------------------------------------------------


def is_meant(meta):
    """Has this LOST frame the mark that its ranges are to be read again (§4)?"""
    try:
        return any(tag == HELD and raw == bytes(4) for tag, raw in items(meta))
    except Bad:
        return False


class Verify:
    def __init__(self, directory):
        self.queue = Queue(directory)
        self.problems = []
        self.frames = self.lines = self.ranges = self.rereads = 0
        self.ends = {}
        self.counts = None  # by (input, tenant); None: not known
        self.counted = {}
        self.has_frames = False
        self._segments()
        if not self.queue.cursor:
            self.say("cursor", 0, "cursor", self.queue.cursor_bytes)
        elif self.queue.cursor_top() > 0 and not self.has_frames:
            self.say("cursor", 0, "missing", self.queue.cursor_top())
        for f in self.queue.parked + self.queue.dead:
            if self._opens(f):
                self._alone(f)

    def say(self, file, offset, problem, number):
        self.problems.append({"file": file, "offset": offset, "problem": problem, "number": number})

    def _opens(self, f):
        if f.kind == "damaged":
            self.say(f.name, 0, "header", f.bytes)
        elif f.kind == "foreign":
            self.say(f.name, 0, "foreign", f.bytes)
        return f.kind == "good"

    def _segments(self):
        good = [f for f in self.queue.segments if f.kind == "good"]
        before = 0
        for f in self.queue.segments:
            if not self._opens(f):
                continue
            if f.head.first_seq <= before:
                self.say(f.name, 0, "order", f.head.first_seq)
            before = f.head.first_seq
            self._segment(f, f is good[-1])

    def _segment(self, f, is_newest):
        here, due = 128, f.head.first_seq
        for data, frame in self.queue.frames(f):
            self.has_frames = True
            if frame.seq != due or frame.offset != here:
                self.counts = None
                self.say(f.name, here, "bytes", frame.offset - here)
            here, due = frame.end, frame.seq + 1
            self._frame(f, data, frame)
        last = self.queue.cursor_top() if is_newest else f.fence
        if due <= last:
            self.counts = None
            self.say(f.name, here, "missing", last - due + 1)

    def _frame(self, f, data, frame):
        try:
            meta = meta_of(data, frame)
        except Bad:
            self.counts = None
            self.say(f.name, frame.offset, "meta", frame.seq)
            return
        try:
            body_of(data, frame)
        except Bad:
            self.say(f.name, frame.offset, "body", frame.seq)
        if frame.type == DATA:
            self.frames += 1
            self.lines += frame.lines
        said, sum_ = {}, 0
        is_state = frame.type in (SNAP, SEAL)
        try:
            for tag, raw in items(meta):
                if tag == COUNT and is_state:
                    input_, tenant, lines = parse_count(raw)
                    said[input_, tenant] = lines
                elif tag == COUNT:
                    sum_ += self._count(raw)
                elif tag == POS_:
                    self._position(f, frame, raw)
        except Bad:
            self.say(f.name, frame.offset, "items", frame.seq)
            return
        if frame.type == DATA and sum_ != frame.lines:
            self.say(f.name, frame.offset, "rows", frame.seq)
        if is_state:
            self._state(f, frame, said)

    def _count(self, raw):
        try:
            input_, tenant, lines = parse_count(raw)
        except Bad:
            return 0
        if self.counts is not None:
            self.counts[input_, tenant] = self.counts.get((input_, tenant), 0) + lines
        return lines

    def _position(self, f, frame, raw):
        try:
            incarnation, start, end = parse_pos(raw)[:3]
        except Bad:
            self.say(f.name, frame.offset, "items", frame.seq)
            return
        self.ranges += 1
        if frame.flags & GAP:
            return
        begins = end if frame.type in (SNAP, SEAL) else start
        if self.ends.get(incarnation, begins) != begins:
            self.say(f.name, frame.offset, "chain", incarnation)
        self.ends[incarnation] = end

    def _state(self, f, frame, said):
        if self.counts is not None:
            for key, lines in said.items():
                counted = self.counts.get(key, 0)
                if counted != lines:
                    self.say(f.name, frame.offset, "snap" if frame.type == SNAP else "seal", abs(lines - counted))
        self.counts = dict(said)

    def _alone(self, f):
        here = 128
        for data, frame in self.queue.frames(f):
            if frame.offset != here:
                self.say(f.name, here, "bytes", frame.offset - here)
            here = frame.end
            try:
                meta = meta_of(data, frame)
            except Bad:
                self.say(f.name, frame.offset, "meta", frame.seq)
                continue
            if f.name.endswith(".dead") and frame.type == LOST and (f.id, frame.seq) not in self.queue.fates:
                self.rereads += is_meant(meta)
            try:
                body_of(data, frame)
            except Bad:
                self.say(f.name, frame.offset, "body", frame.seq)

    def result(self):
        return {"problems": self.problems, "segments": len(self.queue.segments), "frames": self.frames, "lines": self.lines,
                "ranges": self.ranges, "rereads": self.rereads, "n_problems": len(self.problems)}


def verify(directory):
    return Verify(directory).result()


def main(argv):
    if len(argv) != 3 or argv[1] not in ("verify", "cat", "lines"):
        print(__doc__, file=sys.stderr)
        return 2
    if argv[1] == "verify":
        got = verify(argv[2])
        print(json.dumps(got))
        return 1 if got["n_problems"] else 0
    for got, form, body in cat(argv[2]):
        if argv[1] == "cat":
            print(json.dumps(got))
        elif body is not None:
            for line in body_lines(form, body):
                print(json.dumps(text(line)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
