"""The Prometheus text format, parsed."""

import re

_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"(?:,|$)')
_ESCAPE = re.compile(r"\\(.)")


def parse(text):
    """{(name, frozenset of (label, value)): float}. A series that appears twice is an error."""
    found = {}
    for line in text.split("\n"):
        if not line or line[0] == "#":
            continue
        brace = line.find("{")
        if brace >= 0:
            name, end = line[:brace], line.rindex("}")
            inside, rest = line[brace + 1 : end], line[end + 1 :]
            labels, at = [], 0
            while at < len(inside):
                m = _LABEL.match(inside, at)
                if not m:
                    raise ValueError(f"bad labels: {line!r}")
                labels.append((m[1], _ESCAPE.sub(lambda e: {"n": "\n"}.get(e[1], e[1]), m[2])))
                at = m.end()
        else:
            name, _, rest = line.partition(" ")
            labels = []
        key = name, frozenset(labels)
        if key in found:
            raise ValueError(f"series twice: {line!r}")
        found[key] = float(rest.split()[0])
    return found


def total(samples, name, **labels):
    """The sum of all series of that name that carry these labels; 0 when there is none."""
    want = set((k, str(v)) for k, v in labels.items())
    return sum(v for (n, l), v in samples.items() if n == name and want <= l)
