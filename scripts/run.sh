#!/bin/sh
# run.sh: follow /var/log to the terminal through the real pipeline and the real queue in ./var; the admin endpoint is
# on 127.0.0.1:9746 (or $TAILRACE_ADMIN).
set -eu
admin=${TAILRACE_ADMIN:-127.0.0.1:9746}
mkdir -p var
echo "following /var/log; http://$admin/metrics and /status tell the rest; Ctrl-C stops" >&2
exec build/release/tailrace run --stdout --state "$PWD/var/tailrace" --admin "$admin" \
    '/var/log/**/*.log' /var/log/syslog /var/log/messages '/var/log/pods/**/*.log' "$@"
