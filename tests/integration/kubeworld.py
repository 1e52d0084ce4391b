"""A node played by a test: pods at a real API server, their log files as a container runtime writes them, an agent that follows
them, and what it made of each line."""

import json
import pathlib

from support import QUICK, config, documents, folder
from tailrace_test import wait_until

RULES = [{"apiGroups": [""], "resources": ["pods", "namespaces"], "verbs": ["get", "list", "watch"]}]
# What a line is to carry, for a test to look at.
FIELDS = {"app": "{label.app}", "tier": "{label.tier}", "note": "{annotation.example.org/note}", "kind": "{workload_kind}",
          "owner": "{workload}", "image": "{image}"}


class Node:
    """name: of the node, the namespace and the service account: a test's own."""

    def __init__(self, kube, tmp_path, name):
        self.kube, self.dir, self.name, self.ns = kube, tmp_path, name, name
        self.user = f"system:serviceaccount:{name}:{name}"
        self.token_file = tmp_path / "token"
        self.token_file.write_text(kube.account(name, name, RULES))
        self.logs = folder(tmp_path / "pods")
        self.written, self.n = [], 0

    # --- pods ---

    def pod(self, name, ns=None, **kw):
        return self.kube.pod(ns or self.ns, name, node=self.name, **kw)

    def path(self, pod, container="app"):
        meta = pod["metadata"]
        uid = meta["annotations"].get("kubernetes.io/config.hash") if "annotations" in meta else None
        return self.logs / f"{meta['namespace']}_{meta['name']}_{uid or meta['uid']}" / container / "0.log"

    def write(self, pod, n=1, container="app", level="info", more=None):
        """n lines, each with the pod's name in it, as a tracing logger behind containerd writes them."""
        path = self.path(pod, container)
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as f:
            for _ in range(n):
                line = {"level": level, "msg": "x", "n": self.n, "of": pod["metadata"]["name"], **(more or {})}
                self.written.append(self.n)
                self.n += 1
                f.write("2026-11-21T10:00:00.123456789Z stdout F " + json.dumps(line) + "\n")

    # --- the agent ---

    def input(self, **more):
        return {"type": "kubernetes", "include": [str(self.logs / "*/*/*.log")], "fields": FIELDS, "multiline": "off", **more}

    def config(self, kubernetes=None, more=None, **input_more):
        api = {"api": self.kube.url, "token_file": str(self.token_file), "ca_file": str(self.kube.ca), **(kubernetes or {})}
        output = {"type": "file", "path": str(self.dir / "archive/{tenant}/a.ndjson"), "compress": False, "queue": QUICK}
        return config({"pods": self.input(**input_more)}, {"out": output}, kubernetes=api, fields={"node": self.name},
                      **(more or {}))

    # --- what arrived ---

    def lines(self):
        """{n: document}, with the tenant it went to; a line that came twice fails."""
        found = {}
        for path in sorted(pathlib.Path(self.dir / "archive").glob("*/a.ndjson")):
            for doc in documents(path):
                assert doc["n"] not in found, f"line {doc['n']} arrived twice"
                found[doc["n"]] = dict(doc, tenant=path.parent.name)
        return found

    def wait(self, n=None, timeout=30, agent=None):
        """Until n lines (or all that were written) arrived; returns lines()."""
        want, last = len(self.written) if n is None else n, [{}]

        def arrived():
            last[0] = self.lines()
            return len(last[0]) >= want

        wait_until(arrived, timeout, lambda: f"{want} lines arrive, not {len(last[0])}\n{agent.describe() if agent else ''}")
        return last[0]

    def asked(self, verb):
        return self.kube.asked(self.user, verb)


def wait_synced(agent, timeout=30):
    agent.wait_metric("kube_synced", 1, timeout)
