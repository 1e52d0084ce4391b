"""The real binary and a real Elasticsearch, then the same with OpenSearch; authentication and TLS with scripted servers."""

import base64
import json
import random
import time

import pytest

from support import DAY, SECOND, config, day, file_input, instant, ledger, rfc3339, search_output, total, wait_rest
from tailrace_test import FIVE, BulkReply, Loggen, Reply, assert_arrived, seqs, write

PLAIN = ("pod", "namespace", "tenant", "container_name", "node_name", "service_name", "host_name", "severity")


def spread(generator, n, **fixed):
    """n lines, each of a millisecond of its own, the last about now."""
    start = time.time_ns() // 1_000_000 * 1_000_000 - n * 1_000_000
    return [generator.line(ts=start + i * 1_000_000, **fixed) for i in range(n)]


def sources(search, index, n):
    search.wait_count(index, n, 20)
    return [hit["_source"] for hit in search.search_all(index)]


def by_seq(items):
    return {next(iter(seqs([item]))): item for item in items}


def test_count_and_fields(agent, search, index, tmp_path):
    """Each logger in an index of its own: all documents as objects, our fields beside theirs, times to the nanosecond."""
    generator = Loggen(seed=21)
    written = {shape: spread(generator, 50, shape=shape) for shape in FIVE}
    for shape, lines in written.items():
        write(tmp_path / f"{shape}.log", lines)
    a = agent(config(
        {"app": file_input(tmp_path / "<service>.log", tenant="acme",
                           fields={"service": "{path.service}", "pod": "p-1", "namespace": "vm", "container": "main", "zone": "b"})},
        {"search": search_output(search.url, index=f"{index}-{{service}}-%Y.%m.%d")}), env={"NODE_NAME": "n-1"})
    wait_rest(a, read=250)
    for shape, lines in written.items():
        search.refresh(f"{index}-{shape}-*")
        assert search.count(f"{index}-{shape}-*") == 50
        found = by_seq(sources(search, f"{index}-{shape}-*", 50))
        assert_arrived(lines, found.values())
        for line in lines:
            doc = dict(found[line.seq])
            assert instant(doc.pop("@timestamp")) == line.ts
            mine = {k: doc.pop(k) for k in PLAIN if k != "host_name"}
            assert doc.pop("host_name") and doc.pop("zone") == "b"
            assert mine == {"pod": "p-1", "namespace": "vm", "tenant": "acme", "container_name": "main",
                            "node_name": "n-1", "service_name": shape, "severity": line.level}
            assert doc == json.loads(line.text)
        warn = sum(line.level == "warn" for line in lines)
        assert search.count(f"{index}-{shape}-*", {"term": {"severity": "warn"}}) == warn
        assert search.count(f"{index}-{shape}-*", {"term": {"pod": "p-1"}}) == 50
    assert a.metric("dead_letter_lines_total") == 0


def test_once_after_kill(agent, search, index, tmp_path):
    """kill -9 in the midst, twice, while lines are written; every line once, each under an id of its own."""
    generator, written = Loggen(seed=5, shapes=["tracing"]), []
    more = random.Random(5)

    def add(n):
        lines = generator.lines(n)
        written.extend(lines)
        write(tmp_path / "app.log", lines)

    add(3000)
    a = agent(config({"app": file_input(tmp_path / "app.log", tenant="acme")},
                     {"search": search_output(search.url, index=index)}))
    for _ in range(2):
        a.wait_metric("delivered_lines_total", 1, output="search")
        add(more.randrange(500, 2000))
        a.wait_metric("accepted_lines_total", len(written) - 200, output="search")
        a.kill9()
        add(more.randrange(100, 500))
        a.start()
    inputs, outputs = wait_rest(a, read=len(written), timeout=60)
    assert total(outputs, "delivered_lines") == len(written) == total(inputs, "kept_lines")
    search.wait_count(index, len(written), 20)
    hits = search.search_all(index, fields=["fields.seq"])
    assert_arrived(written, [hit["_source"] for hit in hits])
    assert len({hit["_id"] for hit in hits}) == len(written) and all(len(hit["_id"]) == 19 for hit in hits)


