"""Many lines at full speed, rotated by rename meanwhile, to all three real servers at once; each is asked for all of them."""

import collections
import os

from arrival import nothing_lost
from support import SECOND, config, file_input, loki_output, search_output, total, wait_rest
from tailrace_test import LEVELS, LoggenRun, seqs

FULL = os.environ.get("TAILRACE_FULL") == "1"
LINES = 1_000_000 if FULL else 200_000
LEVEL_SPEC = "info,kv_storage=trace,registry.api=warn,scheduler=off"


def kept(_logger, level, module, _tenant):
    """The same rule as LEVEL_SPEC, written by hand: the longest prefix decides."""
    if module.startswith("kv_storage"):
        return True
    if module.startswith("scheduler"):
        return False
    return LEVELS.index(level) >= LEVELS.index("warn" if module.startswith("registry.api") else "info")


def test_full_speed_to_all_servers(agent, loki, elasticsearch, opensearch, tenant, index, tmp_path):
    names = [f"t{i:02d}" for i in range(7)]
    received_before = loki.received_lines()
    a = agent(config(
        {"app": file_input(tmp_path / "logs/<service>.log", multiline="off", tenant=f"{tenant}-{{record.tenant}}",
                           levels=LEVEL_SPEC, fields={"service": "{path.service}", "namespace": "vm"})},
        {"loki": loki_output(loki.url, labels={"service_name": "{service}", "host": "{host}"},
                             metadata={"level": "{level}", "module": "{module}", "tenant": "{tenant}"},
                             queue={"batch_wait": "200ms"}),
         "es": search_output(elasticsearch.url, index=f"{index}-%Y", document={"payload": "log"}, queue={}),
         "os": search_output(opensearch.url, index=f"{index}-%Y", document={"payload": "log"}, queue={})}))
    writer = LoggenRun(tmp_path / "logs", lines=LINES, files=50, rotate=LINES * 300 // 50 // 5, tenants=7, torn=True)
    written = writer.wait()
    inputs, outputs = wait_rest(a, read=LINES, timeout=120 if not FULL else 900)
    nothing_lost(outputs)
    rows = {row[0]: row[1:] for row in written.rows() if kept(*row[1:])}
    assert 0.5 * LINES < len(rows) < LINES and written.rotations >= 150
    assert total(inputs, "filtered_level") == LINES - len(rows) and total(inputs, "kept_lines") == len(rows)
    for output in ("loki", "es", "os"):
        assert total(outputs, "delivered_lines", output=output) == len(rows)

    check_loki(a, loki, tenant, names, written, rows, received_before)
    for search in (elasticsearch, opensearch):
        check_search(search, f"{index}-*", tenant, rows)


def check_loki(a, loki, tenant, names, written, rows, received_before):
    """Labels, tenant and metadata of every line; what Loki received beyond them was sent again knowingly."""
    loki.flush()
    answers = collections.Counter({dict(labels)["code"]: n for (name, labels), n in a.metrics().items()
                                   if name == "tailrace_requests_total" and dict(labels)["output"] == "loki"})
    found = {}
    by_tenant = collections.Counter(row[3] for row in rows.values())
    for name in names:
        entries = loki.query_all(f"{tenant}-{name}", '{service_name=~"app-.*"}', written.first_ts - SECOND,
                                 written.last_ts + SECOND)
        assert len(entries) == by_tenant[name]
        for labels, _, line in entries:
            (seq,) = seqs([line])
            found[seq] = labels["service_name"], labels["level"], labels["module"], labels["tenant"]
        again = loki.received_lines()[f"{tenant}-{name}"] - received_before.get(f"{tenant}-{name}", 0) - by_tenant[name]
        assert again == 0 or (again > 0 and answers.total() > answers["204"]), (again, answers)
    services = {f"S{written.first + i:010d}": f"app-{i % 50:03d}" for i in range(written.lines)}
    for seq, (_, level, module, name) in rows.items():
        assert found[seq] == (services[seq], level, module, f"{tenant}-{name}"), seq
    assert not [k for k in loki.discarded() if k[0].startswith(tenant)]


def check_search(search, index, tenant, rows):
    """By _count and by _search of fields; then every id."""
    search.refresh(index)
    assert search.count(index) == len(rows)
    for level in ("info", "warn", "error"):
        want = sum(row[1] == level for row in rows.values())
        assert search.count(index, {"term": {"severity": level}}) == want > 0
    for name in ("t00", "t06"):
        want = sum(row[3] == name for row in rows.values())
        assert search.count(index, {"term": {"tenant": f"{tenant}-{name}"}}) == want > 0
    want = sum(row[0] == "pino" and row[2] == "cache" for row in rows.values())
    assert search.count(index, {"term": {"log.module": "cache"}}) == want > 0
    some = sorted(rows)[:: len(rows) // 20]
    for seq in some:
        path = "log.fields.seq" if rows[seq][0] == "tracing" else "log.seq"
        assert search.count(index, {"term": {path: seq}}) == 1, seq
    found = collections.Counter()
    for hit in search.search_all(index, fields=["log.seq", "log.fields.seq", "severity"]):
        (seq,) = seqs([hit["_source"]])
        found[seq] += 1
        assert hit["_source"]["severity"] == rows[seq][1]
    assert found == dict.fromkeys(rows, 1)
