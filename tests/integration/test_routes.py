"""Which records go where: routes, tenants, overrides, captures; and the outputs without a server: files and stdout."""

import gzip
import json
import os
import re
import stat
import time

from support import QUICK, SECOND, Clock, archive_output, config, documents, file_input, folder, ledger, total, wait_rest
from tailrace_test import Loggen, assert_arrived, wait_until, write


def record(**fields):
    return json.dumps({"level": "info", **fields})


def ids(path):
    return [d["n"] for d in documents(path)]


def archives(tmp_path, *names):
    return {name: archive_output(tmp_path / f"{name}.ndjson") for name in names}


def test_first_match_continue_drop_not_and_levels(agent, tmp_path):
    lines = [
        record(n=0, org="acme", msg="GET /health/live 200"), record(n=1, org="acme", msg="order"),
        record(n=2, org="acme", msg="debugging", level="debug"), record(n=3, org="globex", msg="order"),
        record(n=4, org="globex", msg="error", level="error"), record(n=5, org="test-1", msg="order"),
        record(n=6, org="initech", msg="order", kind="audit"), record(n=7, org="initech", msg="order", level="debug"),
        record(n=8, org="initech", msg="warned", level="warn", logger="db.pool"), record(n=9, org="initech", msg="no level", level=None),
    ]
    write(tmp_path / "app.log", lines)
    a = agent(config(
        {"app": file_input(tmp_path / "app.log", tenant="{record.org}")}, archives(tmp_path, "audit", "acme", "errors", "rest"),
        routes=[
            {"match": {"message": "*GET /health/*"}, "drop": True},
            {"match": {"tenant": ["acme", "globex"]}, "to": ["audit"], "levels": "trace", "continue": True},
            {"match": {"tenant": "acme", "not": {"level": "debug"}}, "to": ["acme"]},
            {"match": {"level": ["error", "fatal"]}, "to": ["errors", "rest"]},
            {"match": {"record.kind": "aud?t"}, "to": ["audit"]},
            {"match": {"tenant": "*", "not": {"tenant": "test-*"}}, "to": ["rest"], "levels": "info,db=error"},
        ]))
    inputs, outputs = wait_rest(a)
    found = {name: ids(tmp_path / f"{name}.ndjson") for name in ("audit", "acme", "errors", "rest")}
    assert found == {"audit": [1, 2, 3, 4, 6], "acme": [1], "errors": [4], "rest": [3, 4, 9]}
    # 0 by the rule; 7 and 8 by the last route's levels; 5 met no route. 2 was kept for the audit.
    assert total(inputs, "read_lines") == 10
    assert total(inputs, "filtered_rule") == 1 and total(inputs, "filtered_level") == 2
    assert total(inputs, "filtered_unrouted") == 1 == total(inputs, "filtered_unrouted", tenant="test-1")
    assert a.metric("filtered_lines_total", reason="unrouted", tenant="test-1") == 1
    assert total(inputs, "kept_lines") == 6
    assert total(outputs, "delivered_lines", output="audit", tenant="acme") == 2


def test_without_routes_all_go_to_all(agent, tmp_path):
    lines = Loggen(seed=41).lines(30)
    write(tmp_path / "app.log", lines)
    a = agent(config({"app": file_input(tmp_path / "app.log")}, archives(tmp_path, "one", "two")))
    wait_rest(a, read=30)
    for name in ("one", "two"):
        assert_arrived(lines, documents(tmp_path / f"{name}.ndjson"))