def test_index_by_tenant_and_date(agent, search, index, tmp_path):
    """The date is the record's own, in UTC; what an index name cannot hold is replaced."""
    now = time.time_ns()
    tenants = {"acme": "acme", "Big Corp/EU": "big_corp_eu"}
    lines = [
        json.dumps({"time": rfc3339(ts), "level": "info", "org": t, "message": f"{t} {n}"})
        for t in tenants for n, ts in enumerate((now, now - 2 * DAY, now - 400 * DAY))
    ]
    write(tmp_path / "app.log", lines)
    a = agent(config({"app": file_input(tmp_path / "app.log", tenant="{record.org}")},
                     {"search": search_output(search.url, index=f"{index}-{{tenant}}-%Y.%m.%d")}))
    wait_rest(a, read=6)
    search.wait_count(f"{index}-*", 6, 20)
    assert set(search.indices(f"{index}-*")) == {
        f"{index}-{t}-{day(ts)}" for t in tenants.values() for ts in (now, now - 2 * DAY, now - 400 * DAY)}
    (doc,) = sources(search, f"{index}-big_corp_eu-{day(now - 2 * DAY)}", 1)
    assert doc["message"] == "Big Corp/EU 1" and doc["tenant"] == "Big Corp/EU"


def test_data_streams(agent, search, index, tmp_path):
    dataset = index.replace("-", "_")
    lines = spread(Loggen(seed=2, shapes=["tracing"]), 40)
    write(tmp_path / "my-app.log", lines)
    a = agent(config(
        {"app": file_input(tmp_path / "*.log", tenant="team-a", fields={"service": "My-App"})},
        {"search": search_output(search.url, data_stream={"dataset": f"{dataset}.{{service}}", "namespace": "{tenant}"})}))
    wait_rest(a, read=40)
    name = f"logs-{dataset}.my_app-team_a"
    search.wait_count(name, 40, 20)
    (backing,) = search.indices(f".ds-{name}*")  # a stream, and no index of its name
    assert backing.startswith(f".ds-{name}-") and backing.endswith("-000001")
    assert_arrived(lines, sources(search, name, 40))


def test_names_of_ecs(agent, search, index, tmp_path):
    lines = spread(Loggen(seed=4, shapes=["ecs"]), 10)
    write(tmp_path / "app.log", lines + ["only text"])
    a = agent(config(
        {"app": file_input(tmp_path / "app.log", tenant="acme", multiline="off",
                           fields={"service": "orders", "pod": "p-1", "namespace": "vm", "container": "main"})},
        {"search": search_output(search.url, index=index, document={"names": "ecs"})}), env={"NODE_NAME": "n-1"})
    wait_rest(a, read=11)
    found = sources(search, index, 11)
    for doc in found:
        mine = {k: doc[k] for k in ("kubernetes.pod.name", "kubernetes.namespace", "organization.id", "container.name",
                                    "kubernetes.node.name", "service.name")}
        assert mine == {"kubernetes.pod.name": "p-1", "kubernetes.namespace": "vm", "organization.id": "acme",
                        "container.name": "main", "kubernetes.node.name": "n-1", "service.name": "orders"}
        assert "pod" not in doc and "severity" not in doc
    # Their own level stands where ours belongs, in another spelling: it is kept aside.
    for line in lines:
        doc = by_seq(d for d in found if "seq" in d)[line.seq]
        assert doc["log.level"] == line.level and doc.get("original_log.level", line.level.upper()) == line.level.upper()
        assert doc["log.logger"] == line.module and doc["@timestamp"] == json.loads(line.text)["@timestamp"]
    (text,) = [d for d in found if "seq" not in d]
    assert text["message"] == "only text" and text["log.level"] == "unknown"
    assert search.count(index, {"term": {"kubernetes.pod.name": "p-1"}}) == 11


