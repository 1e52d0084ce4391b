"""A real server for a shell: PYTHONPATH=tests/lib /usr/bin/python3 -m tailrace_test loki|elasticsearch|opensearch DIR

Starts it on a free port with its data in DIR, prints "READY URL", and stops it on SIGTERM or SIGINT.
"""

import signal
import sys

from . import Elastic, Loki


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in ("loki", "elasticsearch", "opensearch"):
        sys.exit(__doc__)
    for s in (signal.SIGTERM, signal.SIGINT):
        signal.signal(s, lambda *_: sys.exit(0))
    server = Loki(sys.argv[2]) if sys.argv[1] == "loki" else Elastic(sys.argv[2], sys.argv[1])
    try:
        server.start()
        print(f"READY {server.url}", flush=True)
        server.process.popen.wait()
        sys.exit(f"the server ended by itself\n{server.process.describe()}")
    finally:
        server.stop()


main()
