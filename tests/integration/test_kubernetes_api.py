"""Pods of a real API server: what a line carries, what it costs the server, and what happens when the server is not there."""

import json
import os
import re
import time

import pytest

from kubeworld import Node, wait_synced
from tailrace_test import KubeApi, run, wait_until

FULL = os.environ.get("TAILRACE_FULL") == "1"


@pytest.fixture
def node(kube, tmp_path, tenant):
    return Node(kube, tmp_path, tenant)


def test_lines_carry_labels_annotations_owner_and_image(agent, node):
    labels = {"app": "web", "tier": "front", "pod-template-hash": "7d9c5b7f6d"}
    web = node.pod("web-7d9c5b7f6d-x2x4z", labels=labels, annotations={"example.org/note": "a b", "unused": "x" * 10000},
                   owner=("ReplicaSet", "web-7d9c5b7f6d"))
    job = node.pod("backup-29384756-abcde", owner=("Job", "backup-29384756"))
    db = node.pod("db-0", owner=("StatefulSet", "db"), labels={"app.kubernetes.io/name": "postgres"})
    for pod in (web, job, db):
        node.write(pod)
    a = agent(node.config())
    found = node.wait(agent=a)
    assert {k: found[0][k] for k in ("app", "tier", "note", "kind", "owner", "image", "service_name", "tenant")} == {
        "app": "web", "tier": "front", "note": "a b", "kind": "Deployment", "owner": "web", "image": "registry.test/app:1",
        "service_name": "web", "tenant": node.ns}
    assert (found[1]["kind"], found[1]["owner"]) == ("CronJob", "backup")
    assert (found[2]["kind"], found[2]["owner"], found[2]["service_name"]) == ("StatefulSet", "db", "postgres")
    wait_synced(a)
    assert node.asked("watch") == 1 and node.asked("list") == 0 and node.asked("get") == 0


def test_a_new_pod_and_a_changed_label(agent, node):
    a = agent(node.config())
    wait_synced(a)
    pod = node.pod("p-1", labels={"app": "one"})
    node.write(pod)
    assert node.wait(agent=a)[0]["app"] == "one"
    node.kube.patch_pod(node.ns, "p-1", labels={"app": "two"})
    wait_until(lambda: node.write(pod) or node.wait(agent=a)[node.n - 1]["app"] == "two", 10, "the label changes")
    node.kube.delete_pod(node.ns, "p-1")
    node.write(pod)  # what it wrote last is read after it is gone
    assert node.wait(agent=a)[node.n - 1]["app"] == "two"
    assert node.asked("watch") == 1 and node.asked("list") == 0


def test_after_a_restart_the_first_line_has_its_labels_without_a_list(agent, node):
    pod = node.pod("p-1", labels={"app": "one"})
    node.write(pod)
    a = agent(node.config())
    node.wait(agent=a)
    wait_synced(a)
    a.sigterm()
    node.write(pod, 3)
    node.kube.suspend()  # nothing can be asked
    try:
        a.start()
        found = node.wait(agent=a)
        assert [found[i]["app"] for i in range(4)] == ["one"] * 4
    finally:
        node.kube.resume()
    wait_synced(a)
    late = node.pod("p-2", labels={"app": "late"})
    node.write(late)
    assert node.wait(agent=a)[4]["app"] == "late"
    assert node.asked("list") == 0 and node.asked("watch") <= 3


def test_killed_it_goes_on_where_it_was(agent, node):
    pod = node.pod("p-1", labels={"app": "one"})
    a = agent(node.config())
    wait_synced(a)
    wait_until((a.state_dir / "kube" / "pods").exists, 20, "the cache is written")
    a.kill9()
    other = node.pod("p-2", labels={"app": "two"})
    node.write(pod)
    node.write(other)
    a.start()
    found = node.wait(agent=a)
    assert [found[0]["app"], found[1]["app"]] == ["one", "two"]
    wait_synced(a)
    assert node.asked("list") == 0 and node.asked("watch") == 2


