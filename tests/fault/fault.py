"""Faults against the real binary, by number: `fault.py --kind kill --from 0 --to 100` plays the cases 0 … 99 of that kind,
`--plan sample` what `make fault` does.

Each case has a folder of its own under --base, removed when the case was passed, kept with its story when it was not.
The exit status is 1 if any promise was broken. `--trace` says what each case was. See docs/FAULTS.md.
"""

import argparse
import collections
import json
import os
import pathlib
import resource
import signal
import sys
import time
import traceback

import selftest
import sweeps
import troubles
from lab import Lab, Violation, binary

ROOT = pathlib.Path(__file__).resolve().parents[2]
KINDS = {
    "kill": sweeps.kill, "random": sweeps.random_kill, "error": sweeps.error, "malloc": sweeps.malloc,
    "power": troubles.power, "full": troubles.full, "readonly": troubles.readonly, "clock": troubles.clock,
    "selftest": selftest.selftest, "stopped": troubles.stopped, "memory": troubles.memory, "descriptors": troubles.descriptors,
}


def play(the_lab, kind, number, figures, trace):
    """One case; True when it was passed."""
    name = f"{kind}-{number}"
    began = time.monotonic()
    case = sweeps.Case(the_lab, name, number)
    try:
        KINDS[kind](case)
        figures["passed"] += 1
        case.close()
        problem = None
    except (Violation, AssertionError) as e:
        problem = f"{type(e).__name__}: {e}"
    except Exception:  # a mistake of the driver is a failure too
        problem = traceback.format_exc()
    except BaseException:  # Ctrl-C
        case.close(keep=True)
        raise
    figures.update(case.figures)
    if problem:
        figures["FAILED"] += 1
        case.close(keep=True)
        print(f"FAILED {name}: {case.story}\n  {problem}\n  {case.folder}", flush=True)
    elif trace:
        print(f"{name}: {case.story} ({time.monotonic() - began:.2f} s)", flush=True)
    return problem is None


# What `make fault` and `make fault-full` play: kind, from, to, every. Of failing calls, 147 numbers are each kind of error
# in each script at one place: once, and in the next 147 for ever.
PLANS = {
    "sample": [
        ("selftest", 0, 7, 1), ("kill", 0, 4400, 55), ("random", 0, 10, 1), ("error", 2058, 2205, 2), ("error", 2205, 2352, 9),
        ("malloc", 0, 900, 30), ("power", 0, 5, 1), ("full", 0, 2, 1), ("readonly", 0, 2, 1), ("clock", 0, 4, 1),
        ("stopped", 0, 2, 1), ("memory", 0, 1, 1), ("descriptors", 0, 1, 1),
    ],
    "full": [
        ("kill", 0, 3000, 1), ("random", 0, 200, 1), ("error", 0, 5200, 1), ("malloc", 0, 1000, 1), ("power", 0, 250, 1),
        ("full", 0, 40, 1), ("readonly", 0, 40, 1), ("clock", 0, 200, 1), ("stopped", 0, 100, 1), ("memory", 0, 20, 1), ("descriptors", 0, 10, 1),
    ],
}


def play_range(o, kind, first, last, every):
    """True when all were passed. Prints one line of figures."""
    the_lab = Lab(pathlib.Path(o.base).resolve() / kind, o.shim)
    os.chdir(the_lab.base)
    figures = collections.Counter(FAILED=0)
    began = time.monotonic()
    try:
        for number in range(first, last, every):
            play(the_lab, kind, number, figures, o.trace)
            figures["cases"] += 1
            if figures["FAILED"] >= o.max_failures:
                print("too many failures: stopping", flush=True)
                break
    finally:
        the_lab.close()
    seconds = time.monotonic() - began
    print(json.dumps({"kind": kind, "from": first, "to": last, "every": every, "seconds": round(seconds, 1), **figures}), flush=True)
    return figures["FAILED"] == 0


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--kind", choices=KINDS)
    p.add_argument("--from", dest="first", type=int, default=0)
    p.add_argument("--to", type=int, default=10)
    p.add_argument("--every", type=int, default=1, help="only each n-th number of the range")
    p.add_argument("--plan", choices=PLANS, help="several kinds, one after the other")
    p.add_argument("--base", default="/tmp/tailrace-fault")
    p.add_argument("--shim", type=os.path.abspath, default=ROOT / "build/release/fault/shim.so")
    p.add_argument("--trace", action="store_true")
    p.add_argument("--max-failures", type=int, default=10)
    o = p.parse_args()
    if not o.plan and not o.kind:
        p.error("--kind or --plan")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
    os.environ["TAILRACE_BINARY"] = str(binary())  # also when the folder is another
    plan = PLANS[o.plan] if o.plan else [(o.kind, o.first, o.to, o.every)]
    results = [play_range(o, *ranges) for ranges in plan]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
