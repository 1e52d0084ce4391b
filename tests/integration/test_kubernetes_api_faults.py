"""What a real API server will not say on request: refusals, halves, pages that expire, far too much. Lines go on with what their
path says, it is said once, and recovery is by itself."""

import json
import shutil

import pytest

from kubeworld import Node, wait_synced
from support import QUICK, config, folder
from tailrace_test import Bytes, Flood, KubeApi, Reply, Stall, wait_until

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"


def pod(name, app="web", version=1):
    return {"kind": "Pod", "metadata": {"name": name, "namespace": "shop", "uid": f"uid-{name}", "resourceVersion": str(version),
                                        "labels": {"app": app}, "annotations": {}},
            "spec": {"nodeName": "n", "containers": [{"name": "app", "image": "a:1"}]}}


def event(kind, obj):
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


def bookmark(version, end=False):
    note = {"annotations": {"k8s.io/initial-events-end": "true"}} if end else {}
    return event("BOOKMARK", {"kind": "Pod", "metadata": {"resourceVersion": str(version), **note}})


def status(code, reason="Refused", message="no"):
    return {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}


def refusal(code, headers=None, **kw):
    return Reply(code, status(code, **kw), headers=headers)


def watch(*events):
    """Events, and then nothing until the end of the test."""
    return Bytes(HEAD + b"".join(events), hold=True)


def first(request):
    return "sendInitialEvents" in request.params


def watches(request):
    return "watch" in request.params


def lists(request):
    return request.path == "/api/v1/pods" and not watches(request)


def gets(request):
    return request.path.startswith("/api/v1/namespaces/")


class Player(Node):
    """A node whose API server is a script."""

    def __init__(self, server, tmp_path):
        self.server, self.dir, self.name, self.ns = server, tmp_path, "n", "shop"
        self.token_file = tmp_path / "token"
        self.token_file.write_text("t-1")
        self.logs = folder(tmp_path / "pods")
        self.written, self.n = [], 0
        server.script(*[refusal(404)] * 50, when=gets)

    def config(self, kubernetes=None, **more):
        api = {"api": self.server.url, "token_file": str(self.token_file), "ca_file": "", "requests_per_minute": 600, **(kubernetes or {})}
        output = {"type": "file", "path": str(self.dir / "archive/{tenant}/a.ndjson"), "compress": False, "queue": QUICK}
        return config({"pods": self.input(**more)}, {"out": output}, kubernetes=api, fields={"node": "n"})

    def asked(self, which):
        return [r for r in self.server.requests if which(r)]


@pytest.fixture
def player(faults, tmp_path):
    server = faults()
    server.default = Stall()
    yield Player(server, tmp_path)
    server.release()


@pytest.mark.parametrize("code,reason", [(401, "Unauthorized"), (403, "Forbidden"), (429, "TooManyRequests"), (503, "ServiceUnavailable")])
def test_refused_lines_go_on_and_it_recovers(agent, player, code, reason):
    p = player
    p.server.script(*[refusal(code, reason=reason, headers={"Retry-After": "1"} if code == 429 else None)] * 3, when=watches)
    p.server.script(watch(event("ADDED", pod("late")), bookmark(9, end=True)), when=watches)
    a = agent(p.config(metadata_wait="200ms"))
    p.write(pod("early"))
    assert p.wait(agent=a)[0]["pod"] == "early"
    wait_synced(a)
    p.write(pod("late"))
    assert p.wait(agent=a)[1]["app"] == "web"
    assert a.metric("kube_requests_total", verb="watch", code=str(code)) == 3
    assert len(a.events("kube.failing")) == 1 and a.events("kube.refused")[0]["fields"]["reason"] == reason
    a.wait_event("kube.recovered")


@pytest.mark.parametrize("way", ["422", "error event"])
def test_an_old_server_is_asked_for_pages_that_expire(agent, player, way):
    p = player
    p.server.script(refusal(422) if way == "422" else Bytes(HEAD + event("ERROR", status(500))), when=first)
    page = lambda version, more, *pods: Reply(200, {"kind": "PodList", "metadata": {"resourceVersion": version, "continue": more},
                                                     "items": list(pods)})
    p.server.script(page("5", "a/b=", pod("one")), refusal(410, reason="Expired"), page("6", "c", pod("one", "new")), page("6", "", pod("two")),
                    when=lists)
    p.server.script(watch(bookmark(7)), when=lambda r: watches(r) and not first(r))
    a = agent(p.config())
    wait_synced(a)
    for name in ("one", "two"):
        p.write(pod(name))
    found = p.wait(agent=a)
    assert (found[0]["app"], found[1]["app"]) == ("new", "web")
    assert [r.params.get("continue") for r in p.asked(lists)] == [None, "a/b=", None, "c"]
    assert all(r.params["limit"] == "500" and r.params["fieldSelector"] == "spec.nodeName=n" for r in p.asked(lists))
    assert [r.params["resourceVersion"] for r in p.asked(watches) if not first(r)] == ["6"]


