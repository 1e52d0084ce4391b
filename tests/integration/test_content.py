"""What stands in files: container frames, text over several lines, forged names, and what is broken."""

import json
import os
import time

import pytest

from support import (
    HOUR, archive_output, config, documents, file_input, folder, instant, loki_output, rfc3339, search_output,
    total, wait_files, wait_rest, without_override,
)
from tailrace_test import Loggen, assert_arrived, binary, cri, docker, wait_until, write

UID = "0a1b2c3d-4e5f-6789-abcd-ef0123456789"


def pods(tmp_path, **more):
    return {"type": "kubernetes", "include": [str(tmp_path / "pods/*/*/*.log")], "tenant": "{namespace}", **more}


def pod_log(tmp_path, pod="web-7d9f-x2x", namespace="shop", container="app", n=0):
    return folder(tmp_path / "pods" / f"{namespace}_{pod}_{UID}" / container) / f"{n}.log"


def ours(doc, *names):
    return {k: doc.get(k) for k in names}


# --- frames ---


def test_cri(agent, tmp_path):
    """Parts of both streams interleaved; what the path says; the time of a record's first part."""
    lines = Loggen(seed=31).lines(50)
    base = time.time_ns() - 60 * 10**9
    frame = [cri(line) for line in lines]
    long = json.dumps({"level": "error", "msg": "x" * 40000, "n": 1})
    other = "warning: " + "y" * 40000
    parts = []
    for i in range(0, 45000, 9000):
        for stream, text in (("stdout", long), ("stderr", other)):
            if i < len(text):
                tag = "P" if i + 9000 < len(text) else "F"
                parts.append(cri(text[i : i + 9000], stream, tag, base + len(parts)))
    log = pod_log(tmp_path)
    write(log, frame[:25] + parts + frame[25:] + [cri("", "stdout", "F"), cri("plain text", "stderr", "F:x", base + 77)])
    a = agent(config({"pods": pods(tmp_path, multiline="off")}, {"out": archive_output(tmp_path / "out/{tenant}.ndjson")}))
    inputs, _ = wait_rest(a)
    found = documents(tmp_path / "out/shop.ndjson")
    assert_arrived(lines, found)
    assert len(found) in (53, 54)  # the empty line may be left out, nothing else
    assert all(ours(d, "pod", "namespace", "tenant", "container_name") == {
        "pod": "web-7d9f-x2x", "namespace": "shop", "tenant": "shop", "container_name": "app"} for d in found)
    (joined,) = [d for d in found if d.get("n") == 1]
    assert joined["msg"] == "x" * 40000 and joined["severity"] == "error"
    (text,) = [d for d in found if d.get("message", "").startswith("warning")]
    assert text["message"] == other and text["severity"] == "warn" and instant(text["@timestamp"]) == base + 1
    (plain,) = [d for d in found if d.get("message") == "plain text"]
    assert instant(plain["@timestamp"]) == base + 77
    assert total(inputs, "read_lines") >= 53


def test_cri_part_continued_in_the_next_file(agent, tmp_path):
    """containerd flushes half a line into the old file on rotation and goes on in the new one."""
    log = pod_log(tmp_path)
    text = json.dumps({"msg": "a" * 100, "tail": "b" * 100})
    write(log, [cri("before"), cri(text[:60], "stdout", "P")])
    a = agent(config({"pods": pods(tmp_path, multiline="off")}, {"out": archive_output(tmp_path / "out/{tenant}.ndjson")}))
    a.wait_delivered(1, "out")
    log.rename(log.with_name("0.log.20260102-030405"))
    write(log, [cri(text[60:], "stdout", "F"), cri("behind")])
    wait_until(lambda: len(documents(tmp_path / "out/shop.ndjson")) >= 3, 20,
               lambda: f"3 documents: {documents(tmp_path / 'out/shop.ndjson')}\n{a.describe()}")
    found = documents(tmp_path / "out/shop.ndjson")
    assert [d.get("message") for d in found if "message" in d] == ["before", "behind"]
    assert [(d["msg"], d["tail"]) for d in found if "msg" in d] == [("a" * 100, "b" * 100)]
    wait_rest(a)


