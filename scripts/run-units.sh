#!/bin/sh
# run-units.sh PROGRAM...: runs each cmocka program (for UNIT_TIMEOUT seconds, 300, at most), shows its closing lines, and at the end one count over all.
set -u
suites=0 failed=0 passed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for t in "$@"; do
    name=${t##*/unit/}
    if timeout "${UNIT_TIMEOUT:-300}" "$t" >"$log" 2>&1; then
        n=$(sed -n 's/.*\[  PASSED  \] \([0-9]*\) test.*/\1/p' "$log" | tail -1)
        printf '  ok   %-40s %s tests\n' "$name" "${n:-0}"
        passed=$((passed + ${n:-0}))
        [ "${n:-0}" -gt 0 ] || { echo "  FAIL $name ran no test"; failed=$((failed + 1)); }
    else
        rc=$?
        printf '  FAIL %s (exit %s)\n' "$name" "$rc"
        tail -60 "$log"
        failed=$((failed + 1))
    fi
    suites=$((suites + 1))
done
echo "$suites suites"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$suites" -gt 0 ]
