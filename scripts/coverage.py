#!/usr/bin/env python3
"""coverage.py BUILD [FILE...]: lines and branches that the tests took, a table per file, from gcov's counts in BUILD.

Assertions are left out: no test takes the other side of one. Without FILEs: those that must not lose a line (queue,
damage read again, recovery, cursor, who a file is, what a reply means); exit 1 when together they are below 95 % of lines or 90 % of branches.
With FILEs: these, and every line and branch of them that was never taken.
"""
import gzip, json, pathlib, re, subprocess, sys, tempfile

GROUPS = {
    "queue": ["agent/queue/" + n for n in ("ack.c", "dead.c", "dead_read.c", "frame.c", "fs.c", "loss.c", "open.c",
                                            "parked.c", "positions.c", "queue.c", "reader.c", "segment.c", "stock.c", "totals.c")],
    "re-reading": ["agent/queue/gaps.c", "agent/queue/letters.c", "agent/queue/rereads.c", "agent/reread.c"],
    "recovery": ["agent/queue/" + n for n in ("recover.c", "recover_files.c", "recover_heads.c", "recover_missing.c", "recover_report.c",
                                              "replay.c", "scan.c")],
    "cursor": ["agent/queue/cursor.c"],
    "identity": ["agent/tail/" + n for n in ("adopt.c", "catchup.c", "gz.c", "ident.c", "resume.c", "rotate.c", "text.c")],
    "replies": ["agent/deliver/verdict.c", "outputs/es_reply.c", "outputs/loki_reply.c"],
}
LINES, BRANCHES = 95.0, 90.0


def assert_lines(path):
    """Numbers of the lines that an assertion stands on."""
    found, depth = set(), 0
    for number, text in enumerate(pathlib.Path(path).read_text().splitlines(), 1):
        start = re.search(r"\bassert\(", text)
        if depth == 0 and not start:
            continue
        found.add(number)
        part = text[start.start():] if depth == 0 else text
        depth += part.count("(") - part.count(")")
    return found


def counts(build, path):
    """{line: (count, [branch counts])} of one source; a line of several functions or copies is taken when one was."""
    data = build / path.replace(".c", ".gcda")
    if not data.exists():
        return {}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["gcov", "--json-format", "--branch-probabilities", str(data.resolve())], cwd=folder, check=True,
                       stdout=subprocess.DEVNULL)
        reports = [json.loads(gzip.open(f).read()) for f in pathlib.Path(folder).glob("*.gcov.json.gz")]
    lines = {}
    skipped = assert_lines(path)
    for report in reports:
        for file in report["files"]:
            if not file["file"].endswith(path):
                continue
            for line in file["lines"]:
                if line["line_number"] in skipped:
                    continue
                taken = [b["count"] for b in line["branches"]]
                had = lines.get(line["line_number"])
                if had:
                    taken = [max(p) for p in zip(had[1], taken)] if len(had[1]) == len(taken) else had[1] + taken
                lines[line["line_number"]] = (max(line["count"], had[0] if had else 0), taken)
    return lines


def percent(part, whole):
    return 100.0 * part / whole if whole else 100.0


def row(name, lines):
    n, b = len(lines), [c for _, branches in lines.values() for c in branches]
    taken, taken_b = sum(1 for c, _ in lines.values() if c), sum(1 for c in b if c)
    print(f"  {name:34} {percent(taken, n):6.1f} % of {n:5} lines  {percent(taken_b, len(b)):6.1f} % of {len(b):5} branches")
    return taken, n, taken_b, len(b)


def gaps(path, lines):
    text = pathlib.Path(path).read_text().splitlines()
    for number in sorted(lines):
        count, branches = lines[number]
        missed = sum(1 for c in branches if not c)
        if count == 0 or missed:
            what = "never" if count == 0 else f"{missed} of {len(branches)}"
            print(f"    {path}:{number}: {what:8} {text[number - 1].strip()[:110]}")


def main():
    build, wanted = pathlib.Path(sys.argv[1]), sys.argv[2:]
    if wanted:
        for path in wanted:
            lines = counts(build, path)
            row(path, lines)
            gaps(path, lines)
        return 0
    total = [0, 0, 0, 0]
    for group, paths in GROUPS.items():
        print(group)
        for path in paths:
            if pathlib.Path(path).exists():
                total = [a + b for a, b in zip(total, row(path, counts(build, path)))]
    lines, branches = percent(total[0], total[1]), percent(total[2], total[3])
    print(f"all: {lines:.1f} % of lines (at least {LINES:.0f}), {branches:.1f} % of branches (at least {BRANCHES:.0f})")
    return 0 if lines >= LINES and branches >= BRANCHES else 1


if __name__ == "__main__":
    sys.exit(main())