def test_annotations_choose_within_seconds(agent, node):
    pod = node.pod("p-1", containers=("app", "side"))
    a = agent(node.config(levels="info", allow_annotations=["exclude", "levels", "tenant", "format", "service"]))
    wait_synced(a)

    def annotate(**values):
        node.kube.patch_pod(node.ns, "p-1", annotations={f"tailrace.io/{k}": v for k, v in values.items()})

    def becomes(what, true, container="app", level="info"):
        """Lines are written until the last one that arrived of the container is as told, 5 s at most."""
        def seen():
            node.write(pod, container=container, level=level)
            docs = [d for _, d in sorted(node.lines().items()) if d["container_name"] == container and d["level"] == level]
            return docs and true(docs[-1])

        wait_until(seen, 5, what, interval=0.05)

    becomes("the namespace's tenant", lambda d: d["tenant"] == node.ns)
    annotate(tenant="acme", service="shop")
    becomes("the annotation's", lambda d: d["tenant"] == "acme" and d["service_name"] == "shop")
    annotate(**{"levels": "error", "levels.side": "debug"})
    becomes("a container's own level", lambda d: True, "side", "debug")
    before = a.metric("filtered_lines_total", reason="level")
    becomes("an error passes", lambda d: a.metric("filtered_lines_total", reason="level") > before or node.write(pod), "app",
            "error")
    annotate(exclude="true", format="text")
    wait_until(lambda: node.write(pod, level="error") or a.metric("filtered_lines_total", reason="rule") > 0, 5, "no lines",
               interval=0.05)
    before, first = a.metric("filtered_lines_total", reason="rule"), node.n
    node.write(pod, 10, level="error")
    wait_until(lambda: a.metric("filtered_lines_total", reason="rule") >= before + 10, 5, "they are dropped")
    assert not [n for n in node.lines() if n >= first]
    annotate(exclude=None, tenant=None, format=None)
    becomes("all is as before", lambda d: d["tenant"] == node.ns, "app", "error")


def test_a_tenant_is_taken_from_annotations_only_where_allowed_and_bad_values_are_said_once(agent, node):
    bad = {"tailrace.io/tenant": "acme", "tailrace.io/levels": "info,=,x[", "tailrace.io/exclude": "yes", "tailrace.io/format": "xml"}
    pod = node.pod("p-1", annotations=bad)
    node.write(pod)
    a = agent(node.config())
    assert node.wait(agent=a)[0]["tenant"] == node.ns
    wait_synced(a)
    for i in range(5):
        node.kube.patch_pod(node.ns, "p-1", labels={"app": f"v{i}"})
    wait_until(lambda: node.write(pod) or node.wait(agent=a)[node.n - 1].get("app") == "v4", 10, "all news are read")
    for name, count in (("levels", 1), ("exclude", 1), ("format", 1), ("tenant", 0), ("service", 0)):
        assert a.metric("annotation_errors_total", annotation=name) == count, name
    said = [e["fields"]["annotation"] for e in a.events("annotation.invalid")]
    assert len(said) == len(set(said)) and set(said) <= set(bad)


def test_a_forged_tenant_or_pod_changes_nothing(agent, node):
    pod = node.pod("p-1", labels={"app": "web"})
    node.write(pod, more={"tenant": "evil", "namespace": "evil", "pod": "evil", "app": "evil", "tailrace.io/tenant": "evil",
                          "label.app": "evil"})
    a = agent(node.config())
    doc = node.wait(agent=a)[0]
    assert (doc["tenant"], doc["namespace"], doc["pod"], doc["app"]) == (node.ns, node.ns, "p-1", "web")
    assert doc["original_app"] == "evil"


def test_namespace_labels_decide_the_tenant(agent, node, tenant):
    shop = node.kube.namespace(f"{tenant}-shop", labels={"team": "blue"})
    pod, plain = node.pod("p-1", ns=shop), node.pod("p-2")
    node.write(pod)
    node.write(plain)
    a = agent(node.config(tenant="{namespace_label.team|namespace}"))
    found = node.wait(agent=a)
    assert (found[0]["tenant"], found[1]["tenant"]) == ("blue", node.ns)
    wait_synced(a)
    assert node.asked("list") == 0 and node.asked("watch") == 2


