"""What operators do while something else is wrong: reload, ask, stop; and what they configure without thinking of it."""

import json
import threading
import time

from support import archive_output, config, documents, file_input, folder, loki_output, search_output, wait_rest
from tailrace_test import BulkReply, Loggen, Reply, Stall, assert_arrived, prom, wait_until, write

QUEUE = {"batch_wait": "50ms", "sync": "10ms"}


class Scraper:
    """Asks for /metrics again and again, as Prometheus does but without its pauses."""

    def __init__(self, agent):
        self.agent, self.stopping, self.answers, self.slowest = agent, False, [], 0
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.stopping:
            begun = time.monotonic()
            r = self.agent.get("/metrics")
            self.slowest = max(self.slowest, time.monotonic() - begun)
            self.answers.append((r.status, r.text))

    def stop(self):
        self.stopping = True
        self.thread.join(30)
        return self.answers


def test_metrics_through_reloads(agent, faults, tmp_path):
    """One output is refused, one hangs: /metrics answers all the while, and no counter falls."""
    silent, lines = faults(default=Stall()), Loggen(seed=4, shapes=["tracing"])
    written = lines.lines(200)
    write(tmp_path / "app.log", written)
    made = lambda n: config(  # noqa: E731
        {"app": file_input(tmp_path / "app.log", multiline="off")},
        {"loki": loki_output(silent.url, timeout="30s"), "archive": archive_output(tmp_path / "archive.ndjson")},
        metrics={"max_tenants": n})
    a = agent(made(50))
    a.wait_delivered(200, "archive")
    scraper = Scraper(a)
    for n in range(3):
        before = len(a.events("config.reloaded"))
        a.configure(made(60 + n))
        a.sighup()
        wait_until(lambda: len(a.events("config.reloaded")) > before, 30, lambda: f"it is reloaded\n{a.describe()}")
    answers = scraper.stop()
    assert {status for status, _ in answers} == {200}
    last = {}
    for _, text in answers:
        for (name, labels), value in prom.parse(text).items():
            if name.endswith("_total") and not name.startswith("process_"):
                assert value >= last.get((name, labels), 0), (name, labels)
                last[name, labels] = value
    silent.default = Reply(204)
    silent.release()
    wait_rest(a, read=200, timeout=60)
    assert_arrived(written, documents(tmp_path / "archive.ndjson"))


def test_an_archive_is_not_followed(agent, tmp_path):
    """It lies where an input looks, under any name that it may take; each line comes once, not round and round."""
    logs = folder(tmp_path / "logs")
    generator = Loggen(seed=5, shapes=["tracing"])
    written = generator.lines(50)
    write(logs / "app.log", written)
    a = agent(config(
        {"app": file_input(logs / "**/*.log", multiline="off", tenant="acme")},
        {"plain": archive_output(logs / "all.log"),
         "dated": {"type": "file", "path": str(logs / "kept/{tenant}/%Y-%m-%d.log"), "compress": False, "queue": QUEUE}}))
    a.wait_delivered(50, "plain")
    a.wait_delivered(50, "dated")
    more = generator.lines(50)
    write(logs / "other.log", more)
    for name in ("plain", "dated"):
        a.wait_delivered(100, name)
    wait_rest(a, read=100)
    assert {f["path"].rpartition("/")[2] for f in a.status()["files"]} == {"app.log", "other.log"}
    assert_arrived(written + more, documents(logs / "all.log"))
    (dated,) = (logs / "kept/acme").iterdir()
    assert_arrived(written + more, documents(dated))
    a.restart()
    write(logs / "app.log", generator.lines(10))
    a.wait_delivered(110, "plain")
    a.wait_delivered(110, "dated")
    wait_rest(a, read=110)
    assert len(documents(logs / "all.log")) == 110


def test_a_template_that_is_taken_is_not_complained_of(agent, faults, tmp_path):
    """document.payload needs another word for OpenSearch: one of the two requests is taken, and that is that."""
    def answer(request):
        if request.method == "PUT":
            body = json.loads(request.body)
            kind = body["template"]["mappings"]["properties"]["log"]["type"]
            return Reply(200, {"acknowledged": True}) if kind == taken[0] else Reply(400, {
                "error": {"type": "mapper_parsing_exception", "reason": f"No handler for type [{kind}]"}, "status": 400})
        return BulkReply()

    server = faults(default=answer)
    write(tmp_path / "app.log", ["one"])
    for n, taken in enumerate((["flattened"], ["flat_object"], ["neither"])):
        a = agent(config({"app": file_input(tmp_path / "app.log", multiline="off")},
                         {"search": search_output(server.url, index="logs-%Y", document={"payload": "log"})}))
        a.wait_delivered(1, "search")
        asked = [r for r in server.complete() if r.method == "PUT"]
        assert len(asked) == (2, 3, 5)[n]
        said = a.events("output.setup")
        assert len(said) == (taken == ["neither"])
        assert not said or "No handler for type" in said[0]["fields"]["error"]
        a.sigterm()


def test_the_stop_is_not_held_up_by_a_question(agent, faults, tmp_path):
    silent = faults(default=Stall())
    write(tmp_path / "app.log", ["one"])
    a = agent(config({"app": file_input(tmp_path / "app.log", multiline="off")}, {"loki": loki_output(silent.url)}))
    silent.wait_requests(1, 10)
    stopping, asked = threading.Event(), []

    def ask():
        while not stopping.is_set():
            try:
                asked.append(a.get("/status").status)
            except OSError:
                return

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(4)]
    for t in threads:
        t.start()
    wait_until(lambda: len(asked) > 20, 10, "questions are asked")
    a.sigterm(timeout=5)
    stopping.set()
    for t in threads:
        t.join(10)
    assert set(asked) <= {200, 503}
