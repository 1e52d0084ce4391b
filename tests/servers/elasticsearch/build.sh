#!/bin/bash
# build.sh VERSION: resolves the jars from Maven Central with the ordinary Maven client and lays the node out in
# the current folder, which holds the recipe. Needs mvn and a JDK >= 17. Run by ../setup.sh.
set -euo pipefail
version=$1
. ./jdk.sh
flock "$CACHE/maven.lock" mvn -q -B \
    org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory=lib

netty=modules/transport-netty4
plugin=modules/testplugin
mkdir -p $netty $plugin work/node work/plugin
descriptor() {
    printf 'name=%s\ndescription=x\nversion=%s\nelasticsearch.version=%s\njava.version=17\nclassname=%s\n' \
        "$1" "$version" "$version" "$2" >"modules/$1/plugin-descriptor.properties"
}
mv lib/transport-netty4-*.jar lib/netty-*.jar lib/elasticsearch-ssl-config-*.jar $netty/
descriptor transport-netty4 org.elasticsearch.transport.netty4.Netty4Plugin # no modulename: class path, not module path
descriptor testplugin TestPlugin
"$jdk/bin/javac" -nowarn -cp 'lib/*' -d work/node TestNode.java
"$jdk/bin/jar" cf lib/testnode.jar -C work/node .
"$jdk/bin/javac" -nowarn -cp 'lib/*' -d work/plugin TestPlugin.java
"$jdk/bin/jar" cf $plugin/testplugin.jar -C work/plugin .
. ./archive.sh
