#!/bin/bash
# setup.sh NAME...   NAME: loki | elasticsearch | opensearch | kubernetes | all
#
# Has the real servers ready for the tests: each is built once (see NAME/build.sh) into a cache outside
# the clone and stays there. Prints one line a server, "NAME FOLDER", in the order asked for. Everything
# else goes to stderr. Instant when nothing is missing.
#
#   ${TAILRACE_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tailrace-tests}/NAME-VERSION-KEY/
#
# KEY is a hash of the recipe (all files of NAME/ but those that are read at test time): a changed recipe
# gets a folder of its own, so that clones of different age can share the cache. A folder is complete or
# absent: the build goes to a temporary name under a lock and is renamed when done.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${TAILRACE_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tailrace-tests}

fail() {
    echo "tests/servers/setup.sh: $*" >&2
    exit 1
}

version_of() {
    case $1 in
    loki) sed -n 's|^[[:space:]]*github.com/grafana/loki/v3 v\([0-9.]*\).*|\1|p' "$here/loki/go.mod" ;;
    elasticsearch | opensearch) sed -n 's:.*<server>\(.*\)</server>.*:\1:p' "$here/$1/pom.xml" ;;
    kubernetes) sed -n 's|^[[:space:]]*k8s.io/kubernetes v\([0-9.]*\)$|\1|p' "$here/kubernetes/go.mod" ;;
    *) fail "no server '$1': expected loki, elasticsearch, opensearch, kubernetes or all" ;;
    esac
}

recipe_of() {
    (cd "$here/$1" && find . -type f ! -name '*.yaml' ! -name '*.md' | LC_ALL=C sort)
}

folder_of() {
    local version key
    version=$(version_of "$1")
    [ -n "$version" ] || fail "cannot tell the version of $1 from its recipe"
    key=$(cd "$here/$1" && recipe_of "$1" | xargs sha256sum | sha256sum | cut -c1-10)
    echo "$cache/$1-$version-$key"
}

build() {
    local name=$1 folder tmp log start
    folder=$(folder_of "$name")
    [ -d "$folder" ] && return 0
    mkdir -p "$cache"
    exec 9>"$cache/$name.lock"
    flock -n 9 || {
        echo "tests/servers: waiting for another build of $name" >&2
        flock 9
    }
    if [ ! -d "$folder" ]; then
        log=$cache/$name.log
        tmp=$folder.tmp
        start=$SECONDS
        echo "tests/servers: building $name into $folder (log: $log)" >&2
        rm -rf "$tmp"
        mkdir "$tmp"
        recipe_of "$name" | (cd "$here/$name" && xargs cp -t "$tmp")
        # 9>&-: what a build leaves running must not hold the lock
        if ! (cd "$tmp" && CACHE=$cache bash ./build.sh "$(version_of "$name")") >"$log" 2>&1 </dev/null 9>&-; then
            tail -n 40 "$log" >&2
            fail "$name could not be built; the whole log is $log"
        fi
        mv -T "$tmp" "$folder"
        echo "tests/servers: $name is ready after $((SECONDS - start)) s" >&2
    fi
    exec 9>&-
}

[ $# -gt 0 ] || fail "usage: setup.sh loki|elasticsearch|opensearch|kubernetes|all ..."
names=()
for n; do
    if [ "$n" = all ]; then names+=(loki elasticsearch opensearch kubernetes); else names+=("$n"); fi
done
for n in "${names[@]}"; do version_of "$n" >/dev/null; done

# Loki and Kubernetes need the processor, the others the network: side by side.
pids=()
for n in "${names[@]}"; do
    (build "$n") &
    pids+=($!)
done
rc=0
for p in "${pids[@]}"; do wait "$p" || rc=1; done
[ $rc -eq 0 ] || exit 1
for n in "${names[@]}"; do echo "$n $(folder_of "$n")"; done