def test_docker(agent, tmp_path):
    """The json-file driver: escapes, parts without a newline, both streams."""
    lines = Loggen(seed=32).lines(30)
    stamp = rfc3339(time.time_ns())

    def raw(text, stream):
        return json.dumps({"log": text, "stream": stream, "time": stamp}).replace("<", "\\u003c").replace(">", "\\u003e")

    parts = [raw("<b>half ", "stdout"), raw("other ", "stderr"), raw("whole</b>\n", "stdout"), raw("stream\n", "stderr")]
    path = folder(tmp_path / "containers/abc") / "abc-json.log"
    write(path, [docker(line) for line in lines] + parts)
    a = agent(config({"docker": file_input(tmp_path / "containers/*/*-json.log", multiline="off", tenant="d",
                                           fields={"pod": "p"})},
                     {"out": archive_output(tmp_path / "out.ndjson")}))
    a.wait_delivered(32, "out")
    found = documents(tmp_path / "out.ndjson")
    assert_arrived(lines, found)
    assert sorted(d["message"] for d in found if "seq" not in json.dumps(d)) == ["<b>half whole</b>", "other stream"]
    levels = {line.seq: line.level for line in lines}
    for doc in found:
        seq = doc.get("seq") or doc.get("fields", {}).get("seq")
        assert doc["severity"] == levels.get(seq, "unknown")
    wait_rest(a)


# --- text ---

PANIC = """thread 'tokio-runtime-worker' panicked at kv_storage/src/wal.rs:412:17:
called `Result::unwrap()` on an `Err` value: Os { code: 28, kind: StorageFull, message: "No space left on device" }
stack backtrace:
   0: rust_begin_unwind
             at /rustc/9fc6b43126469e3858e2fe86cafb4f0fd5068869/library/std/src/panicking.rs:665:5
   1: core::panicking::panic_fmt
             at /rustc/9fc6b43126469e3858e2fe86cafb4f0fd5068869/library/core/src/panicking.rs:76:14
   2: kv_storage::wal::Wal::append
             at ./kv_storage/src/wal.rs:412:17
note: Some details are omitted, run with `RUST_BACKTRACE=full` for a verbose backtrace."""

TRACEBACK = """Traceback (most recent call last):
  File "/srv/app/web.py", line 31, in handle
    return self.db.fetch(key)
           ^^^^^^^^^^^^^^^^^^
  File "/srv/app/db.py", line 12, in fetch
    raise KeyError(key)
KeyError: 'did:key:z6Mk'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/srv/app/main.py", line 8, in <module>
    serve()
RuntimeError: request failed"""


@pytest.mark.parametrize("framed", [False, True])
def test_panic_and_traceback_between_json(agent, loki, tenant, tmp_path, framed):
    """They have no level: under `levels: warn` they stay, whole, one record each, and the JSON around them is judged by its own."""
    generator = Loggen(seed=33)
    lines = [generator.line(level=level) for level in ("info", "error", "debug", "warn", "info", "error")]
    blocks = [[lines[0], lines[1]], PANIC.split("\n"), [lines[2], lines[3]], TRACEBACK.split("\n"), lines[4:]]
    flat = [x for block in blocks for x in block]
    if framed:
        log = pod_log(tmp_path)
        write(log, [cri(x, "stderr") for x in flat])
        source = pods(tmp_path, tenant=tenant, levels="warn")
    else:
        log = tmp_path / "app.log"
        write(log, flat)
        source = file_input(log, tenant=tenant, levels="warn")
    a = agent(config({"app": source}, {"loki": loki_output(loki.url)}))
    a.wait_delivered(5, "loki")
    inputs, _ = wait_rest(a)
    assert total(inputs, "filtered_level") == 3
    now = time.time_ns()
    found = loki.query_all(tenant, '{service_name=~".+"}', now - HOUR, now + HOUR)
    texts = [line for _, _, line in found]
    assert sorted(texts) == sorted([lines[1].text, lines[3].text, lines[5].text, PANIC, TRACEBACK])
    levels = {line: labels["level"] for labels, _, line in found}
    assert levels[PANIC] in ("unknown", "error", "fatal") and levels[TRACEBACK] in ("unknown", "error", "fatal")


