"""kill -9 at random moments under load, started again each time: nothing is lost, and nothing doubled where that can be."""

import os
import random
import time

from arrival import archived_once, in_loki, indexed_once, nothing_lost
from support import SECOND, archive_output, config, file_input, loki_output, search_output, total, wait_rest
from tailrace_test import Loggen, LoggenRun, write

FULL = os.environ.get("TAILRACE_FULL") == "1"
KILLS = 50 if FULL else 12
RATE = 4000


def test_kill9_under_load(agent, loki, elasticsearch, tenant, index, tmp_path):
    """Files are rotated meanwhile; some kills hit the start before it is ready, some a group on its way to the disk."""
    moments = random.Random(20261)
    pauses = [moments.uniform(0, 0.2) if i % 4 == 0 else moments.uniform(0.2, 1.2) for i in range(KILLS)]
    lines = int(RATE * sum(pauses) * 1.1) + 4000
    writer = LoggenRun(tmp_path / "logs", lines=lines, files=20, rotate=200_000, rate=RATE, torn=True, late=True)
    a = agent(config(
        {"app": file_input(tmp_path / "logs/*.log", multiline="off", tenant=tenant)},
        {"loki": loki_output(loki.url),
         "search": search_output(elasticsearch.url, index=index, document={"payload": "log"}),
         "archive": archive_output(tmp_path / "archive.ndjson")}), start=False)
    for pause in pauses:
        a.start(ready=False)
        time.sleep(pause)  # no event is waited for: it is to be any moment
        a.kill9()
    a.start()
    written = writer.wait()
    inputs, outputs = wait_rest(a, read=lines, timeout=60 + 4 * KILLS)
    nothing_lost(outputs)
    for output in ("loki", "search", "archive"):
        assert total(outputs, "accepted_lines", output=output) == lines == total(outputs, "delivered_lines", output=output)
    ids = written.ids()
    archived_once(tmp_path / "archive.ndjson", ids)
    indexed_once(elasticsearch, index, ids)
    in_loki(loki, tenant, '{service_name=~".+"}', written.first_ts - SECOND, written.last_ts + SECOND, ids)
    assert written.rotations > 20 and total(inputs, "kept_lines") == lines
    assert [code for code in a.exits if code != -9] == []


def test_kill9_before_the_first_batch(agent, tmp_path):
    """A name that is seconds old: its rotated file is read after a crash, for the name was told before any batch was due."""
    log, archive = tmp_path / "logs/app.log", tmp_path / "archive.ndjson"
    lines = Loggen(seed=91).lines(30)
    log.parent.mkdir()
    write(log, lines[:10])

    def conf(batch_wait):
        return config({"app": file_input(tmp_path / "logs/*.log")},
                      {"archive": {**archive_output(archive), "queue": {"batch_wait": batch_wait}}})

    a = agent(conf("60s"))
    a.wait_metric("accepted_lines_total", 10, output="archive")
    write(log, lines[10:20])
    a.wait_metric("read_lines_total", 20)
    a.kill9()
    log.rename(tmp_path / "logs/app.log.1")
    write(log, lines[20:])
    a.configure(conf("100ms"))
    a.start()
    wait_rest(a, read=30)
    archived_once(archive, lines)
