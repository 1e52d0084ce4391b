#!/bin/sh
# install.sh URL [curl options]: puts the component templates, the ILM policy where the server has ILM, and the index
# templates into an Elasticsearch (8.14 or later) or OpenSearch. May be run again.
#
#   packaging/elasticsearch/install.sh https://es:9200 -H "Authorization: ApiKey $KEY" --cacert ca.pem
#
# The output then has `template: off`. OpenSearch has neither ILM nor all of the settings: they are left out there.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
url=${1:?usage: install.sh URL [curl options]}
shift
url=${url%/}

put() { # path, file or -
    curl -sS --fail-with-body -o /dev/null -X PUT -H 'Content-Type: application/json' "$@" || {
        echo "install.sh: refused" >&2
        exit 1
    }
}

opensearch=false
curl -sS "$@" "$url/" | grep -q '"distribution" *: *"opensearch"' && opensearch=true
ilm=false
if [ $opensearch = false ] && [ "$(curl -s -o /dev/null -w '%{http_code}' "$@" "$url/_ilm/policy")" = 200 ]; then ilm=true; fi

for f in "$here"/component_templates/*.json; do
    name=$(basename "$f" .json)
    [ "$name" != tailrace-ilm ] || [ $ilm = true ] || continue
    if [ $opensearch = true ]; then sed '/ignore_dynamic_beyond_limit/d; s/"limit": 2000,/"limit": 2000/' "$f"; else cat "$f"; fi |
        put "$@" --data-binary @- "$url/_component_template/$name"
    echo "component template $name"
done
if [ $ilm = true ]; then
    put "$@" --data-binary "@$here/ilm/tailrace.json" "$url/_ilm/policy/tailrace"
    echo "ILM policy tailrace"
else
    echo "no ILM here: indexes are kept until somebody deletes them" >&2
fi
for f in "$here"/index_templates/*.json; do
    name=$(basename "$f" .json)
    if [ $opensearch = true ]; then # neither knows missing components
        tr -d '\n' <"$f" | sed 's/, *"tailrace-ilm" *\]/]/; s/, *"ignore_missing_component_templates": *\[[^]]*\]//'
    else
        cat "$f"
    fi | put "$@" --data-binary @- "$url/_index_template/$name"
    echo "index template $name"
done
