"""Would the judge see it? Each case does one wrong behind the agent's back, and must be found out."""

import scripts
from lab import Violation


def _forgets(run):
    """A server that says yes and keeps nothing."""
    run.arrivals.loki_ids.discard(3)
    for key in [k for k in run.arrivals.entries if b'"seq":3,' in k[3]]:
        del run.arrivals.entries[key]


def _doubles_document(run):
    (index, name), doc = next(iter(run.arrivals.documents.items()))
    run.arrivals.documents[(index, f"{name}x")] = doc


def _doubles_entry(run):
    tenant, labels, ts, line, metadata = next(iter(run.arrivals.entries))
    run.arrivals.entries[(tenant, labels, ts + 1, line, metadata)] = 1


def _other_tenant(run):
    (index, name), doc = next(iter(run.arrivals.documents.items()))
    del run.arrivals.documents[(index, name)]
    run.arrivals.documents[("f-t9", name)] = doc


def _damages(run):
    key = next(iter(run.arrivals.entries))
    del run.arrivals.entries[key]
    run.arrivals.entries[(*key[:3], key[3].replace(b'"message":"', b'"message":"!'), key[4])] = 1


def _archive_lacks(run):
    path = next(run.archive.glob("*.ndjson"))
    path.write_bytes(path.read_bytes().partition(b"\n")[2])


def _archive_doubles(run):
    path = next(run.archive.glob("*.ndjson"))
    data = path.read_bytes()
    path.write_bytes(data + data.partition(b"\n")[0] + b"\n")


WRONGS = (_forgets, _doubles_document, _doubles_entry, _other_tenant, _damages, _archive_lacks, _archive_doubles)


def selftest(case):
    wrong = WRONGS[case.number % len(WRONGS)]
    run = case.make(scripts.rotations)
    scripts.rotations(run, 30)
    run.finish(is_strict=True)
    wrong(run)
    case.story = f"wrong on purpose: {wrong.__name__.strip('_').replace('_', ' ')}"
    try:
        run.judge()
    except Violation as e:
        case.story += f"; found: {e}"
        case.figures["wrongs found"] += 1
        return
    raise Violation("the judge did not see it")
