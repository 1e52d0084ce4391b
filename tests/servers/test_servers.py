"""The real servers, and what the library says of them: pushed by hand, read back, restarted."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from tailrace_test import (
    TESTS, Elastic, Forward, KubeApi, Loggen, Loki, assert_arrived, free_port, request, server_dir, wait_until, wire,
)
from tailrace_test.proc import Process

SECOND = 1_000_000_000


def test_setup_is_instant_and_knows_its_names():
    start = time.monotonic()
    run = subprocess.run([TESTS / "servers" / "setup.sh", "all"], capture_output=True, text=True, check=True)
    assert [l.split()[0] for l in run.stdout.splitlines()] == ["loki", "elasticsearch", "opensearch", "kubernetes"]
    assert time.monotonic() - start < 5 and run.stderr == ""
    for name, version in (("loki", "3.7.8"), ("elasticsearch", "8.19.21"), ("opensearch", "2.19.1"), ("kubernetes", "1.36.3")):
        assert f"{name}-{version}-" in str(server_dir(name))
    run = subprocess.run([TESTS / "servers" / "setup.sh", "nonsense"], capture_output=True, text=True, check=False)
    assert run.returncode == 1 and "no server 'nonsense'" in run.stderr


# --- Loki ---


def test_loki_gives_back_what_was_pushed(loki, tenant):
    lines = Loggen().lines(2000)
    now = time.time_ns()
    start, end = now - 60 * SECOND, now + 60 * SECOND
    by_stream = {"a": lines[:1500], "b": lines[1500:]}
    loki.push(tenant, [
        ({"app": name}, [(start + at, l.text, {"module": l.module}) for at, l in enumerate(group)])
        for name, group in by_stream.items()
    ])
    for page, until, n in ((5000, end, 2000), (700, end, 2000), (1, start + 5, 5)):
        got = loki.query_all(tenant, '{app=~"a|b"}', start, until, page=page)
        assert_arrived([l for group in by_stream.values() for l in group[:n]], [line for _, _, line in got])
        assert [ts for _, ts, _ in got] == sorted(ts for _, ts, _ in got)
    labels, ts, line = loki.query_all(tenant, '{app="b"}', start, end)[0]
    assert line == lines[1500].text and ts == start and labels["module"] == lines[1500].module
    assert loki.count(tenant, '{app=~".+"}', start, end) == 2000
    assert loki.wait_count(tenant, '{app="b"}', start, end, 500, 5) == 500
    assert loki.received_lines()[tenant] == 2000
    assert sorted(loki.label_values(tenant, "app", start, end)) == ["a", "b"]
    assert len(loki.series(tenant, '{app="a"}', start, end)) == 1
    loki.flush()
    assert_arrived(lines, loki.lines(tenant, '{app=~".+"}', start, end))


def test_loki_pages_through_equal_times(loki, tenant):
    now = time.time_ns() - 10 * SECOND
    entries = [(now + at // 40, f"line {at}") for at in range(200)]  # 40 of each nanosecond, in two streams
    loki.push(tenant, [({"s": "1"}, entries), ({"s": "2"}, entries)])
    for page in (7, 40, 80, 81, 5000):
        got = loki.query_all(tenant, '{s=~".+"}', now, now + SECOND, page=page)
        assert len(got) == 400 and len({(d["s"], line) for d, _, line in got}) == 400, page


def test_loki_pages_through_what_is_too_large_for_one_answer(loki, tenant):
    now = time.time_ns() - 10 * SECOND
    for part in range(3):  # 90 lines of 100 KB: more than twice the 4 MiB that Loki answers at once
        entries = [(now + n, f"{n} " + "x" * 100_000) for n in range(30 * part, 30 * part + 30)]
        loki.push(tenant, [({"s": "1"}, entries)])
    got = loki.query_all(tenant, '{s="1"}', now, now + SECOND)
    assert [int(line.split()[0]) for _, _, line in got] == list(range(90))


def test_loki_takes_our_protobuf_and_refuses_a_cut_one(loki, tenant):
    now = time.time_ns()
    body = wire.snappy_compress(wire.encode_push([({"job": "t"}, [(now, "hi", {"pod": "p-1"})])]))
    headers = {"Content-Type": "application/x-protobuf", "X-Scope-OrgID": tenant}
    url = loki.url + "/loki/api/v1/push"
    assert request("POST", url, body, headers).status == 204
    assert request("POST", url, body[:-3], headers).status == 400
    got = loki.query_all(tenant, '{job="t"}', now - SECOND, now + SECOND)
    assert [(line, labels["pod"]) for labels, _, line in got] == [("hi", "p-1")]


def test_loki_limits_one_tenant_at_run_time(loki, tenant):
    line = [({"a": "b"}, [(time.time_ns(), "x" * 5000)])]
    loki.set_overrides({tenant: {"ingestion_rate_mb": 0.001, "ingestion_burst_size_mb": 0.001}})
    assert loki.push(tenant, line, expect=None).status == 429
    assert loki.push(tenant + "-other", line).status == 204
    assert loki.discarded() == {(tenant, "rate_limited"): 1}
    loki.set_overrides({"other": {"max_line_size": 10}})
    loki.set_overrides({})
    assert loki.push("other", line).status == 204


def test_loki_keeps_its_data_over_stop_and_kill(tmp_path):
    loki = Loki(tmp_path, max_line_size=100)
    now = time.time_ns()
    with loki:
        for name, again in (("first", loki.restart), ("second", lambda: (loki.kill(), loki.start()))):
            loki.push("t", [({"job": name}, [(now, name)])])
            again()
        assert sorted(loki.lines("t", '{job=~".+"}', now - SECOND, now + SECOND)) == ["first", "second"]
        assert loki.push("t", [({"job": "x"}, [(now, "y" * 101)])], expect=None).status == 400
        pid = loki.process.pid
    assert not os.path.exists(f"/proc/{pid}")


def test_loki_canary_and_logcli_run(loki, tenant, tmp_path):
    now = time.time_ns()
    loki.push(tenant, [({"job": "t"}, [(now, "hello logcli")])])
    out = subprocess.run(
        [Loki.binary("logcli"), f"--addr={loki.url}", f"--org-id={tenant}", "query", "-q", "-o", "raw", '{job="t"}'],
        capture_output=True, text=True, timeout=60, check=True,
    )
    assert "hello logcli" in out.stdout
    port = free_port()
    canary = Process(
        [Loki.binary("loki-canary"), f"-addr=127.0.0.1:{loki.port}", f"-tenant-id={tenant}", f"-port={port}",
         "-interval=100ms"], tmp_path / "canary")
    try:
        wait_until(lambda: (tmp_path / "canary.out").read_text().count("\n") >= 3, 20, lambda: canary.describe())
        assert "loki_canary_entries_total" in request("GET", f"http://127.0.0.1:{port}/metrics").text
    finally:
        canary.kill()  # on SIGTERM it would first sleep for 10 s


# --- Elasticsearch and OpenSearch ---


def test_search_gives_back_what_was_written(search, index):
    lines = Loggen().lines(3000)
    bulk = []
    for l in lines:
        bulk += [{"create": {"_index": index, "_id": l.seq}}, {"seq": l.seq, "level": l.level, "message": l.message}]
    assert not search.bulk(bulk)["errors"]
    search.refresh(index)
    assert search.count(index) == 3000 and search.wait_count(index, 3000, 5) == 3000
    hits = search.search_all(index, page=700)
    assert_arrived(lines, [h["_source"] for h in hits])
    assert {h["_id"] for h in hits} == {l.seq for l in lines}
    errors = search.search_all(index, {"term": {"level.keyword": "error"}}, fields=["seq"])
    assert_arrived([l for l in lines if l.level == "error"], [h["_source"] for h in errors])
    assert set(errors[0]["_source"]) == {"seq"}
    assert search.count(index, {"match": {"seq": lines[7].seq}}) == 1
    assert search.indices(index) == {index: 3000}
    again = search.bulk(bulk[:2])
    assert again["items"][0]["create"]["status"] == 409
    search.delete(index)
    search.delete(index)
    assert search.count(index) == 0 and search.search_all(index) == []


def test_search_refuses_single_items(search, index):
    search.put(index, {"mappings": {"properties": {"n": {"type": "integer"}}}})
    answer = search.bulk([{"create": {"_index": index}}, {"n": 1}, {"create": {"_index": index}}, {"n": "x"},
                          {"create": {"_index": index.upper()}}, {"n": 1}])
    assert [i["create"]["status"] for i in answer["items"]] == [201, 400, 400]
    search.cluster_settings(action__auto_create_index="false")
    try:
        answer = search.bulk([{"create": {"_index": index + "-none"}}, {"n": 1}])
        assert answer["items"][0]["create"]["status"] == 404
    finally:
        search.cluster_settings(action__auto_create_index=None)
    search.put(f"{index}/_settings", {"index.blocks.read_only_allow_delete": True})
    answer = search.bulk([{"create": {"_index": index}}, {"n": 1}])
    assert answer["items"][0]["create"]["status"] == 429
    search.put(f"{index}/_settings", {"index.blocks.read_only_allow_delete": None})
    assert not search.bulk([{"create": {"_index": index}}, {"n": 1}])["errors"]


@pytest.mark.parametrize("kind", ["elasticsearch", "opensearch"])
def test_search_keeps_its_data_over_stop_and_kill(tmp_path, kind):
    server = Elastic(tmp_path, kind, settings={"http.max_content_length": "10kb"})
    with server:
        assert ("distribution" in server.get("/")["version"]) == (kind == "opensearch")
        server.bulk([{"create": {"_index": "i"}}, {"a": 1}])
        server.restart()
        server.refresh("i")
        assert server.count("i") == 1
        server.bulk([{"create": {"_index": "i"}}, {"a": 2}])
        server.kill()
        server.start()
        server.refresh("i")
        assert sorted(h["_source"]["a"] for h in server.search_all("i")) == [1, 2]
        long = {"create": {"_index": "i"}}, {"a": "x" * 20000}
        assert server.request("POST", "/_bulk", "".join(json.dumps(l) + "\n" for l in long),
                              headers={"Content-Type": "application/x-ndjson"}).status == 413
        pid = server.process.pid
    assert not os.path.exists(f"/proc/{pid}")


# --- a fault in front of a real server ---


def test_a_lost_reply_in_front_of_a_real_server(faults, loki, tenant):
    front = faults(default=Forward(loki.url))
    front.script(Forward(loki.url, lose=True))
    now = time.time_ns()
    body = wire.snappy_compress(wire.encode_push([({"job": "t"}, [(now, "once", {})])]))
    headers = {"Content-Type": "application/x-protobuf", "X-Scope-OrgID": tenant}
    with pytest.raises(OSError):
        request("POST", front.url + "/loki/api/v1/push", body, headers)
    assert request("POST", front.url + "/loki/api/v1/push", body, headers).status == 204
    assert loki.received_lines()[tenant] == 2
    assert loki.lines(tenant, '{job="t"}', now - SECOND, now + SECOND) == ["once"]


def test_two_setups_at_once_wait_for_each_other(tmp_path):
    """With a recipe of our own in place of a server's: built once although asked for twice."""
    servers = tmp_path / "servers"
    (servers / "opensearch").mkdir(parents=True)
    (servers / "setup.sh").write_text((TESTS / "servers" / "setup.sh").read_text())
    (servers / "opensearch" / "pom.xml").write_text("<server>1.2.3</server>\n")
    build = servers / "opensearch" / "build.sh"
    build.write_text('echo "$1" >>"$CACHE/builds"; until [ -e "$CACHE/go" ]; do sleep 0.01; done; touch whole\n')
    env = dict(os.environ, TAILRACE_TEST_CACHE=str(tmp_path / "cache"))

    def setup():
        return subprocess.run(["bash", servers / "setup.sh", "opensearch"], env=env, capture_output=True, text=True,
                              timeout=30, check=False)

    runs = []
    threads = [threading.Thread(target=lambda: runs.append(setup())) for _ in range(2)]
    for t in threads:
        t.start()
    wait_until(lambda: (tmp_path / "cache" / "builds").exists(), 10, "a build runs")
    (tmp_path / "cache" / "go").touch()
    for t in threads:
        t.join(30)
    assert [r.returncode for r in runs] == [0, 0], runs
    assert runs[0].stdout == runs[1].stdout
    folder = runs[0].stdout.split()[1]
    assert "/opensearch-1.2.3-" in folder and os.path.exists(folder + "/whole")
    assert (tmp_path / "cache" / "builds").read_text() == "1.2.3\n"
    build.write_text("echo no luck; false\n")  # a changed recipe has a folder of its own, and a failed one leaves none
    run = setup()
    assert run.returncode == 1 and "no luck" in run.stderr
    assert len([p for p in (tmp_path / "cache").iterdir() if p.is_dir() and p.suffix != ".tmp"]) == 1