def test_static_pods_are_found_by_their_config_hash(agent, node):
    pod = node.pod("etcd-a", labels={"app": "etcd"}, annotations={"kubernetes.io/config.hash": "0123456789abcdef" * 2})
    node.write(pod)
    a = agent(node.config())
    assert node.wait(agent=a)[0]["app"] == "etcd"


# --- without an answer ---


def gone_pod(name="gone-1", ns="elsewhere", uid="11111111-2222-4333-8444-555555555555"):
    return {"metadata": {"name": name, "namespace": ns, "uid": uid}}


def test_a_pod_that_never_was_goes_with_path_metadata(agent, node):
    a = agent(node.config())
    wait_synced(a)
    node.write(gone_pod(ns=node.ns))
    doc = node.wait(agent=a)[0]
    assert doc["pod"] == "gone-1" and doc["tenant"] == node.ns and doc.get("app", "") == ""
    assert a.metric("kube_waits_total", result="absent") == 1 and node.asked("get") == 1


def test_a_tenant_that_can_not_be_known_is_nobodys(agent, node):
    a = agent(node.config(tenant="{label.team|namespace}"))
    wait_synced(a)
    node.write(gone_pod(ns=node.ns))
    assert node.wait(agent=a)[0]["tenant"] == "unassigned"


def test_without_a_server_lines_go_on_and_it_is_said_once(agent, node):
    a = agent(node.config(kubernetes={"api": "https://127.0.0.1:1"}))
    for i in range(3):
        node.write(gone_pod(f"p-{i}"))
    found = node.wait(agent=a)
    assert [found[i]["pod"] for i in range(3)] == ["p-0", "p-1", "p-2"]
    assert a.metric("kube_waits_total", result="timeout") == 3
    wait_until(lambda: a.metric("kube_requests_total", verb="watch", code="refused") >= 3, 30, "it is tried again")
    assert len(a.events("kube.failing")) == 1


def test_a_file_is_held_while_its_tenant_depends_on_what_is_not_known(agent, node):
    token = node.token_file.read_text()
    pod = node.pod("p-1", labels={"team": "red"})
    node.write(pod)
    node.token_file.write_text("wrong")
    a = agent(node.config(tenant="{label.team|namespace}", metadata_wait="200ms"))
    a.wait_event("file.held")
    assert a.metric("kube_files_held") == 1 and node.lines() == {}
    assert any("wait for what their pod is" in c["text"] for c in a.health()["checks"])
    node.token_file.write_text(token)  # as the kubelet swaps it
    assert node.wait(agent=a)[0]["tenant"] == "red"
    assert a.metric("kube_files_held") == 0 and a.metric("kube_requests_total", verb="watch", code="401") > 0


def test_fallback_lets_go(agent, node):
    a = agent(node.config(kubernetes={"api": "https://127.0.0.1:1"}, tenant="{label.team|namespace}", metadata_wait="100ms",
                          metadata_missing="fallback"))
    node.write(gone_pod())
    assert node.wait(agent=a)[0]["tenant"] == "elsewhere"


# --- levels for a time ---


