#!/bin/sh
# check.sh: what must be clean: include arrows, gcc and clang with warnings as errors, unit tests under ASan+UBSan and
# TSan.
set -eu
scripts/install-deps.sh test
scripts/check-arrows.sh
/usr/bin/python3 scripts/coverage.py --groups
j=$(nproc)
make -s -j"$j" all WERROR=-Werror
make -s -j"$j" all CC=clang WERROR=-Werror
# Two globals of one name in the archive: the linker would silently take one of them.
twice=$(nm --defined-only build/release/libtailrace.a | awk '$2 ~ /^[TDBRC]$/ { print $3 }' | sort | uniq -d)
[ -z "$twice" ] || { echo "check: defined twice: $twice"; exit 1; }
echo "== ASan + UBSan"
make -s -j"$j" unit SAN=address,undefined WERROR=-Werror
echo "== TSan"
make -s -j"$j" unit SAN=thread WERROR=-Werror
echo "check: clean"