def test_multiline_by_a_start_pattern(agent, tmp_path):
    write(tmp_path / "app.log", ["2026-01-02 first", "more of it", "and more", "2026-01-03 second", "2026-01-04 third", "end"])
    a = agent(config({"app": file_input(tmp_path / "app.log", multiline={"start": "^[0-9]{4}-"}, format="text")},
                     {"out": archive_output(tmp_path / "out.ndjson")}))
    a.wait_delivered(3, "out")
    assert [d["message"] for d in documents(tmp_path / "out.ndjson")] == [
        "2026-01-02 first\nmore of it\nand more", "2026-01-03 second", "2026-01-04 third\nend"]
    wait_rest(a)


# --- forged names ---

EVIL = "evil"
FORGED = [
    {"pod": EVIL, "namespace": EVIL, "tenant": EVIL, "msg": "plain"},
    '{"p\\u006fd":"evil","n\\u0061mespace":"evil","ten\\u0061nt":"evil","service_n\\u0061me":"evil","msg":"escaped"}',
    {"pod.name": EVIL, "namespace.x": EVIL, "kubernetes.pod.name": EVIL, "kubernetes.namespace": EVIL, "tenant.id": EVIL,
     "organization.id": EVIL, "service.name": EVIL, "log.level": EVIL, "msg": "dotted"},
    {"pod": {"name": EVIL}, "namespace": {"name": EVIL}, "tenant": {"id": EVIL}, "msg": "objects"},
    {"kubernetes": {"pod": {"name": EVIL}, "namespace": EVIL}, "organization": {"id": EVIL}, "container": {"name": EVIL},
     "service": {"name": EVIL}, "host": {"name": EVIL}, "log": {"level": EVIL}, "msg": "nested"},
    {"kubernetes.pod": {"name": EVIL}, "kubernetes": {"pod.name": EVIL, "node.name": EVIL}, "msg": "half dotted"},
    '{"pod":"evil","pod":"evil","tenant":"evil","tenant":"evil","msg":"twice"}',
    '{"pod":"evil","p\\u006fd":"evil","original_pod":"evil","msg":"twice, once escaped"}',
    {"container_name": EVIL, "node_name": EVIL, "service_name": EVIL, "host_name": EVIL, "severity": EVIL, "cluster": EVIL,
     "msg": "all others"},
    {"severity": EVIL, "level": "info", "zone": EVIL, "msg": "a constant"},
    {"original_pod": EVIL, "pod": EVIL, "original_2_pod": EVIL, "msg": "what we would rename to"},
    {"pod": ["evil"], "namespace": [EVIL, EVIL], "tenant": [{"id": EVIL}], "msg": "arrays"},
]
PLAIN_NAMES = ["pod", "namespace", "tenant", "container_name", "node_name", "service_name", "host_name", "cluster", "severity",
               "zone"]
ECS_NAMES = ["kubernetes.pod.name", "kubernetes.namespace", "organization.id", "container.name", "kubernetes.node.name",
             "service.name", "host.name", "orchestrator.cluster.name", "log.level", "zone"]


def _flat(value, path=""):
    """Every scalar by its dotted path, as Elasticsearch sees an object."""
    if isinstance(value, dict):
        for k, v in value.items():
            yield from _flat(v, f"{path}.{k}" if path else k)
    elif isinstance(value, list):
        for v in value:
            yield from _flat(v, path)
    else:
        yield path, value