@pytest.mark.parametrize("cut", [1, 40, 150])
def test_half_an_event_comes_again(agent, player, cut):
    p = player
    p.server.script(Bytes(HEAD + event("ADDED", pod("one")) + bookmark(9, end=True) + event("ADDED", pod("two", version=11))
                          + event("ADDED", pod("three", version=12))[:cut]), when=first)
    p.server.script(watch(event("ADDED", pod("three", version=12))), when=watches)
    a = agent(p.config())
    wait_until(lambda: len(p.asked(watches)) == 2, 20, "the watch goes on")
    for name in ("one", "two", "three"):
        p.write(pod(name))
    found = p.wait(agent=a)
    assert [found[i]["app"] for i in range(3)] == ["web"] * 3
    assert p.asked(watches)[1].params["resourceVersion"] == "11"


def test_a_watch_that_ends_with_410_begins_anew(agent, player):
    p = player
    p.server.script(Bytes(HEAD + event("ADDED", pod("one")) + bookmark(9, end=True) + event("ERROR", status(410, "Expired"))),
                    watch(event("ADDED", pod("two")), bookmark(20, end=True)), when=first)
    a = agent(p.config())
    wait_until(lambda: a.metric("kube_relists_total") == 2, 20, "all is read anew")
    p.write(pod("one"))  # not in the second state: deleted, and still known
    p.write(pod("two"))
    found = p.wait(agent=a)
    assert (found[0]["app"], found[1]["app"]) == ("web", "web")
    wait_until(lambda: a.metric("kube_pods") == 1, 10, "one is left")
    assert len(p.asked(lists)) == 0


def test_a_hundred_megabytes(agent, player):
    """Of a state with 500 pods of 200 KB each only what is used is kept."""
    p = player
    pods = []
    for i in range(500):
        one = pod(f"p-{i}", f"app-{i}")
        one["spec"]["containers"][0]["env"] = [{"name": f"E{k}", "value": "x" * 1000} for k in range(200)]
        pods.append(event("ADDED", one))
    p.server.script(watch(*pods, bookmark(9, end=True)), when=first)
    without = agent(p.config(kubernetes={"api": "off"}), name="without")
    before = without.memory()["VmHWM"]
    without.sigterm()
    a = agent(p.config())
    wait_synced(a, 60)
    a.wait_metric("kube_pods", 500)
    assert a.metric("kube_pods") == 500 and a.metric("kube_table_bytes") < 4 << 20
    p.write(pod("p-499"))
    assert p.wait(agent=a)[0]["app"] == "app-499"
    print(f"peak {before >> 10} KiB without, {a.memory()['VmHWM'] >> 10} KiB with; table {a.metric('kube_table_bytes')}")
    assert a.memory()["VmHWM"] - before < 4 << 20


def test_a_string_without_an_end(agent, player):
    p = player
    p.server.script(Flood(b"x" * 65536, size=32 << 20, first=HEAD + b'{"type":"ADDED","object":{"spec":{"a":"'), when=first)
    p.server.script(watch(event("ADDED", pod("one")), bookmark(9, end=True)), when=first)
    a = agent(p.config())
    wait_synced(a)
    p.write(pod("one"))
    assert p.wait(agent=a)[0]["app"] == "web"
    assert a.events("kube.failing")[0]["fields"]["code"] == "broken"


def test_the_kubelet_is_asked_while_the_server_is_away(agent, player, faults):
    p, kubelet = player, faults()
    p.server.script(*[refusal(503)] * 4, when=watches)
    kubelet.default = Reply(200, {"kind": "PodList", "metadata": {}, "items": [pod("one", "by the kubelet")]})
    a = agent(p.config(kubernetes={"kubelet": kubelet.url}, tenant="{label.app|namespace}"))
    p.write(pod("one"))
    doc = p.wait(agent=a)[0]
    assert doc["app"] == "by the kubelet" and a.metric("kube_requests_total", verb="kubelet", code="200") >= 1
    assert kubelet.requests[0].headers.get("Authorization") == "Bearer t-1"


def test_a_token_that_is_swapped_is_used(agent, player):
    p = player
    p.server.script(Bytes(HEAD + bookmark(9, end=True)), *[refusal(401)] * 2, when=watches)
    p.server.script(watch(bookmark(10)), when=watches)
    a = agent(p.config())
    wait_until(lambda: len(p.asked(watches)) >= 2, 20, "the first watch is over")
    p.token_file.write_text("t-2\n")
    wait_synced(a)
    tokens = [r.headers.get("Authorization") for r in p.asked(watches)]
    assert tokens[0] == "Bearer t-1" and tokens[-1] == "Bearer t-2"


