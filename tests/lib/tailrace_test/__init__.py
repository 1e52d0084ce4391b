"""tailrace_test: what the integration and fault tests are written with. Standard library only.

Run with Debian's pytest: `/usr/bin/python3 -m pytest tests/...`. Fixtures are in tests/conftest.py.

Servers, built once by tests/servers/setup.sh (a missing one is a failure, never a skip)

  loki, elasticsearch, opensearch, search     fixtures; one server a session, ready. `search` runs a test on both kinds.
  PYTHONPATH=tests/lib python3 -m tailrace_test loki DIR      a server for a shell: prints READY URL, until SIGTERM
  tenant, index                               fixtures; names that no other test uses.
  Loki(tmpdir, overrides=None, grpc_max=4 MiB, **limits)      a Loki of one's own, e.g. ingestion_rate_mb=1
      .url .start() .stop() .restart() .kill()                data and port stay
      .set_overrides({tenant: {limit: value}})                at run time; returns when they count
      .push(tenant, [(labels, [(ts, line[, metadata])])], expect=(204,))
      .query_all(tenant, selector, start_ns, end_ns)          complete: [(labels with metadata, ts_ns, line)], oldest first
      .lines(...)  .count(...)  .wait_count(..., n, timeout)  .series(...)  .label_values(tenant, name, ...)
      .flush()  .metrics()  .received_lines() {tenant: n}  .discarded() {(tenant, reason): n}
      Loki.binary("loki-canary")
  Elastic(tmpdir, kind="elasticsearch"|"opensearch", settings={...})
      .url .start() .stop() .restart() .kill()                change .settings before a restart
      .refresh(index)  .count(index, query=None)  .wait_count(index, n, timeout)  .search_all(index, query=, fields=)
      .indices(pattern)  .get(path)  .put(path, json)  .post(path, json)  .delete(path)  .bulk([action, doc, ...])
      .cluster_settings(action__auto_create_index="false")    .request(method, path, ...) gives any answer
  Prometheus(tmpdir, job, [(address, labels)], rules=[paths])  a real one: .query(expr) .alerts() .point(targets)

  kube                                        fixture; one kube-apiserver a session. Keep apart by namespace and node.
  KubeApi(tmpdir, watch_cache=True)           one of one's own: .url .ca .token .kubeconfig .start() .stop() .restart() .suspend()
      .namespace(name)  .pod(ns, name, labels=, annotations=, node=, owner=)  .patch_pod(...)  .delete_pod(ns, name)
      .account(ns, name, rules) a token  .kubectl(...)  .helm(...)  .request(method, path)  .compact()
      .audited(user) [(verb, path, code)]  .asked(user, "list")   KubeApi.binary("kubeconform")

The agent

  agent                                       fixture; a = agent(config) is running and ready; agent(config, start=False)
  Agent(tmpdir, config)                       config: YAML text or dict; state_dir, admin.listen are added when missing
      .start(ready=True) .wait_ready() .sigterm() .sighup() .kill9() .wait_exit() .restart() .configure(config)
      .metrics()  .metric("delivered_lines_total", output="loki")  .wait_metric(name, at_least, timeout, **labels)
      .wait_delivered(lines, output)  .status()  .health()  .get(path)
      .log()  .events("output.failing")  .wait_event(name)  .memory()["VmRSS"]  .cpu_seconds()  .descriptors()
  run("check", "-c", path)                    any other command: returncode, stdout, stderr
  $TAILRACE_BINARY chooses another build.

Faults

  faults                                      fixture; s = faults(tls=certs.server, client_ca=certs.ca)
  FaultServer: .url .script(step, ..., when=lambda r: r.tenant == "a", times=1) .default .left() .release()
      .requests[i].method .path .params .headers .tenant .raw .body .loki() .bulk() .lines() .answered .complete
      .wait_requests(n, timeout)  .lines(accepted_only=False)  .stop() .start() (same port)  .drop_connections()
  steps: Reply(status, body, headers) BulkReply(decide) EarlyReply(413) Reset("before"|"mid"|"after"|"reply") Hangup()
      Stall(seconds, then) NeverRead() CutReply(reply, at) SlowReply(reply) Garbage() HugeBody(size) Forward(url, lose=True)
      Bytes(data, hold=True) Flood(piece, size)
      on accept: Close() ResetConnection() HoldConnection() SayOnAccept(); server.on_accept = one of them for all
  certs                                       fixture; .ca .server .client .expired .wrong_host .stranger

Lines

  Loggen(seed, shapes=FIVE).lines(n, level=, module=, ts=)    Line(seq, text, shape, level, module, ts, message)
  write(path, lines)  cri(line)  docker(line)  seqs(items)  assert_arrived(written, arrived, doubles=False)

Fast tools in C, built by make (or $TAILRACE_TOOLS)

  run_loggen(dir, lines=1000000, files=50, rotate=1<<20, tenants=7, rate=, cri=True, torn=True, late=True, keep=)
      writes dir/app-NNN.log by five loggers, rotated by rename: Written: .lines .bytes .rotations .first_ts .last_ts
      .by_level["pino"][3] .by_tenant[i]  .rows() (id, logger, level, module, tenant)  .ids(keep=lambda logger, level, ..)
  LoggenRun(dir, ...).wait()                  the same in the background
  CountServer(tmpdir, check=True, latency=ms) .url .start() .stop() .report(lines=N)["loki"|"bulk"] .ids(kind)
      .wait_lines(kind, n, timeout) .reset(); a Loki and an Elasticsearch in one

Waiting: wait_until(predicate, timeout, what). There is no sleep for an event. free_port() gives a port.
"""

from . import wire
from .agent import Agent, binary, run
from .certs import Certs
from .client import request
from .elastic import Elastic
from .faults import (
    BulkReply, Bytes, Close, CutReply, EarlyReply, FaultServer, Flood, Forward, Garbage, Hangup, HoldConnection, HugeBody,
    NeverRead, Reply, Reset, ResetConnection, SayOnAccept, SlowReply, Stall, Step,
)
from .kube import KubeApi
from .loggen import FIVE, LEVELS, SHAPES, Line, Loggen, assert_arrived, cri, docker, seqs, write
from .loki import Loki
from .ports import free_port
from .proc import Process, tail
from .prometheus import Prometheus
from .servers import ROOT, TESTS, server_dir
from .tools import CountServer, LoggenRun, Written, run_loggen, tool
from .wait import wait_until

__all__ = [name for name in dir() if not name.startswith("_")]
