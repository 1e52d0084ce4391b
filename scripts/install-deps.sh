#!/bin/sh
# install-deps.sh [build|test|packaging]: Debian packages that a build, a build and all tests, or the tests of the packages
# need. Installs only what is missing; without a missing package nothing is asked for and no privilege is needed.
set -eu

build="gcc make pkg-config libc6-dev libyajl-dev zlib1g-dev libdeflate-dev libisal-dev libsnappy-dev libcurl4-openssl-dev libssl-dev
libyaml-dev libmicrohttpd-dev"
tests="libcmocka-dev libjansson-dev libclang-rt-dev python3 python3-pytest python3-pytest-xdist curl jq openssl logrotate strace valgrind prometheus
rsyslog rsyslog-elasticsearch clang clang-format clang-tidy systemd maven openjdk-17-jdk-headless golang-go cargo python3-venv git
ca-certificates faketime procps python3-yaml prometheus-alertmanager"
packaging="debhelper lintian debootstrap fakeroot buildah rpm systemd-container"

case "${1:-test}" in
build) want=$build ;;
test) want="$build $tests" ;;
packaging) want="$build $tests $packaging" ;;
*) echo "usage: install-deps.sh [build|test|packaging]" >&2; exit 2 ;;
esac

have_tool() { # packages whose work another installation on PATH already does
    case "$1" in
    golang-go) command -v go ;;
    cargo) command -v cargo ;;
    maven) command -v mvn ;;
    openjdk-17-jdk-headless) command -v javac ;;
    git) command -v git ;;
    *) false ;;
    esac >/dev/null 2>&1
}

missing=
for p in $want; do
    have_tool "$p" && continue
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
[ -n "$missing" ] || exit 0

command -v apt-get >/dev/null || { echo "install-deps: please install:$missing" >&2; exit 1; }
sudo=
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "install-deps: as root, run: apt-get install$missing" >&2; exit 1; }
    sudo=sudo
fi
echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
# Servers that come as packages must not start by themselves: the tests start their own.
policy=/usr/sbin/policy-rc.d
made_policy=
if [ ! -e $policy ] && [ "$(id -u)" -eq 0 ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy && made_policy=1
    trap 'rm -f $policy' EXIT
fi
$sudo apt-get update -qq
# shellcheck disable=SC2086
$sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null
[ -z "$made_policy" ] || rm -f $policy
