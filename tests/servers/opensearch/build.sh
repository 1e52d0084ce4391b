#!/bin/bash
# build.sh VERSION: resolves the jars from Maven Central with the ordinary Maven client and compiles TestNode in
# the current folder, which holds the recipe. Needs mvn and a JDK >= 17. Run by ../setup.sh.
set -euo pipefail
. ./jdk.sh
flock "$CACHE/maven.lock" mvn -q -B \
    org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory=lib
mkdir -p work/node
"$jdk/bin/javac" -nowarn -cp 'lib/*' -d work/node TestNode.java
"$jdk/bin/jar" cf lib/testnode.jar -C work/node .
. ./archive.sh