def test_matches_of_what_a_file_is(agent, tmp_path):
    """namespace, pod, container, service, input, module; by globs and lists."""
    folders = {}
    for i, (ns, pod, container) in enumerate((("shop", "web-1", "app"), ("shop", "web-1", "sidecar"), ("test-a", "job-1", "app"))):
        path = folder(tmp_path / "pods" / f"{ns}_{pod}_0a1b2c3d-0000-0000-0000-{i:012d}" / container) / "0.log"
        write(path, [f"2026-01-02T03:04:05.678901234Z stdout F {record(n=i * 10 + k, logger=m)}" for k, m in enumerate(("db.pool", "web"))])
        folders[container] = path
    write(tmp_path / "vm.log", [record(n=90)])
    a = agent(config(
        {"pods": {"type": "kubernetes", "include": [str(tmp_path / "pods/*/*/*.log")], "tenant": "{namespace}"},
         "vms": file_input(tmp_path / "vm.log")},
        archives(tmp_path, "sidecars", "db", "tests", "vms", "rest"),
        routes=[
            {"match": {"container": "side*"}, "to": ["sidecars"]},
            {"match": {"namespace": ["test-*", "dev"], "not": {"module": "db.*"}}, "to": ["tests"]},
            {"match": {"module": "db.*", "pod": "web-?"}, "to": ["db"]},
            {"match": {"input": "vms"}, "to": ["vms"]},
            {"to": ["rest"]},
        ]))
    wait_rest(a, read=7)
    assert {n: sorted(ids(tmp_path / f"{n}.ndjson")) for n in ("sidecars", "db", "tests", "vms", "rest")} == {
        "sidecars": [10, 11], "db": [0], "tests": [21], "vms": [90], "rest": [1, 20]}


def test_tenants(agent, tmp_path):
    """Names that are not allowed, too many or too long go to `other`, counted; empty ones too."""
    names = ["team-a", "team-b", "evil", "team-c", "", None, "team-" + "x" * 200, "team-a", 7]
    write(tmp_path / "app.log", [record(n=i, org=name) for i, name in enumerate(names)])
    a = agent(config({"app": file_input(tmp_path / "app.log", keys={"tenant": ["org"]}, tenant="{record.tenant}")},
                     {"out": archive_output(tmp_path / "{tenant}.ndjson")},
                     tenants={"allow": ["team-*", "7"], "max": 2, "other": "strangers"}))
    inputs, _ = wait_rest(a, read=len(names))
    assert ids(tmp_path / "team-a.ndjson") == [0, 7] and ids(tmp_path / "team-b.ndjson") == [1]
    assert ids(tmp_path / "strangers.ndjson") == [2, 3, 4, 5, 6, 8]
    assert all(d["tenant"] == "strangers" for d in documents(tmp_path / "strangers.ndjson"))
    assert a.metric("tenant_overflow_lines_total", input="app") == 4
    assert {r["tenant"]: r["read_lines"] for r in inputs if r["read_lines"]} == {"team-a": 2, "team-b": 1, "strangers": 6}


def test_tenant_of_the_first_that_is_there(agent, tmp_path):
    path = folder(tmp_path / "srv/globex") / "app.log"
    write(path, [record(n=0, org="acme"), record(n=1), record(n=2, org=""), record(n=3, org={"x": 1}), "text"])
    a = agent(config({"app": file_input(tmp_path / "srv/<customer>/*.log", multiline="off",
                                        tenant="{record.org|path.customer|'platform'}")},
                     {"out": archive_output(tmp_path / "out/{tenant}.ndjson")}))
    wait_rest(a, read=5)
    assert ids(tmp_path / "out/acme.ndjson") == [0]
    assert [d.get("n", d.get("message")) for d in documents(tmp_path / "out/globex.ndjson")] == [1, 2, 3, "text"]


def test_overrides(agent, tmp_path):
    """The last that matches decides; of the file alone, or of the record."""
    for service in ("api-1", "api-2", "web"):
        write(tmp_path / f"{service}.log", [
            record(n=f"{service}-{level}-{module}", level=level, logger=module)
            for level in ("debug", "info", "warn") for module in ("app.db", "app.web")])
    a = agent(config(
        {"app": file_input(tmp_path / "<service>.log", fields={"service": "{path.service}"}, levels="warn", tenant="all", overrides=[
            {"match": {"service": "api*"}, "levels": "info,app.db=debug", "tenant": "api"},
            {"match": {"service": "api-2"}, "levels": "off,app.web=info"},
        ])},
        {"out": archive_output(tmp_path / "out/{tenant}.ndjson")}))
    inputs, _ = wait_rest(a, read=18)
    assert sorted(ids(tmp_path / "out/api.ndjson")) == sorted([
        "api-1-debug-app.db", "api-1-info-app.db", "api-1-warn-app.db", "api-1-info-app.web", "api-1-warn-app.web",
        "api-2-info-app.web", "api-2-warn-app.web"])
    assert sorted(ids(tmp_path / "out/all.ndjson")) == ["web-warn-app.db", "web-warn-app.web"]
    assert total(inputs, "filtered_level") == 9


