#!/bin/sh
# demo.sh: a real Loki, a writer of five loggers' lines, Tailrace between them, and what Loki answers.
exec /usr/bin/python3 scripts/demo.py "$@"