def test_levels_for_a_time(agent, node):
    pod = node.pod("p-1")
    a = agent(node.config(levels="warn"))
    wait_synced(a)

    def debug_arrives():
        node.write(pod, level="debug")
        n = node.n - 1
        node.write(pod, level="error")
        wait_until(lambda: node.n - 1 in node.lines(), 10, "the error arrives")
        return n in node.lines()

    assert not debug_arrives()
    r = run("levels", "set", f"{node.ns}/p-*", "debug", "--for", "1h", "-c", a.config_path)
    assert r.returncode == 0, r.stderr
    assert debug_arrives()
    listed = json.loads(run("levels", "ls", "--format", "json", "-c", a.config_path).stdout)["levels"]
    assert [(x["target"], x["levels"]) for x in listed] == [(f"{node.ns}/p-*", "debug")] and 3000 < listed[0]["seconds_left"] <= 3600
    assert run("levels", "clear", f"{node.ns}/p-*", "-c", a.config_path).returncode == 0
    assert not debug_arrives()
    assert run("levels", "set", f"{node.ns}/p-1", "debug", "--for", "2s", "-c", a.config_path).returncode == 0
    assert debug_arrives()
    a.wait_event("levels.expired")
    assert not debug_arrives()
    assert json.loads(run("levels", "ls", "--format", "json", "-c", a.config_path).stdout) == {"levels": []}
    for args in (("set", "nope", "debug", "--for", "1m"), ("set", "a/b", "=[", "--for", "1m"), ("clear", "a/b")):
        assert run("levels", *args, "-c", a.config_path).returncode == 1, args
    assert run("levels", "set", "a/b", "debug", "-c", a.config_path).returncode == 2
    assert a.get("/levels").status == 404  # not by the network


# --- history that is gone ---


def test_a_compaction_and_a_restart_of_the_server(agent, tmp_path, tenant):
    with KubeApi(tmp_path, watch_cache=False) as kube:
        node = Node(kube, tmp_path, tenant)
        one = node.pod("p-1", labels={"app": "one"})
        node.write(one)
        a = agent(node.config())
        node.wait(agent=a)
        wait_synced(a)
        a.sigterm()
        node.pod("p-2", labels={"app": "two"})
        kube.delete_pod(node.ns, "p-1")
        node.pod("p-3", labels={"app": "three"})
        kube.compact()  # the version that the agent knows is forgotten
        a.start()
        wait_synced(a)
        three = kube.get(f"/api/v1/namespaces/{node.ns}/pods/p-3")
        node.write(three)
        node.write(one)  # deleted, and still known
        found = node.wait(agent=a)
        assert (found[1]["app"], found[2]["app"]) == ("three", "one")
        assert a.metric("kube_relists_total") >= 1
        kube.restart()
        four = node.pod("p-4", labels={"app": "four"})
        node.write(four)
        assert node.wait(agent=a)[3]["app"] == "four"


# --- churn ---


def test_churn(agent, tmp_path, tenant):
    """Pods come, write and go, some within a second; a compaction and a restart of the API server, and of the agent, in
    between. Every line has its pod's label, none is lost or doubled, and the server was asked next to nothing."""
    pods, seconds, alive = (1000, 600, 200) if FULL else (100, 20, 20)
    with KubeApi(tmp_path, watch_cache=False) as kube:
        node = Node(kube, tmp_path, tenant)
        a = agent(node.config())
        wait_synced(a)
        running, start, want = [], time.monotonic(), {}

        def step(i):
            pod = node.pod(f"p-{i}", labels={"app": f"app-{i}"}, owner=("ReplicaSet", f"p-{i}"), env=4000)
            for p in [pod] + running[-2:]:
                want[node.n] = p["metadata"]["labels"]["app"]
                node.write(p)
            if i % 5 == 0:  # of a second: gone before anybody looked
                kube.delete_pod(node.ns, f"p-{i}")
                return
            running.append(pod)
            if len(running) > alive:
                kube.delete_pod(node.ns, running.pop(0)["metadata"]["name"])

        for i in range(pods):
            step(i)
            if i == pods // 4:
                kube.compact()
            if i == pods // 2:
                kube.restart()
            if i == 3 * pods // 4:
                a.restart()
                wait_synced(a)
            due = start + (i + 1) * seconds / pods
            while time.monotonic() < due:  # the pace of a node, not a wait for an event
                time.sleep(min(0.05, max(0, due - time.monotonic())))
        found = node.wait(timeout=120, agent=a)
        assert {n: doc.get("app") for n, doc in found.items()} == want
        asked = {verb: node.asked(verb) for verb in ("list", "watch", "get")}
        print(f"{pods} pods, {len(found)} lines, API requests: {asked}")
        assert asked["list"] == 0 and asked["watch"] <= 12 and asked["get"] <= pods // 10, asked


