#!/bin/sh
# start.sh PORT DATADIR [key=value ...]   in the foreground, and the process is java's own; prints "READY PORT"
port=$1
data=$(realpath -m "$2")
shift 2
cd "$(dirname "$0")" || exit 1 # relative class path: the archive stays valid when the folder is renamed
java=$(cat java_home)/bin/java
[ -x "$java" ] || java=java
[ -f node.jsa ] && JAVA_X="-XX:SharedArchiveFile=node.jsa -Xlog:disable -Xlog:all=error:stderr"
# shellcheck disable=SC2086 # several options
exec "$java" -Xms256m -Xmx${TEST_HEAP:-512m} -XX:+UseSerialGC -XX:TieredStopAtLevel=1 $JAVA_X \
    -Dlog4j2.configurationFile=log4j2.xml -Dlog4j2.disable.jmx=true \
    -cp 'lib/*' TestNode "$port" "$data" "$@"
