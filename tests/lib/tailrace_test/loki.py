"""A real Loki on loopback, multi-tenant, with wide limits for rates, streams and queries.

What Loki refuses by itself (old lines, future lines, long lines, too many labels) is left at its defaults.
"""

import http.client
import json
import os
import pathlib
import select
import time
import urllib.parse

from . import client
from .ports import free_port
from .proc import Process
from .servers import TESTS, server_dir
from .wait import wait_until

# Narrow any of them by Loki(tmpdir, name=value), for one tenant by overrides={tenant: {name: value}}.
LIMITS = {
    "ingestion_rate_mb": 1000,
    "ingestion_burst_size_mb": 1000,
    "per_stream_rate_limit": "1GB",
    "per_stream_rate_limit_burst": "1GB",
    "max_global_streams_per_user": 100000,
    "max_entries_limit_per_query": 1000000,
    "max_query_length": 0,
    "max_query_series": 100000,
    "max_query_parallelism": 4,
    "query_timeout": "10m",
    "split_queries_by_interval": 0,
    "split_instant_metric_queries_by_interval": 0,
}


class Loki:
    """start(), stop(), restart(), kill(); the data stays in tmpdir/loki until the folder goes."""

    def __init__(self, tmpdir, overrides=None, grpc_max=4 << 20, **limits):
        """limits: limits_config for all tenants. overrides: {tenant: limits}, see set_overrides().
        grpc_max: Loki's own 4 MiB limit of one decoded push."""
        self.dir = pathlib.Path(tmpdir) / "loki"
        self.dir.mkdir(parents=True, exist_ok=True)
        self.port, self.grpc_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.limits = dict(LIMITS, **limits)
        self.overrides = {}
        self.grpc_max = grpc_max
        self.process = None
        self._runtime = self.dir / "overrides.yaml"
        self._write_overrides(overrides or {})

    @staticmethod
    def binary(name="loki"):
        """The path of loki, loki-canary or logcli."""
        return server_dir("loki") / name

    # --- running ---

    def start(self, timeout=60):
        assert self.process is None, "this Loki runs already"
        config = (TESTS / "servers" / "loki" / "loki.yaml").read_text()
        for key, value in {
            "PORT": self.port, "GRPC": self.grpc_port, "DATA": self.dir, "GRPC_MAX": self.grpc_max,
            "LIMITS": json.dumps(self.limits), "OVERRIDES": self._runtime,
        }.items():
            config = config.replace(f"@{key}@", str(value))
        path = self.dir / "loki.yaml"
        path.write_text(config)
        self.process = Process([self.binary(), f"-config.file={path}"], self.dir / "loki", cwd=self.dir)
        try:
            wait_until(self._ready, timeout, lambda: f"Loki is ready\n{self.process.describe()}", interval=0.05)
        except BaseException:
            self.kill()
            raise
        return self

    def _ready(self):
        assert self.process.running(), f"Loki ended while starting\n{self.process.describe()}"
        try:
            return client.request("GET", self.url + "/ready", timeout=5).status == 200
        except OSError:
            return False

    def stop(self, timeout=60):
        """SIGTERM and wait. loki.yaml says how long Loki waits for queries that are under way: a canary always has some."""
        if self.process:
            process, self.process = self.process, None
            process.stop(timeout)

    def kill(self):
        """SIGKILL: what is not in the write-ahead log is gone."""
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

    # --- limits at run time ---

    def _write_overrides(self, overrides):
        self.overrides = overrides
        new = self._runtime.with_suffix(".new")
        new.write_text(json.dumps({"overrides": overrides}) + "\n")
        os.replace(new, self._runtime)

    def _runtime_hash(self):
        m = self.metrics()
        ok = m.get(("loki_runtime_config_last_reload_successful", frozenset({("config", "loki")})))
        hashes = sorted(dict(labels)["sha256"] for n, labels in m if n == "loki_runtime_config_hash")
        return ok, hashes

    def set_overrides(self, overrides, timeout=20):
        """{tenant: {limit: value}} instead of the present ones; waits until Loki has taken them.

        Of a tenant that pushed already, Loki looks at a changed ingestion rate again within 10 s only.
        """
        if overrides == self.overrides:
            return
        before = self._runtime_hash() if self.process else None
        self._write_overrides(overrides)
        if self.process:

            def taken():
                ok, hashes = self._runtime_hash()
                assert ok == 1, f"Loki refuses the overrides {overrides}\n{self.process.describe()}"
                return hashes != before[1]

            wait_until(taken, timeout, lambda: f"Loki takes the overrides {overrides}\n{self.process.describe()}")

    # --- writing ---

    def push(self, tenant, streams, expect=(204,)):
        """streams: [(labels dict, [(ts_ns, line) or (ts_ns, line, metadata dict)])]. expect=None: any answer."""
        body = {
            "streams": [
                {"stream": labels, "values": [[str(e[0]), *e[1:]] for e in entries]} for labels, entries in streams
            ]
        }
        r = client.request(
            "POST", self.url + "/loki/api/v1/push", body=body, headers={"X-Scope-OrgID": tenant}, timeout=60
        )
        return r if expect is None else r.expect(*expect)

    def flush(self, timeout=120):
        """Forces all chunks out of the ingester and waits until the last is written."""

        seen = [None]

        def done():
            m = self.metrics()

            def total(what):
                return sum(v for (n, _), v in m.items() if n == "loki_ingester_" + what)

            state = total("chunks_flush_requests_total"), total("chunks_flushed_total")
            settled = state == seen[0] and state[0] == state[1] and total("flush_queue_length") == 0
            seen[0] = state
            return settled

        client.request("POST", self.url + "/flush", timeout=timeout).expect(200, 204)
        wait_until(done, timeout, lambda: f"Loki has written all chunks (asked for, done: {seen[0]})", interval=0.1)

    # --- reading ---

    def get(self, tenant, path, params=None, timeout=600):
        return client.request(
            "GET", self.url + path, params=params, headers={"X-Scope-OrgID": tenant}, timeout=timeout
        )

    def _page(self, tenant, selector, start, end, limit, timeout=600):
        """One page, sorted by time: [(labels, ts, line)], or None when the answer is too large for Loki.

        A result over grpc_max gets lost between Loki's querier and its front end, and the front end waits on: only
        Loki's log tells. So the log is watched while the answer is awaited.
        """
        seen = os.path.getsize(self.process.err)
        query = {"query": selector, "start": start, "end": end, "limit": limit, "direction": "forward"}
        conn = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            conn.request(
                "GET", "/loki/api/v1/query_range?" + urllib.parse.urlencode(query), headers={"X-Scope-OrgID": tenant}
            )
            give_up = time.monotonic() + timeout
            while not select.select([conn.sock], [], [], 0.1)[0]:
                assert time.monotonic() < give_up, f"no answer to {query} within {timeout} s"
                with open(self.process.err, "rb") as f:
                    f.seek(seen)
                    if b"notifying frontend about finished query" in f.read():
                        return None
            r = conn.getresponse()
            r = client.Response(r.status, r.headers, r.read())
        finally:
            conn.close()
        if r.status == 500 and "larger than max" in r.text:
            return None
        result = r.expect(200).json()["data"]["result"]
        page = [(s["stream"], int(ts), line) for s in result for ts, line, *_ in s["values"]]
        page.sort(key=lambda e: e[1])
        return page

    def query_all(self, tenant, selector, start_ns, end_ns, page=5000):
        """Every entry of [start_ns, end_ns) as (labels, ts_ns, line), oldest first.

        labels hold the stream's labels and the structured metadata, as Loki merges them. Entries equal in
        labels, time and line are shown once: that is Loki's own rule for queries.
        """
        found, start, limit, most = [], start_ns, page, page
        at_border = set()  # what was already seen at time `start`
        while True:
            got = self._page(tenant, selector, start, end_ns, limit)
            if got is None:
                assert limit > 1, f"one entry of {selector} is larger than Loki can answer"
                page = limit = max(1, limit // 8)
                continue
            fresh = [e for e in got if not (e[1] == start and _identity(e) in at_border)]
            found += fresh
            if len(got) < limit:
                return found
            last = got[-1][1]
            if last == start and not fresh:
                limit *= 2  # more entries of one nanosecond than a page holds
                assert limit <= 1000000, f"more than {limit} entries at {start}"
                continue
            if page < most and sum(len(e[2]) for e in got) < 1 << 20:
                page = min(page * 2, most)
            same = last == start
            at_border = {_identity(e) for e in got if e[1] == last} | (at_border if same else set())
            start, limit = last, max(limit, page) if same else page

    def lines(self, tenant, selector, start_ns, end_ns):
        """The lines alone."""
        return [line for _, _, line in self.query_all(tenant, selector, start_ns, end_ns)]

    def count(self, tenant, selector, start_ns, end_ns):
        """Number of entries in [start_ns, end_ns), rounded up to whole seconds, by count_over_time. Cheap."""
        seconds = max(1, -(-(end_ns - start_ns) // 1_000_000_000))
        r = self.get(
            tenant, "/loki/api/v1/query",
            {"query": f"sum(count_over_time({selector}[{seconds}s]))", "time": start_ns + seconds * 1_000_000_000 - 1},
        )
        result = r.expect(200).json()["data"]["result"]
        return int(float(result[0]["value"][1])) if result else 0

    def wait_count(self, tenant, selector, start_ns, end_ns, n, timeout):
        """Waits until at least n entries are there; returns the number."""
        last = [0]

        def enough():
            last[0] = self.count(tenant, selector, start_ns, end_ns)
            return last[0] >= n

        wait_until(enough, timeout, lambda: f"{n} entries of {selector} in tenant {tenant}: {last[0]}", interval=0.2)
        return last[0]

    def label_values(self, tenant, name, start_ns, end_ns):
        r = self.get(tenant, f"/loki/api/v1/label/{name}/values", {"start": start_ns, "end": end_ns})
        return r.expect(200).json().get("data") or []

    def series(self, tenant, selector, start_ns, end_ns):
        """The label sets (streams) that match."""
        r = self.get(tenant, "/loki/api/v1/series", {"match[]": selector, "start": start_ns, "end": end_ns})
        return r.expect(200).json().get("data") or []

    # --- what Loki says of itself ---

    def metrics(self):
        """{(name, frozenset of (label, value)): value}"""
        from .prom import parse

        return parse(client.request("GET", self.url + "/metrics", timeout=30).expect(200).text)

    def received_lines(self):
        """Lines that Loki received since its start, by tenant; counts each resend too."""
        by_tenant = {}
        for (name, labels), value in self.metrics().items():
            if name == "loki_distributor_lines_received_total":
                tenant = dict(labels)["tenant"]
                by_tenant[tenant] = by_tenant.get(tenant, 0) + int(value)
        return by_tenant

    def discarded(self):
        """Lines that Loki refused since its start: {(tenant, reason): lines}."""
        found = {}
        for (name, labels), value in self.metrics().items():
            if name == "loki_discarded_samples_total":
                key = dict(labels)["tenant"], dict(labels)["reason"]
                found[key] = found.get(key, 0) + int(value)
        return found


def _identity(entry):
    labels, ts, line = entry
    return ts, line, tuple(sorted(labels.items()))
