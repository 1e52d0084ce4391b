"""The dashboards: every query of every panel, and of every variable, is asked of a real Prometheus, Loki or Elasticsearch
that holds what a real agent has shipped, and must give data."""

import json
import pathlib
import re
import time

import pytest

from support import SECOND, archive_output, config, file_input, loki_output, search_output
from tailrace_test import FIVE, BulkReply, Loggen, Prometheus, Reply, wait_until, write

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "packaging/grafana"
BOARDS = {p.stem: json.loads(p.read_text()) for p in sorted(FOLDER.glob("*.json"))}


def targets(board):
    """(panel's title, target) of all panels."""
    return [(p["title"], t) for p in BOARDS[board]["panels"] for t in p.get("targets", [])]


def filled(text, **more):
    """What Grafana puts in for its variables; a variable that is left over fails."""
    values = {"__rate_interval": "10s", "__range": "60s", "__auto": "10s", "__interval": "10s", **more}
    out = re.sub(r"\$(\w+)", lambda m: values[m[1]], text)
    return re.sub(r"\[30m\]", "[10s]", out)  # a test has no half hour


def test_boards_are_whole():
    assert set(BOARDS) == {"operators", "tenants", "logs-loki", "logs-elasticsearch"}
    uids = set()
    for name, board in BOARDS.items():
        assert board["uid"] and board["uid"] not in uids and board["title"].startswith("Tailrace")
        uids.add(board["uid"])
        ids = [p["id"] for p in board["panels"]]
        assert len(ids) == len(set(ids))
        taken = set()
        for p in board["panels"]:
            g = p["gridPos"]
            cells = {(x, y) for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])}
            assert g["x"] + g["w"] <= 24 and not cells & taken, (name, p["title"])
            taken |= cells
            assert p["type"] == "row" or (p["targets"] and p["datasource"]["uid"] == "${datasource}")
            page = re.search(r"Runbooks?: (.+)", p.get("description", ""))
            for alert in page[1].split(", ") if page else []:
                assert (FOLDER.parents[1] / f"docs/runbooks/{alert}.md").exists(), alert


def test_prometheus_boards(agent, faults, certs, tmp_path):
    picky = faults(tls=certs.server, default=Reply(204))
    picky.script(Reply(401), when=lambda r: r.tenant == "refused", times=100000)
    refusing = faults(default=BulkReply(lambda items: [400] * len(items)))
    log = tmp_path / "app.log"
    a = agent(config(
        {"app": file_input(log, tenant="{record.org|'acme'}", levels="info", multiline="off"),
         "pods": {"type": "kubernetes", "include": [f"{tmp_path}/pods/*/*/*.log"]}},
        {"loki": loki_output(picky.url, tls={"ca_file": str(certs.ca)}), "out": archive_output(tmp_path / "out.ndjson"),
         "search": search_output(refusing.url, template="off", document={"on_refused": "dead"})},
        kubernetes={"api": faults(default=Reply(403)).url, "token_file": "", "ca_file": "", "requests_per_minute": 600}),
        env={"NODE_NAME": "n"})
    generator = Loggen(seed=31)
    variables = {"job": "tailrace", "instance": ".*", "output": ".*", "tenant": ".*"}
    queries = [(b, title, filled(t["expr"], **variables)) for b in ("operators", "tenants") for title, t in targets(b)]
    assert len(queries) > 55
    with Prometheus(tmp_path, "tailrace", [(a.admin.removeprefix("http://"), {})]) as prometheus:
        empty = list(queries)

        def answered():
            write(log, generator.lines(20) + ['{"org":"refused","level":"info","message":"x"}', '{"level":"debug","message":"y"}'])
            empty[:] = [q for q in empty if not any(s["value"][1] not in ("NaN", "+Inf") for s in prometheus.query(q[2]))]
            return not empty

        wait_until(answered, 60, lambda: f"queries without data: {empty}", interval=0.5)
        for board in ("operators", "tenants"):
            for v in BOARDS[board]["templating"]["list"]:
                if v["type"] == "query":
                    selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", v["definition"]).groups()
                    got = prometheus.get(f"/api/v1/label/{label}/values", **{"match[]": filled(selector, **variables)})
                    assert got, v["definition"]


