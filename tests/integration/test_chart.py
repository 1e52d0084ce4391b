"""The Helm chart without a cluster: lint, rendered manifests against the schemas of Kubernetes, configurations that the agent
takes, values that are refused. Against a real API server: tests/packages/test_cluster.py."""

import json
import os
import pathlib
import re
import subprocess

import pytest
import yaml

from tailrace_test import run, server_dir

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART, EXAMPLES = ROOT / "packaging/helm/tailrace", sorted((ROOT / "packaging/helm/examples").glob("*.yaml"))
OURS = ("ServiceMonitor", "PodMonitor", "PrometheusRule")  # no part of Kubernetes: tried with their CRDs in a cluster
EVERYTHING = """
kubernetes: { namespaceLabels: true, kubelet: true }
hostPaths: { docker: /var/lib/docker/containers }
secrets: [{ name: a, optional: true, items: [{ key: k, path: p }] }]
serviceMonitor: { enabled: true, relabelings: [{ action: labeldrop, regex: x }], metricRelabelings: [{ action: labeldrop, regex: other }] }
podMonitor: { enabled: true }
prometheusRule: { enabled: true, disabled: [TailraceAbsent], runbookBaseUrl: "https://runbooks.test/" }
dashboards: { enabled: true, annotations: { grafana_folder: Logs } }
networkPolicy: { from: [{ podSelector: {} }], egress: [{ ports: [{ port: 53, protocol: UDP }] }] }
imagePullSecrets: [{ name: registry }]
env: [{ name: LOKI_URL, value: "http://x" }]
envFrom: [{ secretRef: { name: s } }]
extraVolumes: [{ name: x, emptyDir: {} }]
extraVolumeMounts: [{ name: x, mountPath: /x }]
podAnnotations: { a: b }
podLabels: { c: d }
affinity: { nodeAffinity: {} }
seLinuxOptions: { type: spc_t }
serviceAccount: { annotations: { e: f } }
"""


def tool(name, *args, stdin=None):
    return subprocess.run([server_dir("kubernetes") / name, *map(str, args)], input=stdin, capture_output=True, text=True,
                          check=False)


def rendered(*args):
    got = tool("helm", "template", "tailrace", CHART, "-n", "logs", *args)
    assert got.returncode == 0, got.stderr
    return got.stdout


def conforms(text):
    schemas = f"{server_dir('kubernetes')}/schemas/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
    got = tool("kubeconform", "-strict", "-schema-location", schemas, "-skip", ",".join(OURS), stdin=text)
    assert got.returncode == 0, got.stdout + got.stderr


def objects(text):
    return [o for o in yaml.safe_load_all(text) if o]


def takes(conf, tmp_path):
    """The agent's own judgement of a configuration, with files where the secrets would be."""
    for secret in set(re.findall(r"/var/run/secrets/tailrace/([\w./-]+)", conf)):
        path = tmp_path / "secrets" / secret
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("secret\n")
    path = tmp_path / "tailrace.yaml"
    path.write_text(conf.replace("/var/run/secrets/tailrace", str(tmp_path / "secrets")))
    got = run("check", "-c", path, env={"LOKI_URL": "http://loki:3100", "NODE_IP": "10.0.0.1"})
    assert got.returncode == 0, got.stderr


