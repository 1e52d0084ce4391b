#!/usr/bin/env python3
"""coverage.py BUILD [FILE...]: lines and branches that the tests took, a table per file, from gcov's counts in BUILD.

Assertions are left out: no test takes the other side of one. Without FILEs: those that must not lose a line (queue,
damage read again, recovery, cursor, who a file is, what a reply means); exit 1 when together they are below 95 % of lines or 90 % of branches.
With FILEs: these, and every line and branch of them that was never taken.
coverage.py --groups: no counts; exit 1 when a source of the folders it knows is in none of its lists (part of `make check`).
"""
import gzip, json, pathlib, re, subprocess, sys, tempfile


def of(folder, names):
    return [f"{folder}/{name}.c" for name in names.split()]


GROUPS = {
    "queue": of("agent/queue", "ack dead dead_read frame fs given loss missed open parked positions queue reader segment stock totals"),
    "re-reading": of("agent/queue", "gaps letters rereads") + of("agent/tail", "again") + of("agent", "reread"),
    "recovery": of("agent/queue", "recover recover_files recover_heads recover_missing recover_report replay scan"),
    "cursor": of("agent/queue", "cursor"),
    "identity": of("agent/tail", "adopt catchup cutback gz ident names resume rotate siblings text twins"),
    "replies": of("agent/deliver", "halves sorting verdict") + of("outputs", "es_reply loki_reply"),
}
# The other files of the same folders. Each .c of them stands here or above: a new one is not forgotten.
OTHERS = (
    of("agent/queue", "inspect verify view")  # the command line's, which only reads
    + of("agent/tail", "asleep begin block dirs discover fds file held inputs pass pattern read stall status table tail told watch")
    + of("agent/deliver", "auth backoff dead delivery http jobs lane local park pem pending probe sender shipment status")
    + of("outputs", "bodies elasticsearch enrich es_template es_wire file file_archive file_chain file_journal file_keep file_path"
                    " file_recover file_series file_state file_store loki loki_streams loki_wire ndjson stdout")
    + of("agent", "agent engine feeder join line_counters lines main metadata notify pace pipeline reader registry source stall"
                  " tally temporary writer")
)
LINES, BRANCHES = 95.0, 90.0


def misplaced():
    """What is wrong with the two lists above: a sentence each."""
    listed = [path for paths in GROUPS.values() for path in paths] + OTHERS
    there = {str(path) for folder in {pathlib.Path(p).parent for p in listed} for path in folder.glob("*.c")}
    return ([f"{path} is in no group of scripts/coverage.py, and not among the others" for path in sorted(there - set(listed))]
            + [f"{path} of scripts/coverage.py is no file" for path in sorted(set(listed) - there)]
            + [f"{path} stands twice in scripts/coverage.py" for path in sorted({p for p in listed if listed.count(p) > 1})])


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
    """{line: (count, [branch counts])} of one source; a line of several functions or copies is taken when one was. Of a source that
    no test is linked with there are no counts: gcov takes them as 0."""
    data = build / path.replace(".c", ".gcno")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["gcov", "--json-format", "--branch-probabilities", str(data.resolve())], cwd=folder, check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
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
    if wrong := misplaced():
        sys.exit("\n".join(wrong))
    if sys.argv[1] == "--groups":
        return 0
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
            total = [a + b for a, b in zip(total, row(path, counts(build, path)))]
    lines, branches = percent(total[0], total[1]), percent(total[2], total[3])
    print(f"all: {lines:.1f} % of lines (at least {LINES:.0f}), {branches:.1f} % of branches (at least {BRANCHES:.0f})")
    return 0 if lines >= LINES and branches >= BRANCHES else 1


if __name__ == "__main__":
    sys.exit(main())