def test_payload_under_a_key(agent, search, index, tmp_path):
    """Five loggers in one index cannot clash where their objects are one flattened field."""
    lines = spread(Loggen(seed=6), 100)
    write(tmp_path / "app.log", lines + ["some text"])
    a = agent(config({"app": file_input(tmp_path / "app.log", tenant="acme", multiline="off")},
                     {"search": search_output(search.url, index=f"{index}-%Y", document={"payload": "log"})}))
    wait_rest(a, read=101)
    found = sources(search, f"{index}-*", 101)
    docs = by_seq(d for d in found if "log" in d)
    for line in lines:
        doc = docs[line.seq]
        assert doc["log"] == json.loads(line.text) and doc["severity"] == line.level and instant(doc["@timestamp"]) == line.ts
        assert doc["message"] == (line.message.replace(" ", "_") if line.shape == "structlog" else line.message)
    assert [d["message"] for d in found if "log" not in d] == ["some text"]
    (mapping,) = search.get(f"/{index}-*/_mapping").values()
    assert mapping["mappings"]["properties"]["log"]["type"] in ("flattened", "flat_object")
    assert a.metric("altered_lines_total", reason="refused_mapping") == 0 == a.metric("dead_letter_lines_total")


def test_the_template_is_installed(agent, search, index, tmp_path):
    write(tmp_path / "app.log", ['{"msg":"x","when":"2026-01-02","n":1}'])
    a = agent(config({"app": file_input(tmp_path / "app.log", tenant="acme")},
                     {"search": search_output(search.url, index=f"{index}-%Y.%m.%d"),
                      "plain": search_output(search.url, index=f"x{index}-%Y.%m.%d", template="off")}))
    wait_rest(a, read=1)
    (template,) = [t for t in search.get("/_index_template/tailrace*")["index_templates"]
                   if f"{index}-*" in t["index_template"]["index_patterns"]]
    assert template["index_template"]["priority"] == 501
    search.wait_count(f"{index}-*,x{index}-*", 2, 20)
    (mapping,) = search.get(f"/{index}-*/_mapping").values()
    fields = mapping["mappings"]["properties"]
    assert {k: fields[k]["type"] for k in ("@timestamp", "msg", "when", "pod", "n") if k in fields} == {
        "@timestamp": "date_nanos", "msg": "text", "when": "keyword", "n": "long"}
    assert fields["msg"]["fields"]["keyword"]["type"] == "keyword"  # sentences can be searched and grouped by
    assert fields["tenant"]["type"] == "keyword" and mapping["mappings"]["date_detection"] is False
    (other,) = search.get(f"/x{index}-*/_mapping").values()
    assert other["mappings"]["properties"]["when"]["type"] == "date"


def _query(line):
    """A search of the line's text: a phrase in text, the whole of a keyword."""
    text = line.message.replace(" ", "_") if line.shape == "structlog" else line.message
    return {"bool": {"must": [
        {"multi_match": {"query": text, "type": "phrase", "fields": ["*"], "lenient": True}},
        {"query_string": {"query": f'"{line.seq}"', "lenient": True}},
    ]}}


@pytest.mark.parametrize("template", ["auto", "off"])
@pytest.mark.parametrize("order", [1, -1])
def test_five_loggers_in_one_index(agent, search, index, tmp_path, order, template):
    """In both orders of first arrival: what the mapping refuses comes as text; nothing is a dead letter."""
    generator = Loggen(seed=8)
    firsts = [generator.line(shape=shape, level="error") for shape in FIVE][::order]
    rest = [generator.line(shape=FIVE[i % 5], level=("error", "info", "warn")[i % 3]) for i in range(30)]
    write(tmp_path / "app.log", [])
    a = agent(config({"app": file_input(tmp_path / "app.log", tenant="acme")},
                     {"search": search_output(search.url, index=f"{index}-all", template=template)}))
    for n, line in enumerate(firsts):
        write(tmp_path / "app.log", [line])
        a.wait_delivered(n + 1, "search")
    write(tmp_path / "app.log", rest)
    _, outputs = wait_rest(a, read=35)
    assert total(outputs, "dead_lines") == 0 and total(outputs, "delivered_lines") == 35
    refused = a.metric("altered_lines_total", reason="refused_mapping")
    found = sources(search, f"{index}-all", 35)
    assert_arrived(firsts + rest, found)
    # The mapping did refuse some, whichever came first: those are text that holds the line as it was.
    texts = {line.text for line in firsts + rest} & {d.get("message") for d in found}
    assert 0 < len(texts) < 35 and refused == len(texts)
    for line in firsts + rest:
        assert search.count(f"{index}-all", _query(line)) == 1, line
    assert {d["severity"] for d in found} >= {"error", "info", "warn"}


