"""bench.py: Tailrace beside the floor program and other shippers, on the same bytes, in turns in one run, against the
counting server (tests/tools/countserver.c), which sees that every line that is to be kept arrives.

Figures are of source bytes: MB (10^6) and lines per CPU second (user + system of the process), MB/s of wall time until
nine tenths had arrived, peak RSS, bytes written to disk per payload byte that was kept, system calls per MB (with --syscalls: one run more
under strace), and the ratio to the floor and to each peer within the same round. Each figure is the median over the
rounds, with the least and the largest. Timings are never a pass or fail; a line that is missing is.

    bench.py                           five loggers to Loki and to Elasticsearch, the quick default
    bench.py cri filtered --to loki    these workloads, this output
    bench.py all --to loki bulk both   everything
"""
import argparse
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "lib"))
from programs import Floor, Tailrace, peers  # noqa: E402
from tailrace_test import CountServer, wait_until  # noqa: E402
from workloads import WORKLOADS  # noqa: E402

KINDS = {"loki": ("loki",), "bulk": ("bulk",), "both": ("loki", "bulk")}


def build_floor(tmp):
    binary = tmp / "floor"
    subprocess.run([os.environ.get("CC", "cc"), "-O2", "-w", str(ROOT / "tests/bench/floor.c"), "-lyajl", "-lsnappy",
                    "-ldeflate", "-lz", "-o", str(binary)], check=True)
    return str(binary)


def spread(values, form="{:.0f}"):
    if not values:
        return "-"
    low, mid, high = (form.format(f(values)) for f in (min, statistics.median, max))
    return mid if low == high else f"{mid} ({low}–{high})"


def syscalls(program, workload, kinds, server, tmp):
    """Per MB of source, over one run more; None where there is no telling."""
    table = tmp / "calls"
    program.run(workload, kinds, server, tmp / "run", strace=table)
    try:
        wait_until(lambda: table.exists() and "total" in table.read_text(), 20, "strace has written its table")
    except AssertionError:
        return None
    return int(re.search(r"^total +(\d+)", table.read_text(), re.M)[1]) / (workload.source_bytes / 1e6)


HEAD = ("program", "MB/CPU s", "lines/CPU s", "wall MB/s", "RSS MiB", "disk B/B", "calls/MB", "of the floor")


def table(workload, rows, calls):
    floor = rows.get("floor", [])
    mb, lines = workload.payload_bytes / 1e6, workload.lines / 1e6
    yield HEAD
    for name, results in rows.items():
        is_floor = name == "floor"
        yield (name, spread([mb / r.cpu for r in results]), spread([lines / r.cpu for r in results], "{:.2f} M"),
               spread([0.9 * mb / r.wall for r in results]) if not is_floor else "-",
               spread([r.rss / 2**20 for r in results], "{:.1f}") if not is_floor else "-",
               spread([r.disk / workload.kept_bytes for r in results], "{:.3f}"),
               f"{calls[name]:.1f}" if calls.get(name) is not None else "-",
               spread([f.cpu / r.cpu for f, r in zip(floor, results)], "{:.2f}") if not is_floor else "1")


def show(rows):
    rows = list(rows)
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    for k, row in enumerate(rows):
        print("| " + " | ".join(c.ljust(w) for c, w in zip(row, widths)) + " |")
        if k == 0:
            print("|" + "|".join("-" * (w + 2) for w in widths) + "|")


def bench(workload, to, programs, server, tmp, args):
    kinds = KINDS[to]
    rows = {p.name: [] for p in programs if p.can(kinds)}
    for turn in range(args.rounds):
        for p in programs:
            if p.name in rows:
                rows[p.name].append(p.run(workload, kinds, server, tmp / f"{to}-{p.name}-{turn}"))
    calls = {}
    if args.syscalls:
        for p in programs:
            if p.name in rows and p.name != "floor":
                calls[p.name] = syscalls(p, workload, kinds, server, tmp / f"{to}-{p.name}-calls")
    print(f"\n### {workload.name} to {to}: {workload.lines} lines, {workload.kept} kept, "
          f"{workload.source_bytes / 1e6:.0f} MB ({workload.kept_bytes / 1e6:.0f} kept), "
          f"{args.rounds} rounds\n")
    show(table(workload, rows, calls))
    ours = rows["tailrace"]
    for name, theirs in rows.items():
        if name not in ("tailrace", "floor"):
            print(f"\ntailrace to {name}: {spread([t.cpu / o.cpu for o, t in zip(ours, theirs)], '{:.1f}')} times")
    print(f"\nserver: {spread([workload.payload_bytes / 1e6 / r.server_cpu for r in ours if r.server_cpu > 0])} MB per CPU second",
          flush=True)


class Server(CountServer):
    def reset(self, loki=0, bulk=0):
        from tailrace_test import client
        client.request("POST", f"{self.url}/reset?mark_loki={loki}&mark_bulk={bulk}").expect(204)


def arguments():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("workload", nargs="*", default=["five"], help=f"all, or some of: {' '.join(WORKLOADS)}")
    ap.add_argument("--to", nargs="+", choices=list(KINDS), default=["loki", "bulk"])
    ap.add_argument("--binary", default=str(ROOT / "build/release/tailrace"))
    ap.add_argument("--other", help="a second Tailrace, for a comparison in one run")
    ap.add_argument("--tools", default=str(ROOT / "build/release/tools"))
    ap.add_argument("--lines", type=int, default=600_000)
    ap.add_argument("--rounds", type=int, default=5)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--syscalls", action="store_true")
    ap.add_argument("--alone", action="store_true", help="without the peers")
    ap.add_argument("--tmp", help="where the folders are made; a file system on a disk, for its figures")
    return ap.parse_args()


def main():
    args = arguments()
    os.environ["TAILRACE_TOOLS"] = args.tools
    names = list(WORKLOADS) if args.workload == ["all"] else args.workload
    with tempfile.TemporaryDirectory(prefix="tailrace-bench-", dir=args.tmp) as tmp:
        tmp = pathlib.Path(tmp)
        programs = [Floor("floor", build_floor(tmp)), Tailrace("tailrace", args.binary)]
        if args.other:
            programs.append(Tailrace("other", args.other))
        if not args.alone:
            programs += peers()
        with Server(tmp / "server", check=False) as server:
            for name in names:
                workload = WORKLOADS[name](tmp / name, args.lines, args.seed)
                for to in args.to:
                    bench(workload, to, programs, server, tmp / name, args)


main()
