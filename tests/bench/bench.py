"""bench.py: Tailrace beside Debian's rsyslog on the same bytes, in turns in one run, against the counting server.

Prints per program: MB of source per CPU second (user + system of the process), MB/s of wall time, peak RSS, and at the
end the ratio of Tailrace to rsyslog with its spread over the rounds. Every run must deliver every line, or it counts as
failed. Timings are never a pass or fail.
"""
import argparse
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "lib"))
from tailrace_test import CountServer, wait_until  # noqa: E402

TAILRACE = """
state_dir: {tmp}/state
admin: {{ listen: "" }}
inputs:
  bench:
    type: file
    include: ["{logs}/*.log"]
    tenant: bench
    fields: {{ namespace: bench, pod: "{{host}}" }}
outputs:
  out: {{ type: {kind}, url: "{url}"{more} }}
"""

# The same work as far as rsyslog can: JSON parsed, fields added, documents in bulks. No compression, no durable queue.
RSYSLOG = """
global(workDirectory="{tmp}" maxMessageSize="64k")
module(load="imfile" mode="inotify")
module(load="mmjsonparse")
module(load="omelasticsearch")
template(name="doc" type="list") {{ property(name="$!all-json-plain") }}
input(type="imfile" File="{logs}/*.log" Tag="bench" ruleset="out" readTimeout="0")
ruleset(name="out" queue.type="LinkedList" queue.size="200000" queue.dequeueBatchSize="5000" queue.workerThreads="1") {{
  action(type="mmjsonparse" cookie="")
  set $!host_name = $hostname;
  set $!namespace = "bench";
  set $!pod = $hostname;
  action(type="omelasticsearch" server="127.0.0.1" serverport="{port}" template="doc" searchIndex="bench"
         bulkmode="on" maxbytes="10m" action.resumeRetryCount="-1")
}}
"""


# Cheaper, and less: each line as a string in one field, nothing parsed.
RSYSLOG_TEXT = RSYSLOG.replace('{{ property(name="$!all-json-plain") }}', """{{
  constant(value="{{\\"message\\":\\"") property(name="msg" format="json")
  constant(value="\\",\\"host\\":\\"") property(name="hostname" format="json")
  constant(value="\\",\\"namespace\\":\\"bench\\"}}")
}}""")
RSYSLOG_TEXT = "\n".join(x for x in RSYSLOG_TEXT.splitlines() if "mmjsonparse" not in x and "set $!" not in x)


def generate(logs, lines, files):
    logs.mkdir()
    text = subprocess.run([sys.executable, str(ROOT / "tests/bench/gen.py"), str(lines)], check=True,
                          stdout=subprocess.PIPE).stdout
    rows = text.splitlines(keepends=True)
    for i in range(files):
        (logs / f"app-{i:03}.log").write_bytes(b"".join(rows[i::files]))
    return len(text)


def measure(argv, env, done):
    """Runs argv until done() and then stops it: (cpu seconds, wall seconds, peak RSS bytes)."""
    start = time.monotonic()
    proc = subprocess.Popen(argv, env={**os.environ, **env}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = 0
    try:
        done()
        wall = time.monotonic() - start
        status = pathlib.Path(f"/proc/{proc.pid}/status").read_text()
        peak = int(status.split("VmHWM:")[1].split()[0]) * 1024  # ru_maxrss would be that of this program's fork
    finally:
        proc.send_signal(signal.SIGTERM)
        _, _, usage = os.wait4(proc.pid, 0)
        proc.returncode = 0
    return usage.ru_utime + usage.ru_stime, wall, peak


def run_one(name, binary, logs, lines, server, tmp):
    server.reset()
    tmp.mkdir()
    if name.startswith("rsyslog"):
        conf = tmp / "rsyslog.conf"
        conf.write_text((RSYSLOG_TEXT if name == "rsyslog-text" else RSYSLOG).format(tmp=tmp, logs=logs, port=server.url.rsplit(":", 1)[1]))
        argv = ["/usr/sbin/rsyslogd", "-n", "-f", str(conf), "-i", str(tmp / "pid")]
        kind = "bulk"
    else:
        kind = "loki" if name == "tailrace-loki" else "bulk"
        conf = tmp / "tailrace.yaml"
        conf.write_text(TAILRACE.format(tmp=tmp, logs=logs, url=server.url,
                                        kind="loki" if kind == "loki" else "elasticsearch",
                                        more=", max_age: 0" if kind == "loki" else ""))
        argv = [binary, "run", "-c", str(conf)]
    return measure(argv, {}, lambda: wait_until(
        lambda: server.report()[kind]["lines"] >= lines, 300, f"{name}: all lines at the server"))


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--binary", default=str(ROOT / "build/release/tailrace"))
    ap.add_argument("--tools", default=str(ROOT / "build/release/tools"))
    ap.add_argument("--lines", type=int, default=400_000)
    ap.add_argument("--files", type=int, default=4)
    ap.add_argument("--rounds", type=int, default=3)
    args = ap.parse_args()
    os.environ["TAILRACE_TOOLS"] = args.tools
    names = ["tailrace-loki", "tailrace-elasticsearch", "rsyslog", "rsyslog-text"]
    results = {n: [] for n in names}
    with tempfile.TemporaryDirectory(prefix="tailrace-bench-") as tmp:
        tmp = pathlib.Path(tmp)
        size = generate(tmp / "logs", args.lines, args.files)
        print(f"{args.lines} lines, {size / 1e6:.0f} MB, {args.files} files, {args.rounds} rounds")
        server = CountServer(tmp / "server")
        server.start()
        try:
            for r in range(args.rounds):
                for name in names:
                    cpu, wall, rss = run_one(name, args.binary, tmp / "logs", args.lines, server, tmp / f"{name}-{r}")
                    results[name].append(size / 1e6 / cpu)
                    print(f"  {name:<24} {size / 1e6 / cpu:8.1f} MB per CPU second  {size / 1e6 / wall:7.1f} MB/s wall"
                          f"  {rss / 2**20:6.1f} MiB peak", flush=True)
        finally:
            server.stop()
    for peer in names[2:]:
        for name in names[:2]:
            ratios = [a / b for a, b in zip(results[name], results[peer])]
            print(f"{name} to {peer}: {statistics.median(ratios):.1f} times"
                  f" (from {min(ratios):.1f} to {max(ratios):.1f})")


main()
