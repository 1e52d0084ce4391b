#!/bin/sh
# rootfs.sh BINARY OUT: the root of a container image that has only what the binary needs: its libraries, the loader,
# authorities for TLS, time zones (of inputs), and a name for uid 0. No shell.
set -eu
binary=$1 out=$2
rm -rf "$out"
mkdir -p "$out/usr/bin" "$out/etc/tailrace" "$out/etc/ssl/certs" "$out/usr/share" "$out/var/lib/tailrace" "$out/var/log" "$out/tmp"
chmod 1777 "$out/tmp"
install -m 755 "$binary" "$out/usr/bin/tailrace"
strip "$out/usr/bin/tailrace"

# "name => /path (address)", and the loader as "/path (address)"; each under the path that the loader looks for.
ldd "$binary" | awk '$2 == "=>" { print $3 } $1 ~ /^\// { print $1 }' | while read -r lib; do
    mkdir -p "$out$(dirname "$lib")"
    cp -L "$lib" "$out$lib"
    chmod 755 "$out$lib"
done
cp -L /etc/ssl/certs/ca-certificates.crt "$out/etc/ssl/certs/"
if [ -d /usr/share/zoneinfo ]; then
    mkdir "$out/usr/share/zoneinfo"
    (cd /usr/share/zoneinfo && find . -type f ! -path './posix/*' ! -path './right/*' ! -name '*.tab' ! -name '*.zi' ! -name '*.list' |
        cpio -pdm --quiet "$out/usr/share/zoneinfo" 2>/dev/null) || cp -a /usr/share/zoneinfo/. "$out/usr/share/zoneinfo/"
fi
echo 'root:x:0:0:root:/:/sbin/nologin' >"$out/etc/passwd"
echo 'root:x:0:' >"$out/etc/group"
echo 'hosts: files dns' >"$out/etc/nsswitch.conf"
install -m 644 conf/kubernetes.yaml "$out/etc/tailrace/tailrace.yaml"
