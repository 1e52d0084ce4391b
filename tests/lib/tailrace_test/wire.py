"""The wire formats, decoded (and for tests encoded) in plain Python, independent of the agent's own code.

Loki: a snappy block around the protobuf PushRequest. Elasticsearch: newline-delimited JSON, often gzip.
"""

import collections
import json
import zlib

Entry = collections.namedtuple("Entry", "ts line metadata")  # ns, bytes, dict
Stream = collections.namedtuple("Stream", "labels text entries")  # dict, label string as sent, [Entry]
BulkItem = collections.namedtuple("BulkItem", "action meta doc")  # "create", {"_index": ..}, bytes

MAX_DECODED = 256 << 20


class WireError(ValueError):
    """The bytes are not what the format allows."""


# --- varint and snappy -------------------------------------------------------------------------------


def varint(data, at):
    value = shift = 0
    while True:
        if at >= len(data):
            raise WireError("varint cut off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= 1 << 64:
                raise WireError("varint above 64 bits")
            return value, at
        shift += 7
        if shift > 63:
            raise WireError("varint longer than 10 bytes")


def put_varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def snappy_decompress(data):
    """The snappy block format (not the framed one)."""
    want, at = varint(data, 0)
    if want > MAX_DECODED:
        raise WireError(f"snappy block announces {want} bytes")
    out = bytearray()
    size = len(data)
    while at < size:
        tag = data[at]
        at += 1
        kind = tag & 3
        if kind == 0:
            length = tag >> 2
            if length >= 60:
                extra = length - 59
                if at + extra > size:
                    raise WireError("literal length cut off")
                length = int.from_bytes(data[at : at + extra], "little")
                at += extra
            length += 1
            if at + length > size:
                raise WireError("literal runs past the end")
            out += data[at : at + length]
            at += length
        else:
            if kind == 1:
                length, width = 4 + (tag >> 2 & 7), 1
            else:
                length, width = (tag >> 2) + 1, 2 if kind == 2 else 4
            if at + width > size:
                raise WireError("copy offset cut off")
            offset = int.from_bytes(data[at : at + width], "little")
            at += width
            if kind == 1:
                offset |= (tag >> 5) << 8
            if not 0 < offset <= len(out):
                raise WireError(f"copy offset {offset} with {len(out)} bytes produced")
            start = len(out) - offset
            if offset >= length:
                out += out[start : start + length]
            else:  # overlapping: a repeated pattern
                pattern = bytes(out[start:])
                out += (pattern * (length // offset + 1))[:length]
        if len(out) > want:
            raise WireError("more bytes than announced")
    if len(out) != want:
        raise WireError(f"{len(out)} bytes instead of the announced {want}")
    return bytes(out)


def snappy_compress(data):
    """A valid block of literals only: no compression."""
    out = bytearray(put_varint(len(data)))
    for at in range(0, len(data), 65536):
        piece = data[at : at + 65536]
        n = len(piece) - 1
        if n < 60:
            out.append(n << 2)
        elif n < 256:
            out += bytes((60 << 2, n))
        else:
            out.append(61 << 2)
            out += n.to_bytes(2, "little")
        out += piece
    return bytes(out)


# --- protobuf ----------------------------------------------------------------------------------------


def fields(data):
    """Yields (number, wire type, value) of a protobuf message."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise WireError("field number 0")
        if kind == 0:
            value, at = varint(data, at)
        elif kind == 2:
            length, at = varint(data, at)
            if at + length > len(data):
                raise WireError(f"field {number} runs past its message")
            value = data[at : at + length]
            at += length
        elif kind in (1, 5):
            width = 8 if kind == 1 else 4
            if at + width > len(data):
                raise WireError(f"field {number} cut off")
            value = data[at : at + width]
            at += width
        else:
            raise WireError(f"wire type {kind}")
        yield number, kind, value


def _need(kind, want, what):
    if kind != want:
        raise WireError(f"{what}: wire type {kind} instead of {want}")


def _decode_entry(data):
    seconds = nanos = 0
    line = b""
    metadata = {}
    for number, kind, value in fields(data):
        if number == 1:
            _need(kind, 2, "timestamp")
            for n, k, v in fields(value):
                _need(k, 0, "timestamp part")
                if n == 1:
                    seconds = v - (1 << 64) if v >> 63 else v
                elif n == 2:
                    nanos = v
            if not 0 <= nanos < 1_000_000_000:
                raise WireError(f"nanos {nanos}")
        elif number == 2:
            _need(kind, 2, "line")
            line = bytes(value)
        elif number == 3:
            _need(kind, 2, "metadata")
            pair = {1: b"", 2: b""}
            for n, k, v in fields(value):
                _need(k, 2, "metadata pair")
                pair[n] = bytes(v)
            name = pair[1].decode()
            if name in metadata:
                raise WireError(f"metadata {name!r} twice")
            metadata[name] = pair[2].decode()
        else:
            raise WireError(f"entry field {number}")
    return Entry(seconds * 1_000_000_000 + nanos, line, metadata)


def decode_push(data):
    """A PushRequest (after snappy) as a list of Stream. Strict: unknown fields are errors."""
    streams = []
    for number, kind, value in fields(data):
        if number != 1:
            raise WireError(f"PushRequest field {number}")
        _need(kind, 2, "stream")
        text, entries = "", []
        for n, k, v in fields(value):
            if n == 1:
                _need(k, 2, "labels")
                text = bytes(v).decode()
            elif n == 2:
                _need(k, 2, "entry")
                entries.append(_decode_entry(v))
            else:
                raise WireError(f"stream field {n}")
        streams.append(Stream(parse_labels(text), text, entries))
    return streams


def _message(number, payload):
    return put_varint(number << 3 | 2) + put_varint(len(payload)) + payload


def encode_push(streams):
    """streams: [(labels dict or text, [(ts_ns, line, metadata dict)])] to a PushRequest, before snappy."""
    out = b""
    for labels, entries in streams:
        text = labels if isinstance(labels, str) else format_labels(labels)
        body = _message(1, text.encode())
        for ts, line, metadata in entries:
            stamp = b"\x08" + put_varint(ts // 1_000_000_000) + b"\x10" + put_varint(ts % 1_000_000_000)
            entry = _message(1, stamp) + _message(2, line if isinstance(line, bytes) else line.encode())
            for name, value in metadata.items():
                entry += _message(3, _message(1, name.encode()) + _message(2, value.encode()))
            body += _message(2, entry)
        out += _message(1, body)
    return out


# --- labels ------------------------------------------------------------------------------------------

_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"'}
_NAME_FIRST = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_NAME = _NAME_FIRST | set("0123456789")


def _quoted(text, at):
    out = bytearray()
    while True:
        if at >= len(text):
            raise WireError("label value without its closing quote")
        c = text[at]
        at += 1
        if c == '"':
            try:
                return out.decode(), at
            except UnicodeDecodeError as e:
                raise WireError(f"label value is not UTF-8: {e}") from e
        if c == "\n":
            raise WireError("newline in a label value")
        if c != "\\":
            out += c.encode()
            continue
        if at >= len(text):
            raise WireError("label value ends in a backslash")
        e = text[at]
        at += 1
        if e in _ESCAPES:
            out += _ESCAPES[e].encode()
            continue
        width, base = {"x": (2, 16), "u": (4, 16), "U": (8, 16)}.get(e, (3, 8))
        if base == 8:
            at -= 1
        digits = text[at : at + width]
        try:
            if len(digits) != width:
                raise ValueError
            code = int(digits, base)
        except ValueError:
            raise WireError(f"unknown escape \\{e}") from None
        at += width
        if e in "uU":
            if code > 0x10FFFF or 0xD800 <= code < 0xE000:
                raise WireError(f"escape \\{e}{digits} is no character")
            out += chr(code).encode()
        else:
            out.append(code & 0xFF)


def parse_labels(text):
    """Loki's label string {a="v", b="w"} as a dict, by the rules of its own parser."""
    if not text.startswith("{"):
        raise WireError(f"labels without '{{': {text!r}")
    labels, at = {}, 1
    while True:
        while text[at : at + 1] in (" ", ","):
            at += 1
        if text[at : at + 1] == "}":
            break
        start = at
        while text[at : at + 1] and text[at] in _NAME:
            at += 1
        name = text[start:at]
        if not name or name[0] not in _NAME_FIRST or text[at : at + 2] != '="':
            raise WireError(f"bad label name at {start} in {text!r}")
        if name in labels:
            raise WireError(f"label {name} twice")
        value, at = _quoted(text, at + 2)
        if "\ufffd" in value:
            raise WireError(f"label {name} holds U+FFFD, which Loki refuses")
        labels[name] = value
        if text[at : at + 1] not in (" ", ",", "}"):
            raise WireError(f"no comma at {at} in {text!r}")
    if at + 1 != len(text):
        raise WireError(f"text after the labels: {text!r}")
    if not labels:
        raise WireError("no label at all")
    return labels


def format_labels(labels):
    def quote(value):
        return "".join(
            "\\" + c if c in '\\"' else f"\\x{ord(c):02x}" if ord(c) < 32 else c for c in value
        )

    return "{" + ", ".join(f'{n}="{quote(labels[n])}"' for n in sorted(labels)) + "}"


# --- bodies ------------------------------------------------------------------------------------------


def gunzip(data):
    """All members of a gzip stream; a cut one is an error."""
    out = bytearray()
    while data:
        d = zlib.decompressobj(wbits=31)
        try:
            out += d.decompress(data, MAX_DECODED)
        except zlib.error as e:
            raise WireError(f"gzip: {e}") from e
        if not d.eof:
            raise WireError("gzip stream cut off" if not d.unconsumed_tail else "gzip stream too large")
        data = d.unused_data
    return bytes(out)


def decode_loki(body, content_type="application/x-protobuf", encoding=""):
    """The body of a push request, protobuf or JSON, as a list of Stream."""
    if encoding == "gzip":
        body = gunzip(body)
    elif encoding not in ("", "snappy"):
        raise WireError(f"Loki does not take Content-Encoding {encoding!r}")
    if content_type.split(";")[0].strip() == "application/json":
        streams = []
        for s in json.loads(body)["streams"]:
            entries = []
            for v in s["values"]:
                if not isinstance(v[0], str):
                    raise WireError("timestamp is not a string")
                entries.append(Entry(int(v[0]), v[1].encode(), v[2] if len(v) > 2 else {}))
            streams.append(Stream(s["stream"], format_labels(s["stream"]), entries))
        return streams
    if not content_type:
        raise WireError("no Content-Type")
    return decode_push(snappy_decompress(body))


def decode_bulk(body, encoding=""):
    """The body of a _bulk request as a list of BulkItem; doc is the source's bytes as sent (None for delete)."""
    if encoding == "gzip":
        body = gunzip(body)
    elif encoding:
        raise WireError(f"Content-Encoding {encoding!r}")
    if not body.endswith(b"\n"):
        raise WireError("The bulk request must be terminated by a newline")
    lines = body[:-1].split(b"\n")
    items, at = [], 0
    while at < len(lines):
        if not lines[at]:
            at += 1
            continue
        try:
            head = json.loads(lines[at])
            ((action, meta),) = head.items()
        except (ValueError, AttributeError) as e:
            raise WireError(f"action line {at + 1}: {lines[at][:200]!r}: {e}") from e
        if action not in ("create", "index", "update", "delete"):
            raise WireError(f"action {action!r}")
        at += 1
        doc = None
        if action != "delete":
            if at >= len(lines):
                raise WireError("action without its document")
            doc = lines[at]
            at += 1
        items.append(BulkItem(action, meta, doc))
    return items
