#!/bin/sh
# manifests.sh [FOLDER]: what is made of other files, written where it belongs (or below FOLDER, for a comparison): the rules
# and dashboards in the chart, and the plain manifests, which are the chart's defaults. Needs helm: $HELM, or that of
# tests/servers/setup.sh kubernetes.
set -eu
cd "$(dirname "$0")/.."
to=${1:-.}
helm=${HELM:-$(tests/servers/setup.sh kubernetes | sed 's/^kubernetes //')/helm}
chart=$to/packaging/helm/tailrace
mkdir -p "$chart/files" "$to/packaging/kubernetes"
cp packaging/prometheus/tailrace.rules.yaml packaging/grafana/*.json "$chart/files/"
{
    cat <<'HEAD'
# Tailrace as a DaemonSet, without Helm: `kubectl apply -f packaging/kubernetes/tailrace.yaml`. Made from the chart by
# scripts/manifests.sh; change it there, or with kustomize as packaging/kustomize shows.
apiVersion: v1
kind: Namespace
metadata:
  name: tailrace
  labels:
    # It reads the node's log folder and has one capability more than the stricter levels allow.
    pod-security.kubernetes.io/enforce: privileged
HEAD
    "$helm" template tailrace packaging/helm/tailrace --namespace tailrace --skip-tests |
        grep -v -e '^ *helm.sh/chart:' -e '^ *app.kubernetes.io/managed-by:' -e '^# Source:'
} >"$to/packaging/kubernetes/tailrace.yaml"
