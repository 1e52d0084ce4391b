"""The class Agent and the fixture `agent`, against a stand-in that keeps the agent's outer manners."""

import os
import resource
import signal
import stat
import sys

import pytest

from tailrace_test import Agent, run

STAND_IN = '''#!%s -S
import http.server, json, os, re, resource, signal, sys, threading
if sys.argv[1] != "run":
    print("args", sys.argv[1:], sys.stdin.read()); print("oops", file=sys.stderr); sys.exit(2)
text = open(sys.argv[3]).read()
def log(event, **fields):
    print(json.dumps({"timestamp": "t", "level": "info", "target": "x", "event": event, "fields": fields}), file=sys.stderr, flush=True)
if "broken" in text:
    log("config.broken"); print("plain words", file=sys.stderr); sys.exit(2)
state = re.search(r'"?state_dir"?: "?([^",\\s]+)', text)[1]
class H(http.server.BaseHTTPRequestHandler):
    def log_message(self, *a): pass
    def do_GET(self):
        body = {"/health/ready": "ok", "/status": '{"inputs": {}}', "/health": '{"health": "Optimal"}',
                "/metrics": 'tailrace_delivered_lines_total{output="loki",tenant="a"} 3\\ntailrace_delivered_lines_total{output="loki",tenant="b"} 4\\n'}[self.path].encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), H)
signal.signal(signal.SIGHUP, lambda *a: log("config.reloaded", text=len(open(sys.argv[3]).read())))
signal.signal(signal.SIGTERM, lambda *a: threading.Thread(target=server.shutdown).start())
log("started", nofile=resource.getrlimit(resource.RLIMIT_NOFILE)[0])
with open(state + "/admin.addr.new", "w") as f: f.write("127.0.0.1:%%d\\n" %% server.server_address[1])
os.rename(state + "/admin.addr.new", state + "/admin.addr")
server.serve_forever(0.02)
if "sanitizer" in text: print("x.c:1: runtime error: bad", file=sys.stderr)
'''


@pytest.fixture(autouse=True)
def stand_in(tmp_path, monkeypatch):
    path = tmp_path / "tailrace"
    path.write_text(STAND_IN % sys.executable)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("TAILRACE_BINARY", str(path))


@pytest.mark.parametrize("config", [{"inputs": {}}, "inputs: {}\n", "state_dir: @\nadmin: { listen: x }\n"])
def test_life(agent, tmp_path, config):
    if isinstance(config, str):
        config = config.replace("@", str(tmp_path / "elsewhere"))
    a = agent(config, nofile=200)
    assert a.metric("delivered_lines_total", output="loki") == 7
    assert a.metric("tailrace_delivered_lines_total", tenant="b") == 4 and a.metric("nothing") == 0
    assert a.wait_metric("delivered_lines_total", 3, tenant="a") == 3 and a.wait_delivered(7, "loki") == 7
    assert a.status() == {"inputs": {}} and a.health() == {"health": "Optimal"}
    assert a.events("started")[0]["fields"]["nofile"] == 200 != resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert a.memory()["VmRSS"] > 1 << 20 and a.descriptors() > 3 and a.cpu_seconds() >= 0
    a.configure("x: 1\n" if isinstance(config, str) else {"x": 1})
    a.sighup()
    a.wait_event("config.reloaded")
    a.kill9()
    a.start()
    assert len(a.events("started")) == 1 and len(a.events("started", all_runs=True)) == 2
    assert a.restart().running()
    assert a.exits == [-9, 0]


def test_an_agent_that_refuses(agent, tmp_path):
    a = agent("broken: 1\n", start=False).start(ready=False)
    assert a.wait_exit() == 2
    assert [e.get("event") for e in a.log()] == ["config.broken", None] and a.log()[1]["raw"] == "plain words"
    with pytest.raises(AssertionError, match="ended while starting(.|\n)*plain words"):
        Agent(tmp_path / "b", "broken: 1\n").start()


def test_a_crash_and_a_sanitizer_are_seen(tmp_path):
    a = Agent(tmp_path / "a", {}).start()
    os.kill(a.pid, signal.SIGSEGV)
    a.process.popen.wait(5)
    with pytest.raises(AssertionError, match="ended by itself with -11"):
        a.close()
    with pytest.raises(AssertionError, match="had ended with -11"):
        a.kill9()
    b = Agent(tmp_path / "b", {"sanitizer": 1}).start()
    with pytest.raises(AssertionError, match="a sanitizer complains"):
        b.close()


def test_run():
    r = run("check", "-c", "x", stdin="words")
    assert (r.returncode, r.stdout, r.stderr) == (2, "args ['check', '-c', 'x'] words\n", "oops\n")