@pytest.mark.parametrize("values", [None, *EXAMPLES, "everything"], ids=lambda v: getattr(v, "stem", v) or "defaults")
def test_chart(values, tmp_path):
    args = []
    if values == "everything":
        (tmp_path / "everything.yaml").write_text(EVERYTHING)
        values = tmp_path / "everything.yaml"
    if values:
        args = ["-f", values]
    got = tool("helm", "lint", "--strict", CHART, *args)
    assert got.returncode == 0, got.stdout + got.stderr
    text = rendered(*args)
    conforms(text)
    found = objects(text)
    config = next(o for o in found if o["kind"] == "ConfigMap" and "tailrace.yaml" in o["data"])["data"]["tailrace.yaml"]
    takes(config, tmp_path)
    asks = yaml.safe_load(config).get("kubernetes", {})
    pod = next(o for o in found if o["kind"] == "DaemonSet")["spec"]["template"]["spec"]
    security = pod["containers"][0]["securityContext"]
    assert security["capabilities"] == {"drop": ["ALL"], "add": ["DAC_READ_SEARCH"]} and security["runAsUser"] == 0
    assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"] and not security["privileged"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    mounts = {m["name"]: m for m in pod["containers"][0]["volumeMounts"]}
    assert set(mounts) == {v["name"] for v in pod["volumes"]}
    assert all(m.get("readOnly") for n, m in mounts.items() if n not in ("state", "x"))
    rules = [r for o in found if o["kind"] == "ClusterRole" for r in o["rules"]]
    assert bool(rules) == pod["automountServiceAccountToken"] == (asks.get("api") != "off")
    assert any(r["resources"] == ["nodes/pods"] for r in rules) == ("kubelet" in asks)
    assert {v for r in rules for v in r["verbs"]} <= {"get", "list", "watch"}
    for o in found:
        if o["kind"] == "PrometheusRule":
            check_rule(o, tmp_path)
        if o["kind"] == "ConfigMap" and o["metadata"]["labels"].get("grafana_dashboard"):
            assert all(json.loads(d)["panels"] for d in o["data"].values())


def check_rule(rule, tmp_path):
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(rule["spec"]))
    got = subprocess.run(["promtool", "check", "rules", path], capture_output=True, text=True, check=False)
    assert got.returncode == 0, got.stdout + got.stderr
    assert "{{ $labels.instance }}" in path.read_text()


@pytest.mark.parametrize("value, where", [
    ("image.pullPolicy=Sometimes", "image.pullPolicy"), ("config.outputs.loki.type=lokki", "config.outputs.loki"),
    ("resources.limits.memory=lots", "resources.limits.memory"), ("nonsense=1", "nonsense"),
    ("tolerations[0].operator=Exist", "tolerations.0"), ("serviceMonitor.interval=often", "serviceMonitor.interval"),
    ("hostPaths.logs=var/log", "hostPaths.logs"), ("config.admin.listen=9746", "config.admin.listen"),
    ("secrets[0].key=x", "secrets.0"), ("networkPolicy.enabled=maybe", "networkPolicy.enabled"),
    ("updateStrategy.type=Recreate", "updateStrategy.type"), ("rbac.verbs=all", "rbac"),
])
def test_bad_values_are_refused_with_their_path(value, where):
    got = tool("helm", "template", "tailrace", CHART, "--set", value)
    assert got.returncode != 0, value
    said = got.stderr.replace("/", ".")
    assert where in said, got.stderr


def test_what_is_made_of_other_files_is_up_to_date(tmp_path):
    env = dict(os.environ, HELM=str(server_dir("kubernetes") / "helm"))
    subprocess.run([ROOT / "scripts/manifests.sh", tmp_path], env=env, check=True)
    for path in sorted(tmp_path.rglob("*.*")):
        if path.is_file():
            here = ROOT / path.relative_to(tmp_path)
            assert here.read_text() == path.read_text(), f"{here}: run scripts/manifests.sh"


def test_plain_manifests_and_kustomize(tmp_path):
    plain = (ROOT / "packaging/kubernetes/tailrace.yaml").read_text()
    conforms(plain)
    got = tool("kubectl", "kustomize", ROOT / "packaging/kustomize")
    assert got.returncode == 0, got.stderr
    conforms(got.stdout)
    found = objects(got.stdout)
    assert {o["metadata"].get("namespace") for o in found if o["kind"] in ("DaemonSet", "ConfigMap")} == {"logging"}
    for text in (plain, got.stdout):
        takes(next(o for o in objects(text) if o["kind"] == "ConfigMap")["data"]["tailrace.yaml"], tmp_path)
