#!/bin/sh
# levels-judge.sh: builds the program that asks the tracing-subscriber crate itself (tests/levels-crate) into the tests'
# cache, once a version, and prints its path. Prints nothing when it cannot be built (no crates registry, or a cargo too old
# for it): the tests then compare with the crate's recorded answers, tests/golden/levels.answers.gz.
set -eu
cache=${TAILRACE_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tailrace-tests}
key=$(cat tests/levels-crate/Cargo.lock tests/levels-crate/src/main.rs | sha256sum | cut -c1-12)
out=$cache/levels-crate-$key
mkdir -p "$cache"
if [ ! -x "$out/levels-crate" ]; then
    exec 9>"$cache/levels-crate.lock"
    flock 9
    if [ ! -x "$out/levels-crate" ]; then
        tmp=$(mktemp -d "$cache/levels-XXXXXX")
        trap 'rm -rf "$tmp"' EXIT
        if ! CARGO_TARGET_DIR=$tmp cargo build --locked --release --quiet \
            --manifest-path tests/levels-crate/Cargo.toml >"$tmp/log" 2>&1; then
            echo "levels-judge: the crate cannot be built here; its recorded answers are used: $(head -1 "$tmp/log")" >&2
            exit 0
        fi
        mkdir -p "$out"
        mv "$tmp/release/levels-crate" "$out/levels-crate"
    fi
fi
echo "$out/levels-crate"
