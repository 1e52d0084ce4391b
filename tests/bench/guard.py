"""guard.py: instructions per line, counted by callgrind on fixed input, against the numbers in tests/bench/guard.json.

Fails when one has risen by more than 3 %. `guard.py --write` puts the present numbers there: do it with a change that is
worth it, and for those that make it faster, so that the gain stays.

What is counted: lines_feed() (a line's way from the file's bytes to the open body) on the reader's thread, and loki_seal()
and queue_append() on the writer's. Of these, the instructions of Tailrace's own code, libc, yajl and snappy. Left out are
ISA-L and libdeflate, which choose their code by the processor; libc is told by GLIBC_TUNABLES to choose the same
everywhere. So the numbers depend on the compiler and the libraries alone: these are noted with them, and where they are
others nothing is compared.
"""
import argparse
import collections
import concurrent.futures
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "lib"))
from tailrace_test import CountServer  # noqa: E402
from workloads import Lines  # noqa: E402

NUMBERS = ROOT / "tests/bench/guard.json"
LINES = 4000
RISE = 0.03
COUNTED = ("libc.so", "libyajl", "libsnappy")  # and the binary, whatever its name
# No vectors beyond those that every x86-64 has.
SAME_LIBC = "glibc.cpu.hwcaps=-AVX_Usable,-AVX,-AVX2_Usable,-AVX2,-AVX512F,-AVX512VL,-AVX512BW,-EVEX,-ERMS,-FSRM,-SSE4_1,-SSE4_2,-SSSE3,-BMI2,-RTM,-MOVBE,-AVX_Fast_Unaligned_Load,-Prefer_No_VZEROUPPER,-AVX512DQ,-LZCNT,-BMI1"
STAMP = "2026-01-15T10:30:00.%06d%sZ"


def json_lines():
    gen = Lines(7)
    gen.now = gen.now.replace(year=2026, month=1, day=15, hour=10, minute=30, second=0, microsecond=0)
    return [gen.line(i) for i in range(LINES)]


def cri(rows):
    return [(STAMP % (i * 137, "123") + " stdout F ").encode() + r for i, r in enumerate(rows)]


def docker(rows):
    return [json.dumps({"log": r.decode(), "stream": "stdout", "time": STAMP % (i * 137, "123")},
                       separators=(",", ":")).encode() + b"\n" for i, r in enumerate(rows)]


def text(_):
    forms = ("2026-01-15 10:30:{:02d},{:03d} INFO app.web GET /orders/{} 200 in 12 ms\n",
             'time="2026-01-15T10:30:{:02d}.{:03d}Z" level=warning msg="order {} took long" component=shop\n',
             "ERROR 10:30:{:02d}.{:03d} order {} failed\n")
    return [forms[i % 3].format(i % 60, i % 1000, i).encode() for i in range(LINES)]


