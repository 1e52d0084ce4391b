"""A real Prometheus (Debian's) that scrapes what it is told, with rules."""

import json
import pathlib
import signal

from . import client
from .ports import free_port
from .proc import Process
from .wait import wait_until


class Prometheus:
    """start(), stop(). targets: [(address, labels)] of one job; point() changes them while it runs."""

    def __init__(self, tmpdir, job, targets, rules=(), interval="1s", query_flags=()):
        """rules: paths of rule files. interval: of scraping and of rules."""
        self.dir = pathlib.Path(tmpdir) / "prometheus"
        self.dir.mkdir(parents=True, exist_ok=True)
        self.url = f"http://127.0.0.1:{free_port()}"
        self.flags = list(query_flags)
        self.process = None
        self.job, self.rules, self.interval = job, [str(r) for r in rules], interval
        self._write(targets)

    def _write(self, targets):
        (self.dir / "prometheus.yml").write_text(json.dumps({
            "global": {"scrape_interval": self.interval, "evaluation_interval": self.interval},
            "rule_files": self.rules,
            "scrape_configs": [{"job_name": self.job, "static_configs": [
                {"targets": [address], "labels": labels} for address, labels in targets]}],
        }))

    def start(self, timeout=30):
        self.process = Process(
            ["prometheus", f"--config.file={self.dir}/prometheus.yml", f"--storage.tsdb.path={self.dir}/data",
             f"--web.listen-address={self.url[7:]}", *self.flags], self.dir / "prometheus")

        def ready():
            assert self.process.running(), f"Prometheus ended\n{self.process.describe()}"
            try:
                return client.request("GET", self.url + "/-/ready", timeout=5).status == 200
            except OSError:
                return False

        wait_until(ready, timeout, lambda: f"Prometheus is ready\n{self.process.describe()}", interval=0.05)
        return self

    def point(self, targets):
        """Other targets, at once."""
        self._write(targets)
        self.process.signal(signal.SIGHUP)

    def stop(self):
        if self.process:
            process, self.process = self.process, None
            process.stop()

    __enter__ = start

    def __exit__(self, *_):
        self.stop()

    def get(self, path, **params):
        return client.request("GET", self.url + path, params=params).expect(200).json()["data"]

    def query(self, expr):
        """[{"metric": labels, "value": [time, text]}] of an instant vector."""
        r = client.request("GET", self.url + "/api/v1/query", params={"query": expr})
        assert r.status == 200, f"{expr}: {r.text}"
        found = r.json()["data"]
        return found["result"] if found["resultType"] == "vector" else [{"metric": {}, "value": found["result"]}]

    def alerts(self):
        """The labels of every alert that fires."""
        return [a["labels"] for a in self.get("/api/v1/alerts")["alerts"] if a["state"] == "firing"]
