#!/bin/sh
# fuzz.sh SECONDS TARGET...: runs each libFuzzer program of build/fuzz for so long on the inputs of tests/fuzz/corpus and
# tests/fuzz/found. What it grows by itself is kept in build/fuzz/grown, a finding in build/fuzz/findings: copy it to
# tests/fuzz/found/TARGET when it is fixed. FUZZ_ARGS: more arguments for libFuzzer.
set -u
seconds=$1
shift
mkdir -p build/fuzz/findings
failed=0
for t in "$@"; do
    grown=build/fuzz/grown/$t
    mkdir -p "$grown"
    inputs=
    for d in "tests/fuzz/corpus/$t" "tests/fuzz/found/$t"; do
        [ ! -d "$d" ] || inputs="$inputs $d"
    done
    # What an output remembers from line to line looks like a leak after each input, and looking costs most of the time; at
    # the end, and in the replay under ASan, leaks are looked for all the same.
    leaks=
    [ "$t" != line ] || leaks=-detect_leaks=0
    dict=
    [ ! -e "tests/fuzz/dict/$t" ] || dict=-dict=tests/fuzz/dict/$t
    log=build/fuzz/$t.log
    # shellcheck disable=SC2086
    if TZ=UTC UBSAN_OPTIONS=print_stacktrace=1 build/fuzz/fuzz/"$t" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=1024 -print_final_stats=1 \
        -artifact_prefix="build/fuzz/findings/$t-" $dict $leaks ${FUZZ_ARGS:-} "$grown" $inputs >"$log" 2>&1; then
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        cover=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -1)
        printf '  ok   %-12s %s runs, %s edges, %s inputs grown\n' "$t" "${runs:-?}" "${cover:-?}" "$(ls "$grown" | wc -l)"
    else
        printf '  FAIL %s\n' "$t"
        grep -aE '^fuzz: |ERROR: |runtime error|SUMMARY|Test unit written' "$log"
        failed=1
    fi
done
exit $failed
