"""packaging/elasticsearch: its templates go into a real Elasticsearch and OpenSearch, and take what an agent ships there."""

import json
import pathlib
import subprocess
import time

from support import SECOND, config, file_input, search_output
from tailrace_test import Loggen, write

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "packaging/elasticsearch"
LOGGERS = ("pino", "tracing", "structlog", "ecs")


def install(search):
    got = subprocess.run([FOLDER / "install.sh", search.url], capture_output=True, text=True, check=False)
    assert got.returncode == 0, got.stdout + got.stderr
    return got


def test_templates_take_lines_of_each_logger(agent, search, index, tmp_path):
    try:
        for _ in range(2):  # a second time is fine
            said = install(search)
        assert "no ILM here" in said.stderr  # neither test server has it: the policy itself is not tried
        for kind in ("component", "index"):
            names = {t["name"] for t in search.get(f"/_{kind}_template/tailrace*")[f"{kind}_templates"]}
            files = {p.stem for p in (FOLDER / f"{kind}_templates").glob("*.json")}
            assert names >= files - {"tailrace-ilm"} and "tailrace-ilm" not in names
        ship(agent, search, index, tmp_path)
    finally:  # what other tests could meet; the rest belongs to data streams that this server cannot delete
        search.delete("/_index_template/tailrace-daily")


def ship(agent, search, index, tmp_path):
    """Forty lines of each logger, in a data stream of its own; and all of them together in daily indexes."""
    tenant = index.replace("-", "")
    outputs, now = {}, time.time_ns()
    for logger in LOGGERS:
        write(tmp_path / f"{logger}.log", [Loggen(seed=41).line(ts=now - i * SECOND, shape=logger, level=("error", "info")[i % 2])
                                           for i in range(40)])
        outputs[logger] = search_output(
            search.url, template="off", data_stream={"dataset": logger + ".{service}", "namespace": tenant},
            document={"names": "ecs" if logger == "ecs" else "plain", "on_refused": "dead"})
    outputs["daily"] = search_output(search.url, template="off", index=f"tailrace-{tenant}-%Y.%m.%d", document={"on_refused": "dead"})
    routes = [{"match": {"service": logger}, "to": [logger], "continue": True} for logger in LOGGERS] + [{"to": ["daily"]}]
    a = agent(config({"app": file_input(tmp_path / "<service>.log", tenant=tenant, fields={"service": "{path.service}"})},
                     outputs, routes=routes))
    for logger in LOGGERS:
        a.wait_delivered(40, logger)
    a.wait_delivered(160, "daily")
    assert a.metric("dead_letter_lines_total") == 0, a.metrics()
    for logger in LOGGERS:
        stream = f"logs-{logger}.{logger}-{tenant}"
        search.refresh(stream)
        level = "log.level" if logger == "ecs" else "severity"
        assert search.count(stream) == 40
        assert search.count(stream, {"term": {level: "error"}}) == 20, logger
        mappings = next(iter(search.get(f"/{stream}/_mapping").values()))["mappings"]["properties"]
        assert mappings["@timestamp"]["type"] == "date_nanos"
        own = json.loads((FOLDER / f"component_templates/tailrace-{logger}.json").read_text())
        for field, want in own["template"]["mappings"]["properties"].items():
            assert mappings[field].get("type", "object") == want.get("type", "object"), (logger, field)
    search.refresh(f"tailrace-{tenant}-*")
    assert search.count(f"tailrace-{tenant}-*") == 160


def test_the_policy_is_well_formed():
    policy = json.loads((FOLDER / "ilm/tailrace.json").read_text())["policy"]
    assert set(policy["phases"]) == {"hot", "warm", "delete"} and policy["phases"]["hot"]["actions"]["rollover"]
