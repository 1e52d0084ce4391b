"""The chart and the plain manifests on a real API server: dry run, install, upgrade, uninstall; and what its account may do."""

import json
import pathlib
import subprocess

import pytest
import yaml

from tailrace_test import KubeApi
from test_chart import CHART, EVERYTHING, EXAMPLES, ROOT, rendered

OPERATOR = "github.com/prometheus-operator/prometheus-operator@v0.80.1"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """With the CRDs of the Prometheus operator, out of its Go module."""
    go = subprocess.run(["go", "mod", "download", "-json", OPERATOR], cwd="/", capture_output=True, text=True, check=True)
    crds = pathlib.Path(json.loads(go.stdout)["Dir"]) / "example/prometheus-operator-crd"
    with KubeApi(tmp_path_factory.mktemp("cluster")) as api:
        for kind in ("servicemonitors", "podmonitors", "prometheusrules"):
            api.kubectl("apply", "--server-side", "-f", crds / f"monitoring.coreos.com_{kind}.yaml")
        for kind in ("servicemonitors", "podmonitors", "prometheusrules"):
            api.kubectl("wait", "--for=condition=Established", f"crd/{kind}.monitoring.coreos.com", "--timeout=30s")
        yield api


@pytest.fixture(params=[None, *EXAMPLES, "everything"], ids=lambda v: getattr(v, "stem", v) or "defaults")
def values(request, tmp_path):
    if request.param == "everything":
        path = tmp_path / "everything.yaml"
        path.write_text(EVERYTHING)
        return ["-f", path]
    return ["-f", request.param] if request.param else []


def kept(cluster, namespace):
    """Names of what is there, of the kinds that the chart makes."""
    kinds = ("daemonset,configmap,service,serviceaccount,networkpolicy,clusterrole,clusterrolebinding,"
             "servicemonitor.monitoring.coreos.com,podmonitor.monitoring.coreos.com,prometheusrule.monitoring.coreos.com")
    got = cluster.kubectl("get", kinds, "-n", namespace, "-l", "app.kubernetes.io/name=tailrace", "-o", "name")
    return set(got.stdout.split())


def test_installed_upgraded_uninstalled(cluster, values, request):
    namespace = cluster.namespace("logs-" + request.node.callspec.id)
    args = ["tailrace", CHART, "-n", namespace, *values]
    cluster.kubectl("apply", "--dry-run=server", "-n", namespace, "-f", "-", stdin=rendered(*values).replace("namespace: logs", f"namespace: {namespace}"))
    cluster.helm("install", *args)
    there = kept(cluster, namespace)
    assert "daemonset.apps/tailrace" in there
    before = cluster.get(f"/apis/apps/v1/namespaces/{namespace}/daemonsets/tailrace")
    cluster.helm("upgrade", *args, "--set", "image.tag=9.9.9", "--set", "config.limits.memory=48MiB")
    after = cluster.get(f"/apis/apps/v1/namespaces/{namespace}/daemonsets/tailrace")
    assert after["metadata"]["generation"] > before["metadata"]["generation"]
    assert after["spec"]["template"]["spec"]["containers"][0]["image"].endswith(":9.9.9")
    config = cluster.get(f"/api/v1/namespaces/{namespace}/configmaps/tailrace")["data"]["tailrace.yaml"]
    assert yaml.safe_load(config)["limits"]["memory"] == "48MiB"
    # A configuration alone is no rollout: the agents take it themselves.
    cluster.helm("upgrade", *args, "--set", "image.tag=9.9.9", "--set", "config.limits.memory=64MiB")
    again = cluster.get(f"/apis/apps/v1/namespaces/{namespace}/daemonsets/tailrace")
    assert again["metadata"]["generation"] == after["metadata"]["generation"]
    assert "Tailrace" in cluster.helm("get", "notes", "tailrace", "-n", namespace).stdout
    cluster.helm("rollback", "tailrace", "1", "-n", namespace)
    assert kept(cluster, namespace) == there
    cluster.helm("uninstall", "tailrace", "-n", namespace)
    assert not kept(cluster, namespace)


def test_plain_manifests_and_kustomize(cluster):
    for where in (["-f", ROOT / "packaging/kubernetes/tailrace.yaml"], ["-k", ROOT / "packaging/kustomize"]):
        cluster.kubectl("apply", *where)
        cluster.kubectl("diff", *where)  # what was applied is what is there
        cluster.kubectl("delete", "--wait=false", *where)


def may(cluster, account, verb, what, namespace="default"):
    """resource[.group][/subresource]"""
    what, _, sub = what.partition("/")
    resource, _, group = what.partition(".")
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {"user": account, "resourceAttributes": {
        "verb": verb, "resource": resource, "group": group, "subresource": sub, "namespace": namespace}}}
    answer = cluster.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body=review).expect(201).json()
    return answer["status"]["allowed"]


