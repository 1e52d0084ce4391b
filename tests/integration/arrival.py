"""Judging what arrived: at the counting server, in Loki, in Elasticsearch, in an archive. Each line exactly once, or it says which."""

from support import documents, total, wait_rest
from tailrace_test import assert_arrived, seqs, wait_until


def counted_once(agent, server, written, kinds=("bulk",), timeout=30):
    """Waits until the counting server has `written` lines (their ids from 0 on), each once, and the agent is at rest."""
    for kind in kinds:
        def complete(kind=kind):
            return server.report()[kind]["ids"]["distinct"] >= written

        wait_until(complete, timeout, lambda: f"{written} lines ({kind}): {server.report(lines=written)[kind]}\n"
                   f"{agent.describe()}", interval=0.05)
    rows = wait_rest(agent, read=written, timeout=timeout)
    report = server.report(lines=written)
    for kind in kinds:
        ids = report[kind]["ids"]
        assert (report[kind]["lines"], ids["missing"], ids["duplicates"]) == (written, 0, 0), report[kind]
    return rows


def indexed_once(search, index, written, timeout=60):
    """Every written line is a document once; returns the documents' sources."""
    want = seqs(written) if not isinstance(written, set) else written
    search.wait_count(index, len(want), timeout)
    hits = search.search_all(index)
    assert_arrived(sorted(want), [h["_source"] for h in hits])
    assert len(hits) == len({h["_id"] for h in hits})
    return [h["_source"] for h in hits]


def archived_once(path, written):
    assert_arrived(sorted(written) if isinstance(written, set) else written, documents(path))


def in_loki(loki, tenant, selector, start_ns, end_ns, written):
    """All of them are found by query, and nothing else. Loki shows equal entries once."""
    found = loki.query_all(tenant, selector, start_ns, end_ns)
    assert_arrived(sorted(written) if isinstance(written, set) else written, [line for _, _, line in found], doubles=True)
    return found


def nothing_lost(outputs):
    """No row of an output says that lines are dead, parked or lost."""
    for row in outputs:
        gone = {k: v for k, v in row.items() if (k.startswith("lost_") or k in ("dead_lines", "parked_lines")) and v}
        assert not gone, (gone, row)


def delivered(outputs, output):
    return total(outputs, "delivered_lines", output=output)
