#!/bin/sh
# levels-judge.sh: builds the program that asks the tracing-subscriber crate itself (tests/levels-crate) into the tests'
# cache, once a version, and prints its path.
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
        CARGO_TARGET_DIR=$tmp cargo build --locked --release --quiet --manifest-path tests/levels-crate/Cargo.toml >&2
        mkdir -p "$out"
        mv "$tmp/release/levels-crate" "$out/levels-crate"
        rm -rf "$tmp"
    fi
fi
echo "$out/levels-crate"