def test_forged_names(agent, search, loki, index, tenant, tmp_path):
    lines = [f if isinstance(f, str) else json.dumps(f, separators=(",", ":")) for f in FORGED]
    write(pod_log(tmp_path), [cri(line) for line in lines])
    a = agent(config(
        {"pods": pods(tmp_path, tenant=tenant, fields={"service": "orders", "zone": "b"})},
        {"plain": search_output(search.url, index=f"{index}-plain"),
         "ecs": search_output(search.url, index=f"{index}-ecs", document={"names": "ecs"}),
         "loki": loki_output(loki.url, line="enriched"),
         "archive": archive_output(tmp_path / "out/{tenant}.ndjson")},
        fields={"cluster": "eu-1"}), env={"NODE_NAME": "n-1"})
    _, outputs = wait_rest(a, read=len(lines))
    assert total(outputs, "dead_lines") == 0
    plain = {"pod": "web-7d9f-x2x", "namespace": "shop", "tenant": tenant, "container_name": "app", "node_name": "n-1",
             "service_name": "orders", "cluster": "eu-1", "zone": "b"}
    # Elasticsearch: nothing by search, and nothing in what it would see under our names.
    for kind, names in (("plain", PLAIN_NAMES), ("ecs", ECS_NAMES)):
        search.wait_count(f"{index}-{kind}", len(lines), 20)
        for name in names:
            for field in (name, name + ".*", name + ".keyword"):
                query = {"query_string": {"query": EVIL, "fields": [field], "lenient": True}}
                assert search.count(f"{index}-{kind}", query) == 0, (kind, field)
        for hit in search.search_all(f"{index}-{kind}"):
            for path, value in _flat(hit["_source"]):
                assert not (value == EVIL and any(path == n or path.startswith(n + ".") or n.startswith(path + ".") for n in names)), hit
        key = "pod" if kind == "plain" else "kubernetes.pod.name"
        assert search.count(f"{index}-{kind}", {"term": {key: "web-7d9f-x2x"}}) == len(lines)
    # The archive and Loki's enriched lines: a reader that takes the first of two keys finds ours as well.
    now = time.time_ns()
    entries = loki.query_all(tenant, '{namespace="shop"}', now - HOUR, now + HOUR)
    archived = (tmp_path / "out" / f"{tenant}.ndjson").read_text().splitlines()
    assert len(archived) == len(entries) == len(lines)
    for text in archived + [line for _, _, line in entries]:
        pairs = json.loads(text, object_pairs_hook=list)
        seen = [k for k, _ in pairs]
        assert all(seen.count(name) <= 1 for name in PLAIN_NAMES), text
        assert {k: v for k, v in pairs if k in plain} == plain, text
        assert not [k for k, v in pairs if any(k.startswith(n + ".") for n in PLAIN_NAMES)], text
    for labels, _, _ in entries:
        assert EVIL not in labels.values()
        assert (labels["pod"], labels["namespace"], labels["tenant"]) == ("web-7d9f-x2x", "shop", tenant)
    for name in ("pod", "namespace", "tenant", "container", "node", "service_name"):
        assert not loki.query_all(tenant, f'{{service_name=~".+"}} | {name}="{EVIL}"', now - HOUR, now + HOUR)
    assert not loki.label_values(EVIL, "namespace", now - HOUR, now + HOUR)
    assert not (tmp_path / "out" / f"{EVIL}.ndjson").exists()
    assert a.metric("delivered_lines_total", tenant=EVIL) == 0
    # What they said is not thrown away.
    (renamed,) = [json.loads(t) for t in archived if json.loads(t)["msg"] == "plain"]
    assert renamed["original_pod"] == renamed["original_namespace"] == renamed["original_tenant"] == EVIL
    assert a.metric("altered_lines_total", reason="key_conflict") > 0


# --- broken content ---


def _deep(n):
    return '{"a":' * n + "1" + "}" * n