def explained(a, path, *options, line='{"level":"info","msg":"x"}'):
    """What `tailrace explain` makes of a line of that file; each run of blanks is one."""
    cri = "2026-11-21T10:00:00.123456789Z stdout F " + line + "\n"
    r = run("explain", "-c", a.config_path, "--path", path, *options, stdin=cri)
    assert r.returncode == 0, r
    return re.sub(r" +", " ", r.stdout), r.stderr


def test_explain_knows_what_the_agent_knows(agent, node):
    """Beside the running agent, and after it: tenant, levels and route of a pod's line, out of the cache on disk."""
    labels = {"app": "web", "tier": "front", "pod-template-hash": "7d9c5b7f6d"}
    pod = node.pod("web-7d9c5b7f6d-x2x4z", labels=labels, annotations={"tailrace.io/levels": "warn"}, owner=("ReplicaSet", "web-7d9c5b7f6d"))
    a = agent(node.config(tenant="{label.tier}", more={
        "routes": [{"match": {"service": "web"}, "drop": True}, {"to": ["out"]}]}))
    path = node.path(pod)
    wait_until(lambda: "labels app=web" in explained(a, path)[0], 15, "the agent has written down what it knows")
    a.sigterm()
    before = (a.state_dir / "kube/pods").stat().st_mtime_ns
    said, wrong = explained(a, path)
    assert wrong == "" and f" pod {node.ns}/web-7d9c5b7f6d-x2x4z, container app, of Deployment web\n" in said, said
    assert " tenant front\n" in said and "\"warn\": directive 'warn' drops it" in said and " annot. tailrace.io/levels=warn\n" in said
    said, _ = explained(a, path, line='{"level":"error","msg":"x"}')
    assert "#1 matches and drops" in said, said

    # What if it had other labels, and annotations?
    said, _ = explained(a, path, "--labels", "tier=back,app=api", "--annotation", "tailrace.io/levels=info,db=error")
    assert " tenant back\n" in said and "directive 'info' keeps" in said and "#1 matches" not in said, said
    assert "of Deployment web" in said and "output out" in said
    said, _ = explained(a, path, "--annotation", "tailrace.io/exclude=true")
    assert "result the pod asks to be excluded (tailrace.io/exclude)" in said
    said, _ = explained(a, path, "--annotation", "tailrace.io/levels=(", "--annotation", "tailrace.io/tenant=other",
                        "--annotation", "tailrace.io/levels.db=off", "--annotation", "tailrace.io/colour=red")
    for word in ("ignored tailrace.io/levels: ", "ignored tailrace.io/tenant: the input's `annotations` do not allow it",
                 "ignored tailrace.io/levels.db: of another container", "ignored tailrace.io/colour: there is no such annotation"):
        assert word in said, (word, said)
    assert " tenant front\n" in said
    assert (a.state_dir / "kube/pods").stat().st_mtime_ns == before

    # A pod that is not known; nothing is known.
    stranger = node.logs / f"{node.ns}_other_uid-1/app/0.log"
    said, wrong = explained(a, stranger)
    assert wrong == "" and "the agent does not know it so far" in said and "is held until it is known (metadata_missing)" in said, said
    (a.state_dir / "kube/pods").write_bytes(b"TRPODS1\n nonsense, and more of it")
    said, wrong = explained(a, path, "--labels", "tier=front")
    assert "it is damaged" in wrong and wrong.count("\n") == 1 and " tenant front\n" in said
    (a.state_dir / "kube/pods").unlink()
    said, wrong = explained(a, path, "--labels", "tier=front")
    assert wrong == "" and " tenant front\n" in said
    for wrong, word in ((("--path", path, "--labels", "tier"), "NAME=VALUE,…"), (("--path", path, "--annotation", "=x"), "NAME=VALUE"),
                        (("--path", "/var/log/app.log", "--labels", "tier=front"), "a pod's")):
        r = run("explain", "-c", a.config_path, *wrong, stdin="")
        assert r.returncode == 2 and word in r.stderr and r.stderr.count("\n") == 1, r
