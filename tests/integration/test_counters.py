"""Counters of log lines: by level and service, and those of the configuration."""

import json

from support import archive_output, config, file_input, folder, wait_rest
from tailrace_test import wait_until, write

FAILED = "*authentication failed*"


def say(level, message, **more):
    return json.dumps({"level": level, "msg": message, **more}, ensure_ascii=False)


def counters(tmp_path, *rules, **more):
    return config({"app": file_input(tmp_path / "logs/<service>.log", fields={"service": "{path.service}"},
                                     tenant="{record.org|'none'}", levels="info")},
                  {"out": archive_output(tmp_path / "out.ndjson")}, counters=list(rules), **more)


def test_lines_are_counted_by_what_they_say(agent, tmp_path):
    logs = folder(tmp_path / "logs")
    write(logs / "api.log", [say("info", f"authentication failed for {i}", org="acme", user=f"u{i % 3}") for i in range(10)])
    write(logs / "api.log", [say("debug", "authentication failed", org="acme")] * 4 + [say("error", "x", org='o"\\é')] * 2)
    write(logs / "db.log", ["a text without a level"] * 5)
    rule = {"name": "auth_failures", "help": "Logins\nthat failed.", "match": {"message": FAILED},
            "labels": {"tenant": "{tenant}", "user": "{record.user}"}}
    a = agent(counters(tmp_path, rule, {"name": "everything"}))
    wait_rest(a, read=21)

    def lines(**labels):
        return a.metric("tailrace_log_lines_total", input="app", **labels)

    assert lines(tenant="acme", service="api", level="info") == 10
    # Counted, though its level drops it; what stands behind the level is not read then, a tenant of the line is not known.
    assert lines(tenant="none", service="api", level="debug") == 4
    assert lines(tenant='o"\\é', service="api", level="error") == 2
    assert lines(tenant="none", service="db", level="unknown") == 5
    failures = [a.metric("tailrace_log_auth_failures_total", tenant="acme", user=f"u{i}") for i in range(3)]
    assert failures == [4, 3, 3]
    assert a.metric("tailrace_log_everything_total") == 17  # what the levels keep
    # Lines that are read again after a crash are new to the counters only if they were not acknowledged.
    a.kill9()
    a.start()
    write(logs / "api.log", [say("info", "authentication failed", org="acme", user="u0")])
    wait_until(lambda: a.metric("tailrace_log_auth_failures_total", tenant="acme", user="u0") == 1, 20, "counted")
    assert a.metric("tailrace_log_everything_total") == 1


def test_no_counter_falls_in_a_reload(agent, tmp_path):
    logs = folder(tmp_path / "logs")
    write(logs / "api.log", [say("info", "authentication failed", n=i) for i in range(10)])
    old = {"name": "old", "match": {"message": FAILED}}
    both = {"name": "both", "match": {"message": FAILED}}
    a = agent(counters(tmp_path, old, both))
    wait_rest(a, read=10)
    a.configure(counters(tmp_path, both, {"name": "new", "match": {"message": FAILED}}))
    a.sighup()
    wait_until(lambda: "tailrace_log_new_total" in a.get("/metrics").text or write(logs / "api.log", [say("info", "authentication failed")]),
               20, "the new counter counts", interval=0.3)
    assert a.metric("tailrace_log_both_total") > 10
    assert "tailrace_log_old_total" not in a.get("/metrics").text


def test_values_have_a_bound(agent, tmp_path):
    logs = folder(tmp_path / "logs")
    write(logs / "api.log", [say("info", "x", user=f"u{i}") for i in range(50)])
    a = agent(counters(tmp_path, {"name": "users", "labels": {"user": "{record.user}"}}, metrics={"max_series": 10}))
    wait_rest(a, read=50)
    assert a.metric("tailrace_log_users_total", user="_other") == 40
    assert a.metric("tailrace_log_users_total", user="u3") == 1