def test_overrides_by_the_record(agent, tmp_path):
    write(tmp_path / "app.log", [record(n=i, level=level, org=org) for i, (level, org) in enumerate(
        (l, o) for o in ("acme", "globex") for l in ("debug", "info", "warn"))])
    a = agent(config(
        {"app": file_input(tmp_path / "app.log", tenant="{record.org}", levels="warn",
                           overrides=[{"match": {"tenant": "acme"}, "levels": "debug"}])},
        archives(tmp_path, "out")))
    wait_rest(a, read=6)
    assert ids(tmp_path / "out.ndjson") == [0, 1, 2, 5]


def test_a_file_belongs_to_the_first_input(agent, tmp_path):
    write(tmp_path / "a.log", [record(n=1)])
    write(tmp_path / "b.log", [record(n=2)])
    a = agent(config({"first": file_input(tmp_path / "a.log", tenant="one"),
                      "second": file_input(tmp_path / "*.log", tenant="two"),
                      "third": file_input(tmp_path / "*", exclude=[str(tmp_path / "agent/**")], tenant="three")},
                     {"out": archive_output(tmp_path / "out/{tenant}.ndjson")}))
    wait_rest(a, read=2)
    assert ids(tmp_path / "out/one.ndjson") == [1] and ids(tmp_path / "out/two.ndjson") == [2]
    assert not (tmp_path / "out/three.ndjson").exists()


# --- the file output ---


def test_archive_by_tenant(agent, tmp_path):
    """Folders and files are made with their modes; names of tenants cannot leave the archive; appended after a restart."""
    names = ["acme", "../../etc", "a/b", "..", "x" * 140, "ümlaut"]
    write(tmp_path / "app.log", [record(n=i, org=name) for i, name in enumerate(names)])
    a = agent(config({"app": file_input(tmp_path / "app.log", tenant="{record.org}")},
                     {"audit": archive_output(tmp_path / "archive/{tenant}/%Y/%m-%d.ndjson", mode="0600", dir_mode="0700")}))
    wait_rest(a, read=len(names))
    files = sorted((tmp_path / "archive").rglob("*.ndjson"))
    assert len(files) == len(names) and not (tmp_path.parent / "etc").exists()
    assert sorted(n for f in files for n in ids(f)) == list(range(len(names)))
    (acme,) = (tmp_path / "archive/acme").rglob("*.ndjson")
    assert re.fullmatch(r"20\d\d/\d\d-\d\d.ndjson", str(acme.relative_to(tmp_path / "archive/acme")))
    assert stat.S_IMODE(acme.stat().st_mode) == 0o600 and stat.S_IMODE(acme.parent.stat().st_mode) == 0o700
    a.restart()
    write(tmp_path / "app.log", [record(n=6, org="acme")])
    wait_rest(a, read=len(names) + 1)
    assert [n for f in sorted((tmp_path / "archive/acme").rglob("*.ndjson")) for n in ids(f)] == [0, 6]


def test_archive_is_cut_back_after_a_crash(agent, tmp_path):
    """kill -9 in the midst: each line once. A torn tail and bytes that no acknowledged frame recorded are cut off."""
    generator, written = Loggen(seed=42), []
    a = agent(config({"app": file_input(tmp_path / "app.log")}, archives(tmp_path, "out")))
    for _ in range(3):
        lines = generator.lines(3000)
        written += lines
        write(tmp_path / "app.log", lines)
        a.wait_metric("accepted_lines_total", len(written) - 2500, output="out")
        a.kill9()
        if (tmp_path / "out.ndjson").exists():
            with open(tmp_path / "out.ndjson", "ab") as f:
                f.write(b'{"torn":')
        a.start()
    wait_rest(a, read=len(written))
    assert_arrived(written, documents(tmp_path / "out.ndjson"))