def multiline(_):
    out = []
    for i in range(LINES // 4):
        out += [f"2026-01-15 10:30:00 ERROR order {i} failed\n".encode(), b"Traceback (most recent call last):\n",
                b'  File "shop.py", line 7, in save\n', b"ValueError: no such order\n"]
    return out


# name: (lines, format, levels)
INPUTS = {"json": (lambda rows: rows, "json", "info"),
          "filtered": (lambda rows: rows, "json", "error,kmb_vsr=warn,app.db=warn"),
          "cri": (cri, "cri", "info"), "docker": (docker, "docker", "info"),
          "text": (text, "text", "info"), "multiline": (multiline, "text", "info")}
OUTPUTS = {"loki": "{{ type: loki, url: \"{url}\", max_age: 0, queue: {{ batch_wait: 1s }} }}",
           "elasticsearch": "{{ type: elasticsearch, url: \"{url}\", template: \"off\" }}",
           "file": "{{ type: file, path: \"{tmp}/out.ndjson\" }}"}
CASES = [(i, "loki") for i in INPUTS] + [("json", "elasticsearch"), ("text", "elasticsearch"), ("json", "file")]


def config(tmp, name, output, url):
    _, form, levels = INPUTS[name]
    path = tmp / "tailrace.yaml"
    path.write_text(f"""state_dir: {tmp}/state
admin: {{ listen: "127.0.0.1:0" }}
inputs:
  in: {{ type: file, include: ["{tmp}/app.log"], format: {form}, tenant: bench, levels: "{levels}", fields: {{ pod: p, namespace: n }} }}
outputs:
  out: {OUTPUTS[output].format(url=url, tmp=tmp)}
""")
    return path


def is_through(tmp, size):
    """All was read and all that was kept is delivered."""
    try:
        address = (tmp / "state/admin.addr").read_text().strip()
        out = subprocess.run(["curl", "-sS", "-m", "60", f"http://{address}/metrics"], check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return False
    def total(metric):
        return sum(float(v) for v in re.findall(rf"^tailrace_{metric}(?:{{[^}}]*}})? ([0-9.e+]+)$", out, re.M))
    return total("read_bytes_total") >= size and \
        total("delivered_lines_total") == total("read_lines_total") - total("filtered_lines_total") > 0


def instructions(path, binary):
    """Self cost of the objects that count, in one output file of callgrind."""
    names, ob, total, skip = {}, "", collections.Counter(), False
    for line in path.read_text().splitlines():
        if line.startswith("ob="):
            n, _, name = line[3:].partition(" ")
            ob = names[n] = name or names.get(n, "")
        elif line.startswith("cob="):  # names are given where they come first
            n, _, name = line[4:].partition(" ")
            if name:
                names[n] = name
        elif line.startswith("calls="):
            skip = True  # the next line is the callee's, inclusive
        elif line[:1].isdigit() or line[:1] in "+-*":
            if not skip:
                cost = line.split()
                total[ob] += int(cost[1]) if len(cost) > 1 else 0  # a line alone: none
            skip = False
    return sum(n for o, n in total.items() if pathlib.Path(o).name.startswith((pathlib.Path(binary).name,) + COUNTED))


def run(case, binary, rows, url, tmp):
    name, output = case
    tmp.mkdir()
    data = b"".join(INPUTS[name][0](rows))
    (tmp / "app.log").write_bytes(data)
    argv = ["valgrind", "--tool=callgrind", "--collect-atstart=no", "--toggle-collect=lines_feed",
            "--toggle-collect=loki_seal", "--toggle-collect=queue_append", f"--callgrind-out-file={tmp}/out",
            binary, "run", "-c", str(config(tmp, name, output, url))]
    with open(tmp / "log", "wb") as log:
        proc = subprocess.Popen(argv, env={**os.environ, "GLIBC_TUNABLES": SAME_LIBC}, stdout=log, stderr=log)
    try:
        until = time.monotonic() + 300
        while not is_through(tmp, len(data)):
            if proc.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{name} to {output}: not all was delivered\n{(tmp / 'log').read_text()[-2000:]}")
            time.sleep(0.3)
    finally:
        proc.terminate()
        proc.wait()
    return instructions(tmp / "out", binary) / LINES


def build_of(binary):
    """What the numbers depend on besides the code."""
    compiler = subprocess.run(["readelf", "-p", ".comment", binary], check=True, capture_output=True, text=True).stdout
    return " ".join(sorted(set(re.findall(r"\[ *[0-9a-f]+\] +(.*)", compiler)))) + f", {platform.machine()}, {' '.join(platform.libc_ver())}"


def measure(binary, only, keep):
    rows = [row for row, _, _ in json_lines()]
    cases = [c for c in CASES if not only or "-".join(c) in only]
    with tempfile.TemporaryDirectory(prefix="tailrace-guard-") as tmp, CountServer(pathlib.Path(tmp) / "server", check=False) as server, \
            concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = {"-".join(c): pool.submit(run, c, binary, rows, server.url, pathlib.Path(tmp) / "-".join(c)) for c in cases}
        found = {name: round(job.result()) for name, job in jobs.items()}
        for name in found if keep else ():
            shutil.copy(f"{tmp}/{name}/out", f"{keep}/callgrind.{name}")
        return found


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("case", nargs="*", help=" ".join("-".join(c) for c in CASES))
    ap.add_argument("--binary", default=str(ROOT / "build/release/tailrace"))
    ap.add_argument("--tools", default=str(ROOT / "build/release/tools"))
    ap.add_argument("--keep", help="a folder for callgrind's output, for callgrind_annotate")
    ap.add_argument("--write", action="store_true", help="these are the numbers from now on")
    args = ap.parse_args()
    os.environ["TAILRACE_TOOLS"] = args.tools
    build, known = build_of(args.binary), json.loads(NUMBERS.read_text()) if NUMBERS.exists() else {"build": "", "instructions": {}}
    found = measure(args.binary, args.case, args.keep)
    is_same, risen = build == known["build"], []
    for name, n in found.items():
        before = known["instructions"].get(name)
        print(f"{name:<22} {n:>7} instructions a line" + (f", {n / before - 1:+.1%} of {before}" if before and is_same else ""))
        if is_same and before and n > before * (1 + RISE):
            risen.append(name)
    if args.write:
        NUMBERS.write_text(json.dumps({"build": build, "instructions": (known["instructions"] if is_same else {}) | found}, indent=2) + "\n")
    elif not is_same:
        print(f"not compared: the numbers are of {known['build']}, this is {build}")
    elif risen:
        sys.exit(f"more than {RISE:.0%} above tests/bench/guard.json: {', '.join(risen)}")


main()