def test_broken_content(agent, search, loki, index, tenant, tmp_path):
    """Shipped as text or cut, counted, the process lives, the ledger balances; the good lines between arrive."""
    good = Loggen(seed=34, shapes=["tracing"]).lines(12)
    broken = [
        b'{"msg":"cut off', b'{"msg":"trailing"} garbage', b'{"msg":1,}', b'{"msg":"two"}{"msg":"objects"}', b"{", b"[1,2,3]",
        b'"a string"', b"12", b"null", b'{"nul":"a\x00b"}', b"text with \x00\x00 nul", b"bad utf-8 \xff\xfe\xc3(\xed\xa0\x80 end",
        b'{"msg":"bad utf-8 \xff"}', _deep(120).encode(), _deep(129).encode(), _deep(100_000).encode(),
        b'{"a":' + b"[" * 100_000, b'{"n":1e999}', b'{"n":' + b"9" * 5000 + b"}", b'{"n":-' + b"1" * 400 + b".5e-400}",
        b'{"level":' + b"9" * 400 + b',"msg":"level"}', b'{"time":' + b"9" * 400 + b',"msg":"time"}', b'{"time":-1,"msg":"before"}',
        b'{"a":1,"a":2,"a":{"a":3,"a":4}}', b'{"":1,"":2}', b"\r", b"ends with cr\r", b"\xef\xbb\xbf{\"msg\":\"bom\"}",
        b"\x1b[31mcolours\x1b[0m", b'{"\\ud800":"lone"}', b'{"msg":"\\u0000"}', b"{" + b'"k":1,' * 20000 + b'"z":1}',
    ]
    huge = b"z" * (3 << 20)
    pieces = [good[0].text.encode()] * 1 + [line.text.encode() for line in good[1:6]] + broken + [good[6].text.encode(), huge]
    pieces += [line.text.encode() for line in good[7:]]
    data = b"".join(p + b"\n" for p in pieces)
    (tmp_path / "app.log").write_bytes(b"")
    a = agent(config(
        {"app": file_input(tmp_path / "app.log", tenant=tenant, multiline="off")},
        {"search": search_output(search.url, index=f"{index}-all"), "loki": loki_output(loki.url),
         "out": archive_output(tmp_path / "out.ndjson")}))
    with open(tmp_path / "app.log", "ab") as f:
        f.write(data)
    wait_until(lambda: a.status()["files"][0]["size"] == len(data), 10, "the whole file is seen")
    wait_files(a, 1)
    inputs, outputs = wait_rest(a)
    read = total(inputs, "read_lines")
    assert len(pieces) - 1 <= read <= len(pieces)  # an empty line is no record
    assert total(inputs, "kept_lines") + total(inputs, "filtered_too_old") == read
    assert total(outputs, "dead_lines") == 0 and a.running()
    found = documents(tmp_path / "out.ndjson")
    assert_arrived(good, found)
    assert len(found) == read
    texts = [d.get("message", "") for d in found if isinstance(d.get("message", ""), str)]
    (cut,) = [t for t in texts if t.startswith("zzz")]
    assert cut == "z" * (1 << 20)
    assert a.metric("altered_lines_total", input="app", reason="cut") >= 1
    assert a.metric("altered_lines_total", input="app", reason="bad_json") >= 6
    assert '{"msg":"cut off' in texts and _deep(100_000) in texts and "12" in texts
    search.wait_count(f"{index}-all", read, 20)
    hits = search.search_all(f"{index}-all")
    assert len(hits) == read
    assert_arrived(good, [h["_source"] for h in hits])
    now = time.time_ns()
    entries = loki.query_all(tenant, '{service_name=~".+"}', now - HOUR, now + HOUR)
    assert_arrived(good, [line for _, _, line in entries])
    assert len(entries) == total(outputs, "delivered_lines", output="loki")
    assert not [k for k in loki.discarded() if k[0] == tenant]
    if "san-" not in str(binary()):  # a sanitizer's own memory is not ours
        assert a.memory()["VmRSS"] < 64 << 20


def test_a_file_that_is_no_log(agent, tmp_path):
    """Binary files, a FIFO and a loop of folders: skipped, said; the log beside them is read."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/image.log").write_bytes(b"\x7fELF\x00\x00\x00\x01" * 100)
    os.mkfifo(tmp_path / "logs/fifo.log")
    os.symlink("..", tmp_path / "logs/loop")
    (tmp_path / "logs/folder.log").mkdir()
    write(tmp_path / "logs/app.log", ["one", "two"])
    a = agent(config({"app": file_input(tmp_path / "logs/**/*.log", multiline="off")},
                     {"out": archive_output(tmp_path / "out.ndjson")}))
    wait_rest(a, read=2)
    assert [d["message"] for d in documents(tmp_path / "out.ndjson")] == ["one", "two"]
    assert a.wait_event("file.skipped")
    assert a.metric("files", input="app", state="skipped") >= 1
    assert "image.log" in json.dumps(a.events("file.skipped"))


def test_unreadable_file(agent, tmp_path):
    """One we may not open: said, counted, Degraded, and read once we may. Root gives up the right to open everything."""
    write(tmp_path / "app.log", ["one"])
    os.chmod(tmp_path / "app.log", 0)
    a = agent(config({"app": file_input(tmp_path / "app.log", multiline="off")},
                     {"out": archive_output(tmp_path / "out.ndjson")}), wrap=without_override())
    a.wait_event("file.unreadable")
    a.wait_metric("files", 1, input="app", state="unreadable")
    assert a.health()["level"] == "Degraded"
    os.chmod(tmp_path / "app.log", 0o644)
    a.wait_delivered(1, "out", timeout=20)
    assert a.metric("files", input="app", state="unreadable") == 0