def test_duplicate_keys_and_what_else_is_refused(agent, search, index, tmp_path):
    lines = [
        '{"msg":"twice","a":1,"a":2}', '{"msg":"escaped","a":1,"\\u0061":2}', '{"msg":"deep","x":{"b":1,"b":2}}',
        '{"msg":"service","service":"x","service.name":"y"}', '{"msg":"big","n":1e999}', '{"msg":"empty key","":1}',
        '{"msg":"dots","a..b":1}', '{"msg":"minus","n":-0.0}', '{"msg":"lone \\ud800 surrogate"}',
        json.dumps({"msg": "many", **{f"k{i}": i for i in range(1200)}}), '{"msg":"good","n":1}',
        json.dumps({"msg": "immense", "text": "x" * 40000}), '{"_id":"1","msg":"id"}', '{"@timestamp":"tomorrow","msg":"time"}',
        '{"@timestamp":17,"msg":"number"}', '{"message":{"a":1},"msg":"object"}', '{"message":"words","msg":"then words"}',
    ]
    write(tmp_path / "app.log", lines)
    a = agent(config({"app": file_input(tmp_path / "app.log", tenant="acme")},
                     {"search": search_output(search.url, index=f"{index}-all")}))
    _, outputs = wait_rest(a, read=len(lines))
    assert total(outputs, "dead_lines") == 0
    found = sources(search, f"{index}-all", len(lines))
    texts = {d["message"] for d in found if "msg" not in d}
    for line in lines[:3]:
        assert line in texts
    assert all(line in texts or json.loads(line).get("msg") in {d.get("msg") for d in found} for line in lines
               if "lone" not in line)
    assert all(d["tenant"] == "acme" and instant(d["@timestamp"]) > time.time_ns() - 600 * SECOND for d in found)


def test_refused_documents_as_dead_letters(agent, search, index, tmp_path):
    """on_refused: dead, and what `tailrace queue` shows is another test's matter: here the count."""
    write(tmp_path / "app.log", ['{"n":1}', '{"n":"words"}', '{"n":2}'])
    a = agent(config({"app": file_input(tmp_path / "app.log", tenant="acme")},
                     {"search": search_output(search.url, index=f"{index}-all", document={"on_refused": "dead"})}))
    _, outputs = wait_rest(a, read=3)
    assert total(outputs, "dead_lines") == 1 and total(outputs, "delivered_lines") == 2
    assert a.wait_event("dead.written")
    assert sorted(d["n"] for d in sources(search, f"{index}-all", 2)) == [1, 2]
    assert a.health()["level"] == "Degraded"


# --- who we are and whom we trust: scripted servers ---


def accepts(request):
    return BulkReply() if request.path.endswith("/_bulk") else Reply(200, {"acknowledged": True})


def bulk(request):
    return request.path.endswith("/_bulk")


@pytest.mark.parametrize("auth, header", [
    ({"basic": {"username": "tail", "password": "pa:ss wörd"}},
     "Basic " + base64.b64encode("tail:pa:ss wörd".encode()).decode()),
    ({"basic": {"username": "tail", "password_file": "@"}}, "Basic " + base64.b64encode(b"tail:secret-1").decode()),
    ({"bearer": "tok-1"}, "Bearer tok-1"),
    ({"bearer_file": "@"}, "Bearer secret-1"),
    ({"api_key": "a2V5OnNlY3JldA=="}, "ApiKey a2V5OnNlY3JldA=="),
    ({"api_key_file": "@"}, "ApiKey secret-1"),
])
def test_authentication(agent, faults, tmp_path, auth, header):
    server = faults(default=accepts)
    secret = tmp_path / "secret"
    secret.write_text("secret-1\n")
    auth = json.loads(json.dumps(auth).replace('"@"', json.dumps(str(secret))))
    write(tmp_path / "app.log", ["one"])
    a = agent(config({"app": file_input(tmp_path / "app.log", multiline="off")},
                     {"search": search_output(server.url, auth=auth, headers={"X-Extra": "yes"})}))
    a.wait_delivered(1, "search")
    assert {r.headers.get("Authorization") for r in server.complete()} == {header}
    assert {r.headers.get("X-Extra") for r in server.complete()} == {"yes"}
    for word in ("secret-1", "tok-1", "pa:ss", "a2V5OnNlY3JldA"):
        assert word not in json.dumps(a.log()) and word not in json.dumps(a.status())