def test_archive_is_compressed_when_its_day_is_over(agent, tmp_path):
    """The file of a day becomes NAME.gz some minutes after midnight; what comes next has a file of its own."""
    write(tmp_path / "app.log", [record(n=i) for i in range(100)])
    now = int(time.time())
    evening = 86400 - now % 86400 - 60  # one minute before midnight
    clock = Clock(tmp_path, evening * SECOND)
    a = agent(config({"app": file_input(tmp_path / "app.log")},
                     {"out": archive_output(tmp_path / "out/%Y-%m-%d.ndjson", compress=True)}), env=clock.env)
    a.wait_delivered(100, "out")
    old = tmp_path / "out" / time.strftime("%Y-%m-%d.ndjson", time.gmtime(now + evening))
    new = tmp_path / "out" / time.strftime("%Y-%m-%d.ndjson", time.gmtime(now + evening + 3600))
    assert old != new and ids(old) == list(range(100))
    a.sigterm()
    clock.set((evening + 3600) * SECOND)
    a.start()
    write(tmp_path / "app.log", [record(n=100)])
    a.wait_delivered(101, "out")
    packed = old.with_name(old.name + ".gz")
    wait_until(lambda: packed.exists() and not old.exists(), 20, lambda: f"{packed}: {os.listdir(tmp_path / 'out')}\n{a.describe()}")
    with gzip.open(packed, "rt") as f:
        assert [json.loads(line)["n"] for line in f] == list(range(100))
    assert ids(new) == [100]
    wait_rest(a, read=101)


def test_archive_that_cannot_be_written(agent, tmp_path):
    """A folder in the way: the lines wait, the other output goes on; then the way is free."""
    write(tmp_path / "app.log", [record(n=i) for i in range(10)])
    (tmp_path / "out.ndjson").mkdir()
    a = agent(config({"app": file_input(tmp_path / "app.log")}, archives(tmp_path, "out", "other")))
    a.wait_delivered(10, "other")
    a.wait_event("output.failing")
    assert total(ledger(a)[1], "queued_lines", output="out") == 10
    (tmp_path / "out.ndjson").rmdir()
    a.wait_delivered(10, "out", timeout=70)
    assert ids(tmp_path / "out.ndjson") == list(range(10))


# --- stdout ---


def test_stdout(agent, tmp_path):
    lines = Loggen(seed=43).lines(50)
    write(tmp_path / "app.log", lines + ["plain"])
    a = agent(config({"app": file_input(tmp_path / "app.log", tenant="acme", multiline="off")},
                     {"terminal": {"type": "stdout", "queue": QUICK}}))
    wait_rest(a, read=51)
    found = documents(a.out)
    assert_arrived(lines, found)
    assert len(found) == 51 and all(d["tenant"] == "acme" for d in found)
    assert found[-1]["message"] == "plain" and "@timestamp" in found[-1]


def test_stdout_for_people(agent, tmp_path):
    """A line a record; what could steer a terminal is shown as a question mark."""
    write(tmp_path / "app.log", [record(msg="hello", logger="web", level="warn"), record(msg="\x1b[2Jwipe\x07", level="error"),
                                 "Traceback (most recent call last):", '  File "x.py", line 1', "KeyError: 1"])
    a = agent(config({"app": file_input(tmp_path / "app.log", tenant="acme")},
                     {"terminal": {"type": "stdout", "format": "short", "queue": QUICK}}))
    a.wait_delivered(3, "terminal")
    with open(a.out, encoding="utf-8") as f:
        text = f.read()
    rows = text.splitlines()
    assert "warn" in rows[0].lower() and "hello" in rows[0] and "web" in rows[0]
    assert "\x1b" not in text and "\x07" not in text and "?[2Jwipe?" in rows[1]
    assert "Traceback" in rows[2] and "File" in rows[3] and rows[3].startswith(" ") and "KeyError: 1" in rows[4]