@pytest.mark.parametrize("more", [[], ["--set", "kubernetes.namespaceLabels=true", "--set", "kubernetes.kubelet=true"],
                                  ["--set", "kubernetes.api=false"]], ids=["defaults", "all", "none"])
def test_its_account_may_read_pods_and_nothing_else(cluster, more, request):
    namespace = cluster.namespace("rbac-" + request.node.callspec.id)
    cluster.helm("install", "tailrace", CHART, "-n", namespace, *more)
    try:
        account = f"system:serviceaccount:{namespace}:tailrace"
        api, all_ = "api=false" not in str(more), bool(more) and "api=false" not in str(more)
        reads = {verb: may(cluster, account, verb, "pods", "kube-system") for verb in ("get", "list", "watch")}
        assert set(reads.values()) == {api}
        assert may(cluster, account, "watch", "namespaces") == all_ and may(cluster, account, "get", "nodes/pods") == all_
        for verb in ("create", "update", "patch", "delete", "deletecollection"):
            for what in ("pods", "namespaces", "nodes/pods", "configmaps"):
                assert not may(cluster, account, verb, what), (verb, what)
        for what in ("secrets", "configmaps", "nodes", "nodes/proxy", "deployments.apps", "replicasets.apps", "pods/log", "pods/exec", "events"):
            assert not may(cluster, account, "get", what) and not may(cluster, account, "list", what), what
        if api:  # what the agent asks, with the account's own token
            token = cluster.service_token(namespace, "tailrace")
            pods = "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-a"
            assert cluster.request("GET", pods, token=token).status == 200
            assert cluster.request("GET", pods + "&watch=1&timeoutSeconds=1", token=token).status == 200
            assert cluster.request("GET", "/api/v1/secrets", token=token).status == 403
            assert {code for _, _, code in cluster.audited(account)} == {200, 403}
    finally:
        cluster.helm("uninstall", "tailrace", "-n", namespace)


@pytest.mark.parametrize("uses_namespaces", [False, True], ids=["pods", "namespaces"])
def test_what_the_agent_asks_is_what_its_account_may(cluster, agent, tmp_path, uses_namespaces):
    """By the API server's audit log: it asks for nothing that is refused, and uses every verb it is given but one."""
    name = f"audit-{int(uses_namespaces)}"
    namespace = cluster.namespace(name)
    cluster.helm("install", "tailrace", CHART, "-n", namespace, "--set", f"kubernetes.namespaceLabels={str(uses_namespaces).lower()}")
    try:
        (tmp_path / "token").write_text(cluster.service_token(namespace, "tailrace"))
        apps = cluster.namespace("apps-" + name, labels={"team": "blue"})
        pod = cluster.pod(apps, "web-1", labels={"app": "web"}, node="node-a")
        log = tmp_path / f"pods/{apps}_web-1_{pod['metadata']['uid']}/app/0.log"
        log.parent.mkdir(parents=True)
        log.write_text('2026-06-01T12:00:00.000000000Z stdout F {"level":"info","message":"one"}\n')
        fields = {"app": "{label.app}", **({"team": "{namespace_label.team}"} if uses_namespaces else {})}
        a = agent({"kubernetes": {"api": cluster.url, "token_file": str(tmp_path / "token"), "ca_file": str(cluster.ca)},
                   "inputs": {"pods": {"type": "kubernetes", "include": [f"{tmp_path}/pods/*/*/*.log"], "fields": fields}},
                   "outputs": {"out": {"type": "file", "path": str(tmp_path / "out.ndjson"), "compress": False}}},
                  env={"NODE_NAME": "node-a"})
        a.wait_delivered(1, "out")
        line = json.loads((tmp_path / "out.ndjson").read_text())
        assert line["app"] == "web" and line.get("team") == ("blue" if uses_namespaces else None), line
        a.sigterm()
        asked = cluster.audited(f"system:serviceaccount:{namespace}:tailrace")
        assert asked and all(code == 200 for _, _, code in asked), asked
        used = {(verb, path.split("?")[0].split("/")[3]) for verb, path, _ in asked}
        assert used <= {(v, w) for v in ("list", "watch", "get") for w in ("pods", "namespaces")}, used
        assert {w for _, w in used} == ({"pods", "namespaces"} if uses_namespaces else {"pods"}), used
        assert all("fieldSelector=spec.nodeName" in path for _, path, _ in asked if path.startswith("/api/v1/pods?")), asked
        print(sorted(asked))
    finally:
        cluster.helm("uninstall", "tailrace", "-n", namespace)