# --- TLS and kubeconfig, against the real one ---


def test_a_wrong_authority_and_its_change(agent, kube, tmp_path, tenant, certs):
    node = Node(kube, tmp_path, tenant)
    ca = tmp_path / "ca.crt"
    shutil.copy(certs.ca, ca)
    one = node.pod("p-1", labels={"app": "one"})
    a = agent(node.config(kubernetes={"ca_file": str(ca)}, metadata_wait="100ms"))
    a.wait_metric("kube_requests_total", 1, verb="watch", code="tls")
    node.write(one)
    assert node.wait(agent=a)[0].get("app", "") == ""
    shutil.copy(kube.ca, ca)
    wait_synced(a)
    wait_until(lambda: node.write(one) or node.wait(agent=a)[node.n - 1].get("app") == "one", 10, "its label")


def test_a_kubeconfig(agent, kube, tmp_path, tenant):
    node = Node(kube, tmp_path, tenant)
    pod_ = node.pod("p-1", labels={"app": "one"})
    node.write(pod_)
    a = agent(node.config(kubernetes={"api": "auto", "kubeconfig": str(kube.kubeconfig), "token_file": "/none", "ca_file": "/none"}))
    assert node.wait(agent=a)[0]["app"] == "one"


def test_in_a_cluster_by_the_service_account(agent, kube, tmp_path, tenant):
    node = Node(kube, tmp_path, tenant)
    node.write(node.pod("p-1", labels={"app": "one"}))
    a = agent(node.config(kubernetes={"api": "auto"}),
              env={"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(kube.port), "NODE_NAME": node.name})
    assert node.wait(agent=a)[0]["app"] == "one"


def test_an_rbac_that_is_taken_away_and_given_back(agent, kube, tmp_path, tenant):
    node = Node(kube, tmp_path, tenant)
    a = agent(node.config(metadata_wait="100ms"))
    wait_synced(a)
    role = f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{tenant}"
    rules = kube.get(role)["rules"]
    kube.request("PATCH", role, body=json.dumps({"rules": []}), headers={"Content-Type": "application/merge-patch+json"}).expect(200)
    a.restart()  # an open watch goes on
    a.wait_metric("kube_requests_total", 1, verb="watch", code="403")
    node.write(node.pod("p-1", labels={"app": "one"}))
    assert node.wait(agent=a)[0]["pod"] == "p-1"
    kube.request("PATCH", role, body=json.dumps({"rules": rules}), headers={"Content-Type": "application/merge-patch+json"}).expect(200)
    wait_synced(a, 60)


# --- docker ---


def test_docker_reads_what_is_beside_the_log(agent, tmp_path):
    ids = ["0123456789abcdef" * 4, "fedcba9876543210" * 4]
    for id_, name, labels in ((ids[0], "/shop-web-1", {"com.docker.compose.project": "shop", "com.docker.compose.service": "web", "tier": "front"}),
                              (ids[1], "/alone", {})):
        d = folder(tmp_path / "containers" / id_)
        (d / "config.v2.json").write_text(json.dumps({"ID": id_, "Name": name, "Config": {"Image": "img:1", "Labels": labels}}))
        (d / f"{id_}-json.log").write_text(
            json.dumps({"log": json.dumps({"level": "info", "of": name}) + "\n", "stream": "stdout", "time": "2026-11-21T10:00:00.1Z"}) + "\n")
    out = {"type": "file", "path": str(tmp_path / "a.ndjson"), "compress": False, "queue": QUICK}
    a = agent(config({"c": {"type": "docker", "include": [str(tmp_path / "containers/*/*-json.log")],
                            "fields": {"tier": "{label.tier}", "image": "{image}"}}}, {"out": out}))
    wait_until(lambda: (tmp_path / "a.ndjson").exists() and len((tmp_path / "a.ndjson").read_text().splitlines()) == 2, 20,
               lambda: f"two lines\n{a.describe()}")
    docs = {d["of"]: d for d in map(json.loads, (tmp_path / "a.ndjson").read_text().splitlines())}
    web, alone = docs["/shop-web-1"], docs["/alone"]
    assert (web["container_name"], web["service_name"], web["namespace"], web["tenant"], web["tier"], web["image"]) == (
        "shop-web-1", "web", "shop", "shop", "front", "img:1")
    assert (alone["container_name"], alone["service_name"], alone["tenant"]) == ("alone", "alone", "default")