def shipped(agent, tmp_path, output, shapes=FIVE, **more):
    """An agent, and 80 lines of each logger, a file each, delivered."""
    for shape in shapes:
        write(tmp_path / f"{shape}.log", [Loggen(seed=32).line(ts=time.time_ns() - i * SECOND // 4, shape=shape,
                                                               level=("error", "info", "warn", "debug")[i % 4]) for i in range(80)])
    a = agent(config({"app": file_input(tmp_path / "<service>.log", multiline="off", tenant="acme",
                                        fields={"service": "{path.service}"}, **more)}, {"out": output}))
    a.wait_delivered(80 * len(shapes), "out")


def test_loki_board(agent, loki, tenant, tmp_path):
    shipped(agent, tmp_path, loki_output(loki.url, tenant=tenant))
    now = time.time_ns()
    for title, t in targets("logs-loki"):
        query = filled(t["expr"], service=".+", search="")
        if t["queryType"] == "instant":
            r = loki.get(tenant, "/loki/api/v1/query", {"query": query, "time": now})
        else:
            r = loki.get(tenant, "/loki/api/v1/query_range", {"query": query, "start": now - 60 * SECOND, "end": now + SECOND,
                                                             "step": "10s"})
        found = r.expect(200).json()["data"]["result"]
        assert found, f"{title}: {query}"
        if "by (module)" in query:
            assert all(s["metric"]["module"] for s in found) and len(found) > 1, title
    for v in BOARDS["logs-loki"]["templating"]["list"]:
        if v["type"] == "query":
            assert set(loki.label_values(tenant, v["query"]["label"], now - 60 * SECOND, now)) == set(FIVE)


def aggregations(target, **variables):
    """The request that Grafana makes of an Elasticsearch target."""
    body = {"size": 0, "query": {"bool": {"filter": [
        {"range": {"@timestamp": {"gte": "now-5m", "lte": "now+5m"}}},
        {"query_string": {"analyze_wildcard": True, "query": filled(target["query"], **variables)}}]}}}
    if target["metrics"][0]["type"] == "logs":
        return {**body, "size": 500, "sort": [{"@timestamp": "desc"}]}
    level = body
    for agg in target["bucketAggs"]:
        if agg["type"] == "terms":
            one = {"terms": {"field": filled(agg["field"], **variables), "size": int(agg["settings"]["size"]), "min_doc_count": 1}}
        else:
            one = {"date_histogram": {"field": agg["field"], "fixed_interval": "10s", "min_doc_count": 0}}
        level["aggs"] = {agg["id"]: one}
        level = one
    return body


def test_elasticsearch_board(agent, search, index, tmp_path):
    # Without zap: its errors are objects, and where they come first pythonjson's go as text, without their fields.
    shipped(agent, tmp_path, search_output(search.url, index=index + "-{tenant}"), [s for s in FIVE if s != "zap"])
    search.refresh(index + "-*")
    modules = {"tracing": "target", "structlog": "logger", "pino": "name"}
    for title, t in targets("logs-elasticsearch"):
        for module in modules.values():
            body = aggregations(t, service="*", tenant="*", module=module, search="*")
            answer = search.post(f"{index}-*/_search", body)
            if "aggs" not in body:
                assert answer["hits"]["hits"], title
                continue
            buckets = answer["aggregations"][t["bucketAggs"][0]["id"]]["buckets"]
            assert sum(b["doc_count"] for b in buckets) > 0, (title, module, body)
    for v in BOARDS["logs-elasticsearch"]["templating"]["list"]:
        if v["type"] == "query":
            field = json.loads(v["query"])["field"]
            answer = search.post(f"{index}-*/_search", {"size": 0, "aggs": {"v": {"terms": {"field": field}}}})
            assert answer["aggregations"]["v"]["buckets"], field
