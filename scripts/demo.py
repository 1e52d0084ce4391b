"""demo.py: a real Loki on a free port, a writer of five loggers, Tailrace between them, and what Loki answers."""
import pathlib
import sys
import tempfile
import threading

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "lib"))
from tailrace_test import Agent, Loggen, Loki, wait_until  # noqa: E402
import time  # noqa: E402

LINES = 2000
CONFIG = """
inputs:
  demo:
    type: file
    include: ["{logs}/*.log"]
    tenant: "{{record.tenant|'demo'}}"
    levels: "info,registry.api=warn"
outputs:
  loki:
    type: loki
    url: {url}
    labels: {{ service_name: "{{service}}", host: "{{host}}" }}
    queue: {{ batch_wait: 500ms }}
"""


def main():
    with tempfile.TemporaryDirectory(prefix="tailrace-demo-") as tmp:
        tmp = pathlib.Path(tmp)
        logs = tmp / "logs"
        logs.mkdir()
        print("starting Loki …", flush=True)
        loki = Loki(tmp / "loki")
        loki.start()
        agent = Agent(tmp / "agent", CONFIG.format(logs=logs, url=loki.url))
        try:
            agent.start()
            print(f"Tailrace follows {logs}/*.log and ships to {loki.url}", flush=True)
            start = time.time_ns() - 10**9
            lines = list(Loggen(seed=7).lines(LINES))
            writer = threading.Thread(target=lambda: [
                (logs / f"{line.shape}.log").open("a").write(line.text + "\n") for line in lines])
            writer.start()
            writer.join()
            wait_until(lambda: agent.metric("read_lines_total") >= LINES, 30, "all lines read")
            wait_until(lambda: agent.metric("delivered_lines_total") > 0
                       and agent.status()["health"] in ("Optimal", "Healthy")
                       and sum(r["queued_lines"] for r in agent.status()["ledger"]["outputs"]) == 0,
                       30, "the queue empty")
            print(f"\nwritten: {LINES} lines of five loggers")
            for row in agent.status()["ledger"]["inputs"]:
                print(f"  tenant {row['tenant']:<12} read {row['read_lines']:>5}  kept {row['kept_lines']:>5}"
                      f"  filtered by level {row['filtered_level']:>5}")
            print("\nwhat Loki answers:")
            for row in agent.status()["ledger"]["inputs"]:
                got = loki.query_all(row["tenant"], '{service_name=~".+"}', start, time.time_ns() + 10**9)
                print(f"  tenant {row['tenant']:<12} {len(got):>5} lines", end="")
                print(f"   e.g. {got[-1][2][:90]}" if got else "")
        finally:
            agent.sigterm()
            loki.stop()


main()
