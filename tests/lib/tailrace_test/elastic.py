"""A real Elasticsearch or OpenSearch node on loopback, one node, no security."""

import json
import os
import pathlib

from . import client
from .ports import free_port
from .proc import Process
from .servers import server_dir
from .wait import wait_until


class Elastic:
    """start(), stop(), restart(), kill(); the data stays in tmpdir/KIND until the folder goes."""

    def __init__(self, tmpdir, kind="elasticsearch", heap="512m", settings=None):
        """settings: node settings, {"http.max_content_length": "1mb"}; change self.settings before a restart."""
        assert kind in ("elasticsearch", "opensearch"), kind
        self.kind, self.heap = kind, heap
        self.settings = dict(settings or {})
        self.dir = pathlib.Path(tmpdir) / kind
        self.dir.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = None

    # --- running ---

    def start(self, timeout=120):
        assert self.process is None, f"this {self.kind} runs already"
        argv = [server_dir(self.kind) / "start.sh", self.port, self.dir / "node"]
        argv += [f"{k}={v}" for k, v in self.settings.items()]
        self.process = Process(argv, self.dir / "node", env=dict(os.environ, TEST_HEAP=self.heap))
        try:
            wait_until(
                self._ready, timeout, lambda: f"{self.kind} is ready\n{self.process.describe()}", interval=0.05
            )
        except BaseException:
            self.kill()
            raise
        return self

    def _ready(self):
        assert self.process.running(), f"{self.kind} ended while starting\n{self.process.describe()}"
        try:
            r = client.request(
                "GET", self.url + "/_cluster/health", params={"wait_for_status": "yellow", "timeout": "1s"}, timeout=5
            )
            return r.status == 200 and not r.json()["timed_out"]
        except OSError:
            return False

    def stop(self, timeout=60):
        """SIGTERM and wait."""
        if self.process:
            process, self.process = self.process, None
            process.stop(timeout)

    def kill(self):
        if self.process:
            process, self.process = self.process, None
            process.kill()

    def restart(self):
        """Stops and starts on the same data and the same port."""
        self.stop()
        return self.start()

    __enter__ = start

    def __exit__(self, *_):
        self.stop()

    # --- asking ---

    def request(self, method, path, body=None, params=None, headers=None, timeout=60):
        """Any request; the answer as it comes."""
        return client.request(
            method, self.url + "/" + path.lstrip("/"), body=body, params=params, headers=headers, timeout=timeout
        )

    def get(self, path, **params):
        return self.request("GET", path, params=params).expect(200).json()

    def put(self, path, body=None):
        return self.request("PUT", path, body=body).expect(200, 201).json()

    def post(self, path, body=None, **params):
        return self.request("POST", path, body=body, params=params).expect(200, 201).json()

    def delete(self, path):
        """Deleting what is not there is fine."""
        return self.request("DELETE", path).expect(200, 404).json()

    def bulk(self, lines, expect=(200,)):
        """lines: action and document dicts in turn. Returns the answer."""
        body = "".join(json.dumps(l) + "\n" for l in lines)
        r = self.request("POST", "/_bulk", body=body, headers={"Content-Type": "application/x-ndjson"})
        return r.expect(*expect).json()

    def cluster_settings(self, **settings):
        """Dynamic settings, double underscores for dots: action__auto_create_index=False; None resets."""
        return self.put("/_cluster/settings", {"persistent": {k.replace("__", "."): v for k, v in settings.items()}})

    # --- reading back ---

    _SAFE = {"ignore_unavailable": "true", "allow_no_indices": "true"}

    def refresh(self, index="_all"):
        """Makes what was written visible to count and search."""
        self.post(f"/{index}/_refresh", **self._SAFE)

    def count(self, index, query=None):
        """Number of documents; 0 for an index that is not there. refresh() first."""
        r = self.request("POST", f"/{index}/_count", body={"query": query} if query else {}, params=self._SAFE)
        answer = r.expect(200).json()
        assert answer["_shards"]["failed"] == 0, answer
        return answer["count"]

    def wait_count(self, index, n, timeout, query=None):
        """Waits until at least n documents are there; returns the number."""
        last = [0]

        def enough():
            self.refresh(index)
            last[0] = self.count(index, query)
            return last[0] >= n

        wait_until(enough, timeout, lambda: f"{n} documents in {index} of {self.kind}: {last[0]}", interval=0.2)
        return last[0]

    def search_all(self, index, query=None, fields=None, page=10000):
        """Every hit, complete, by scrolling: [{"_index":, "_id":, "_source": {..}}]. fields: only these of _source."""
        body = {"size": page, "sort": ["_doc"], "query": query or {"match_all": {}}}
        if fields is not None:
            body["_source"] = list(fields)
        params = dict(self._SAFE, scroll="2m", allow_partial_search_results="false")
        r = self.request("POST", f"/{index}/_search", body=body, params=params, timeout=120)
        hits, scroll = [], None
        try:
            while True:
                answer = r.expect(200).json()
                scroll = answer.get("_scroll_id", scroll)
                assert answer["_shards"]["failed"] == 0 and not answer["timed_out"], answer["_shards"]
                if not answer["hits"]["hits"]:
                    return hits
                hits += answer["hits"]["hits"]
                body = {"scroll": "2m", "scroll_id": scroll}
                r = self.request("POST", "/_search/scroll", body=body, timeout=120)
        finally:
            if scroll:
                self.request("DELETE", "/_search/scroll", body={"scroll_id": [scroll]})

    def indices(self, pattern="*"):
        """{name: number of documents}, hidden ones too."""
        rows = self.get(f"/_cat/indices/{pattern}", format="json", h="index,docs.count", expand_wildcards="all")
        return {r["index"]: int(r["docs.count"] or 0) for r in rows}
