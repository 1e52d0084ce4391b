# Sourced: sets jdk to a JDK >= 17 and has Maven use it. Java 17 is taken before newer ones: the servers are tested with it.
jdk=
for j in "${JAVA_HOME:-}" /usr/lib/jvm/java-17-openjdk-* "$(dirname "$(dirname "$(readlink -f "$(command -v javac || echo /)")")")" /usr/lib/jvm/*; do
    [ -n "$j" ] && [ -x "$j/bin/javac" ] || continue
    major=$("$j/bin/javac" -version 2>&1 | sed -n 's/^javac \([0-9]*\).*/\1/p')
    if [ "${major:-0}" -ge 17 ]; then
        jdk=$j
        break
    fi
done
if [ -z "$jdk" ]; then
    echo "no JDK 17 or newer found (JAVA_HOME, PATH, /usr/lib/jvm): Debian's package is openjdk-17-jdk-headless" >&2
    exit 1
fi
command -v mvn >/dev/null || {
    echo "no mvn on PATH: Debian's package is maven" >&2
    exit 1
}
export JAVA_HOME=$jdk
echo "$jdk" >java_home
"$jdk/bin/java" -version