def test_a_changed_api_key_is_read_again(agent, faults, tmp_path):
    """The server refuses the old key: lines are held, nothing is a dead letter; the new one is found without a restart."""
    def decide(request):
        if request.headers.get("Authorization") != "ApiKey second":
            return Reply(401, {"error": {"type": "security_exception", "reason": "unable to authenticate"}, "status": 401})
        return accepts(request)

    server = faults(default=decide)
    key = tmp_path / "key"
    key.write_text("first\n")
    write(tmp_path / "app.log", ["one", "two"])
    a = agent(config({"app": file_input(tmp_path / "app.log", multiline="off")},
                     {"search": search_output(server.url, auth={"api_key_file": str(key)})}))
    server.wait_requests(1, 10, when=bulk)
    a.wait_metric("requests_total", 1, output="search", code="401")
    assert a.metric("delivered_lines_total", output="search") == 0
    new = tmp_path / "key.new"
    new.write_text("second\n")
    new.rename(key)
    a.wait_delivered(2, "search", timeout=20)
    assert a.metric("dead_letter_lines_total") == 0
    assert [r.answered for r in server.complete(bulk)] == [401, 200]


def test_tls_with_both_certificates(agent, faults, certs, tmp_path):
    server = faults(tls=certs.server, client_ca=certs.ca, default=accepts)
    write(tmp_path / "app.log", ["one"])
    cert, key = certs.client
    a = agent(config(
        {"app": file_input(tmp_path / "app.log", multiline="off")},
        {"search": search_output(server.url, tls={"ca_file": str(certs.ca), "cert_file": str(cert), "key_file": str(key)})}))
    a.wait_delivered(1, "search")
    assert not server.tls_errors
    for kind in ("server", "client"):
        expiry = a.metric("certificate_expiry_timestamp_seconds", output="search", kind=kind)
        assert 29 * 86400 < expiry - time.time() < 31 * 86400, kind


@pytest.mark.parametrize("server_cert, tls", [
    ("server", {}), ("stranger", {"ca_file": "@ca"}), ("expired", {"ca_file": "@ca"}), ("wrong_host", {"ca_file": "@ca"}),
])
def test_tls_is_not_given_in(agent, faults, certs, tmp_path, server_cert, tls):
    """A server that cannot be trusted gets no line; it is said, and nothing is lost."""
    server = faults(tls=getattr(certs, server_cert), default=accepts)
    write(tmp_path / "app.log", ["one"])
    tls = {k: str(certs.ca) if v == "@ca" else v for k, v in tls.items()}
    a = agent(config({"app": file_input(tmp_path / "app.log", multiline="off")},
                     {"search": search_output(server.url, tls=tls, auth={"bearer": "tok"})}))
    a.wait_metric("requests_total", 1, output="search", code="tls")
    a.wait_event("output.failing")
    a.wait_metric("accepted_lines_total", 1, output="search")
    assert not server.requests
    _, outputs = ledger(a)
    assert total(outputs, "queued_lines") == 1 and total(outputs, "delivered_lines") == 0


def test_tls_server_name(agent, faults, certs, tmp_path):
    server = faults(tls=certs.wrong_host, default=accepts)
    write(tmp_path / "app.log", ["one"])
    a = agent(config(
        {"app": file_input(tmp_path / "app.log", multiline="off")},
        {"search": search_output(server.url, tls={"ca_file": str(certs.ca), "server_name": "elsewhere.invalid"})}))
    a.wait_delivered(1, "search")


def test_several_urls(agent, faults, tmp_path):
    """One of two servers is down at the start, then the other: lines go where there is one."""
    one, two = faults(default=accepts), faults(default=accepts)
    one.stop()
    write(tmp_path / "app.log", ["line 1"])
    a = agent(config({"app": file_input(tmp_path / "app.log", multiline="off")},
                     {"search": search_output([one.url, two.url])}))
    a.wait_delivered(1, "search")
    two.stop()
    one.start()
    write(tmp_path / "app.log", ["line 2"])
    a.wait_delivered(2, "search")
    assert [json.loads(i.doc)["message"] for r in two.complete(bulk) for i in r.bulk()] == ["line 1"]
    assert [json.loads(i.doc)["message"] for r in one.complete(bulk) for i in r.bulk()] == ["line 2"]
    wait_rest(a, read=2)
