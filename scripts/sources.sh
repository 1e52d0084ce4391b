#!/bin/sh
# sources.sh: the files that a package is built from, one a line: what git tracks, or, in an unpacked tarball, what is there.
set -eu
cd "$(dirname "$0")/.."
if [ -e .git ]; then git ls-files; else find . -type f ! -path './build/*' ! -path './var/*' ! -path './debian/*' -printf '%P\n'; fi |
    grep -v -e '^tests/golden/' -e '^\.' | while read -r f; do [ ! -e "$f" ] || echo "$f"; done
