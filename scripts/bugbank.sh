#!/bin/bash
# bugbank.sh BUILD SIM-OBJECTS [BUG...]: one deliberate bug at a time (agent/base/bug.h) is built - only the sources that have
# it are compiled - and must be found by what the table in docs/SIMULATOR.md says: the simulator, which runs seeds until one
# fails, or the unit test of that name. Run by `make bugbank`; BUGS="3 7" takes some of them, BUG_SEEDS is the most seeds.
set -u
build=$1 objects=$2
shift 2
table=docs/SIMULATOR.md
limit=${BUG_SEEDS:-40000}
bugs=${*:-$(grep -rhoE 'BUG\([0-9]+\)' agent outputs --include=*.c | tr -dc '0-9\n' | sort -nu)}
bad=0 n=0

column() { # BUG NUMBER: of its row in the table
    awk -F' *[|] *' -v bug="$1" -v at="$2" '$2 == bug { print $(at + 1) }' $table
}

compile() { # BUG DIR: the objects that have it
    local source o
    for source in $(grep -rlE "BUG\($1\)" agent outputs --include=*.c); do
        o=$2/$(echo "$source" | tr / -).o
        # shellcheck disable=SC2086
        $CC $BUG_CFLAGS -DBUG_$1=1 -c -o "$o" "$source" || exit 1
        echo "$o"
    done
}

by_sim() { # DIR OBJECTS: the least seed that fails, and how
    # shellcheck disable=SC2086
    $CC $BUG_LDFLAGS -o "$1/sim" $objects $2 "$build/libmodel.a" "$build/libtailrace.a" $BUG_LIBS || exit 1
    "$1/sim" --known tests/sim/known.txt --from 0 --to "$limit" --chunk 50 2>&1 |
        awk '/^seed [0-9]+ FAILED/ { if (best == "" || $2 < best) { best = $2; $1 = $2 = $3 = ""; how = $0 } }
             /killed by signal/ { if (best == "" || $2 < best) { best = $2; how = "an assertion" } }
             END { if (best != "") print "after " best + 1 " seeds:" how }'
}

by_unit() { # DIR OBJECTS TEST
    local model=
    [[ $3 == sim/* ]] && model=$build/libmodel.a
    # shellcheck disable=SC2086
    $CC $BUG_CFLAGS $BUG_LDFLAGS -o "$1/unit" "tests/unit/$3.c" $2 $model "$build/libtailrace.a" $BUG_LIBS -lcmocka -lm || exit 1
    timeout 300 "$1/unit" > "$1/out" 2>&1 || echo "by $3"
}

for bug in $bugs; do
    dir=$build/bugs/$bug
    mkdir -p "$dir"
    list=$(compile "$bug" "$dir")
    what=$(column "$bug" 2) by=$(column "$bug" 3)
    case $by in
    */test_*) found=$(by_unit "$dir" "$list" "$by") ;;
    *) found=$(by_sim "$dir" "$list") ;;
    esac
    n=$((n + 1))
    [ -n "$what" ] || { what="(not in $table)"; bad=$((bad + 1)); }
    if [ -z "$found" ]; then
        printf '  MISSED %3s %s\n' "$bug" "$what"
        bad=$((bad + 1))
    else
        printf '  found  %3s %s — %.120s\n' "$bug" "$what" "$found"
    fi
    rm -rf "$dir"
done
echo "$n bugs, $bad missed or not described"
[ $bad -eq 0 ]