def test_a_server_for_the_shell(tmp_path):
    env = dict(os.environ, PYTHONPATH=str(TESTS / "lib"))
    shell = Process([sys.executable, "-m", "tailrace_test", "loki", tmp_path / "data"], tmp_path / "out", env=env)
    try:
        text = wait_until(lambda: (tmp_path / "out.out").read_text(), 30, lambda: shell.describe())
        assert text.startswith("READY http://127.0.0.1:") and request("GET", text.split()[1] + "/ready").status == 200
    finally:
        assert shell.stop() == 0, shell.describe()
    with pytest.raises(OSError):
        request("GET", text.split()[1] + "/ready")


# --- Kubernetes ---


def test_kube_shows_pods_counts_requests_and_forgets(kube, tenant):
    ns = kube.namespace(tenant)
    token = kube.account(ns, tenant, [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}])
    user = f"system:serviceaccount:{ns}:{tenant}"
    kube.pod(ns, "web-1", labels={"app": "web"}, node=tenant, owner=("ReplicaSet", "web"))
    kube.patch_pod(ns, "web-1", annotations={"a": "b"})
    pods = kube.request("GET", "/api/v1/pods", params={"fieldSelector": f"spec.nodeName={tenant}"}, token=token).json()
    assert [p["metadata"]["annotations"] for p in pods["items"]] == [{"a": "b"}]
    assert kube.request("GET", "/api/v1/secrets", token=token).status == 403
    assert kube.request("GET", "/api/v1/pods", token="wrong").status == 401
    kube.delete_pod(ns, "web-1")
    assert kube.get(f"/api/v1/namespaces/{ns}/pods")["items"] == []
    assert kube.asked(user, "list") == 2 and [code for _, _, code in kube.audited(user)] == [200, 403]


def test_kube_forgets_history(tmp_path):
    with KubeApi(tmp_path, watch_cache=False) as kube:
        kube.namespace("n")
        kube.pod("n", "p")
        kube.compact()
        r = kube.request("GET", "/api/v1/pods", params={"watch": "1", "resourceVersion": "1", "timeoutSeconds": "5"})
        assert r.status == 410 or r.json()["object"]["code"] == 410
        assert kube.kubectl("get", "pods", "-n", "n", "-o", "name").stdout == "pod/p\n"


def test_kube_tools_are_there():
    assert (KubeApi.binary("schemas") / "definitions.json").stat().st_size > 1_000_000
    assert (KubeApi.binary("schemas") / "daemonset-apps-v1.json").exists()
    for name in ("helm", "kubeconform", "kubectl", "etcd", "kube-apiserver"):
        assert os.access(KubeApi.binary(name), os.X_OK)
