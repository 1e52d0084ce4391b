"""One agent with an output for each fault of a group, and an archive that must not notice any of them.

A world lives through two times: in the first every server does its worst, again and again; then all are mended. In the
first the tests ask what the agent says of each output, in the second whether every line is there exactly once.
"""

import time

from arrival import archived_once
from support import archive_output, config, file_input, folder, loki_output, search_output, total
from tailrace_test import Agent, BulkReply, FaultServer, Loggen, Reply, Step, assert_arrived, seqs, wait_until, write

WELL, SICK = "well", "sick"
LINES = 30  # of each tenant, and as many fat ones of the sick one, so that bodies take more than one packet
FAT = 4000
GOOD = {"loki": {"204"}, "bulk": {"200"}}


class Store:
    """What a server of that kind would hold: Loki drops an entry equal in stream, time, line and metadata; Elasticsearch
    refuses an id that is there."""

    def __init__(self, kind):
        self.kind, self.held = kind, {}
        self.sent_again = 0  # what was there already

    def _take(self, identity, line):
        if identity in self.held:
            self.sent_again += 1
            return False
        self.held[identity] = line
        return True

    def take(self, request, choose=lambda line: True):
        """All of it, or the lines of our choice; the status of each item."""
        if self.kind == "bulk":
            return [self.take_item(i) if choose(i.doc) else 0 for i in request.bulk()]
        for stream in request.loki():
            for e in stream.entries:
                if choose(e.line):
                    self._take((request.tenant, stream.text, e.ts, e.line, tuple(sorted(e.metadata.items()))), e.line)
        return None

    def take_item(self, item):
        return 201 if self._take(item.meta["_id"], item.doc) else 409

    def answer(self, request):
        if self.kind == "loki":
            self.take(request)
            return Reply(204)
        return BulkReply(lambda items: [self.take_item(i) for i in items])


class Taken(Step):
    """The server has it; only then comes the fault."""

    def __init__(self, store, step):
        self.store, self.step = store, step

    def play(self, conn, request):
        conn.read_body(request)
        self.store.take(request)
        return self.step.play(conn, request)


class Row:
    """fault(world row, request) -> a step, or None for a good answer. See test_faults.py for the rest."""

    def __init__(self, name, fault=None, *, codes=None, state=None, says="", only=None, accept=None, down=False, dead=0,
                 reason=None, settles=False, tls=None, conf=None, event=None, again=None):
        self.name, self.fault, self.only, self.accept, self.down = name, fault, only, accept, down
        self.codes = {codes} if isinstance(codes, str) else set(codes or ())
        self.state, self.says, self.dead, self.reason, self.settles = state, says, dead, reason, settles
        self.tls, self.conf, self.event, self.again = tls, conf or {}, event, again

    def __repr__(self):
        return self.name


class Played:
    """A row at work: its server, what that holds, and whether it is mended."""

    def __init__(self, row, kind, certs, server=None):
        self.row, self.kind, self.store, self.is_mended = row, kind, Store(kind), False
        tls = getattr(certs, row.tls) if row.tls else None
        self.server = server or FaultServer(tls=tls, default=self._answer)
        self.server.on_accept = row.accept
        self.first_seen = {}
        self.good_certificate = certs.server
        if row.down:
            self.server.stop()

    def _answer(self, request):
        row = self.row
        if not self.is_mended and row.fault and (row.only is None or self.kind == "bulk" or request.tenant == row.only):
            step = row.fault(self, request)
            if step is not None:
                return step
        return self.store.answer(request)

    def mend(self):
        self.is_mended, self.server.on_accept = True, None
        if self.row.down:
            self.server.start()
        if self.row.tls:
            self.server.tls.load_cert_chain(*map(str, self.good_certificate))
        self.server.release()


class World:
    def __init__(self, tmp_path, kind, rows, certs):
        assert len(rows) <= 15, "an agent has at most 16 outputs"
        self.kind, self.dir = kind, tmp_path
        self.played = {row.name: Played(row, kind, certs) for row in rows}
        self.written = {WELL: [], SICK: []}
        self.is_mended = False
        self.problems = {row.name: [] for row in rows}
        self._write(certs)

    def _write(self, certs):
        generator = Loggen(seed=9, shapes=["tracing"])
        for tenant in (WELL, SICK):
            self.written[tenant] = generator.lines(LINES)
        self.written[SICK] += [generator.line(message="".join(generator.random.choices("abcdefghijklmnop", k=FAT)))
                               for _ in range(LINES)]
        for tenant, lines in self.written.items():
            write(folder(self.dir / "logs" / tenant) / "app.log", lines)
        outputs = {}
        for name, p in self.played.items():
            more = {"timeout": "1s", **p.row.conf}
            if p.row.tls:
                more.setdefault("tls", {"ca_file": str(certs.ca)})
            url = more.pop("url", p.server.url).replace("PORT", str(p.server.port))
            outputs[name] = (loki_output(url, **more) if self.kind == "loki" else
                             search_output(url, index="ix-{tenant}", template="off",
                                           **{"document": {"on_refused": "dead"}, **more}))
        outputs["archive"] = archive_output(self.dir / "archive.ndjson")
        self.config = config(
            {"app": file_input(self.dir / "logs/<tenant>/*.log", tenant="{path.tenant}", multiline="off")}, outputs)

    def start(self):
        self.agent = Agent(self.dir / "agent", self.config, name="agent").start()
        return self

    def close(self):
        try:
            self.agent.close()
        finally:
            self.agent.process.kill()
            for p in self.played.values():
                p.server.stop()
        errors = [e for p in self.played.values() for e in p.server.errors]
        assert not errors, f"the script of a server failed: {errors!r}"

    # --- asking ---

    def lines(self, *tenants):
        return [line for t in tenants or self.written for line in self.written[t]]

    def codes(self, name):
        """{code: requests} of one output."""
        found = {}
        for (metric, labels), value in self.agent.metrics().items():
            labels = dict(labels)
            if metric == "tailrace_requests_total" and labels["output"] == name and value:
                found[labels["code"]] = value
        return found

    def rows_of(self, name):
        return [r for r in self.agent.status()["ledger"]["outputs"] if r["output"] == name]

    def output(self, name):
        return self.agent.status()["outputs"][name]

    def wait(self, predicate, what, timeout=30):
        wait_until(predicate, timeout, what, interval=0.05)

    def judge(self, check):
        """check(world, row's name) for every row; what it says is kept for the row's own test."""
        for name in self.played:
            try:
                check(self, name)
            except AssertionError as e:
                self.problems[name].append(e)

    def rests(self, name):
        """Every line of this output is delivered or dead, and the ledger is even."""
        rows = self.rows_of(name)
        return (total(rows, "accepted_lines") == len(self.lines()) and total(rows, "queued_lines") == 0
                and total(rows, "parked_lines") == 0 and all(r["imbalance"] == 0 for r in rows))

    # --- the two times ---

    def mend(self):
        """Servers come right. What was refused for a moment goes on by itself; what was held is asked again at the next
        start (or each minute, for which no test waits)."""
        self.peak_bytes = self.agent.memory()["VmHWM"]
        for p in self.played.values():
            p.mend()
        self.judge(self._goes_on)
        begun = time.monotonic()
        self.agent.sigterm()
        self.stop_seconds = time.monotonic() - begun
        self.agent.start()
        self.judge(self._is_through)

    @staticmethod
    def _goes_on(self, name):
        row = self.played[name].row
        if row.state == "held" or row.again is not None or self.problems[name]:
            return
        self.wait(lambda: self.rests(name), lambda: f"{name} goes on by itself: {self.output(name)}", 90)
        assert self.agent.metric("output_up", output=name) == 1

    @staticmethod
    def _is_through(self, name):
        if self.played[name].row.again != "never" and not self.problems[name]:
            self.wait(lambda: self.rests(name), lambda: f"{name} is through: {self.rows_of(name)} {self.output(name)}")

    def assert_once(self, name):
        p = self.played[name]
        rows = self.rows_of(name)
        if p.row.dead is None:  # as many as the server's words named
            p.row.dead = len(p.first_seen["named"])
        assert total(rows, "dead_lines") == p.row.dead, rows
        assert total(rows, "delivered_lines") == len(self.lines()) - p.row.dead, rows
        assert not any(v for r in rows for k, v in r.items() if k.startswith("lost_")), rows
        dead = set() if not p.row.dead else {line.seq for line in self.lines()} - {
            seq for seq in seqs(p.store.held.values())}
        assert len(dead) <= p.row.dead
        assert_arrived([line for line in self.lines() if line.seq not in dead], list(p.store.held.values()))

    def assert_archived(self):
        self.wait(lambda: total(self.rows_of("archive"), "delivered_lines") == len(self.lines()), "the archive has all")
        archived_once(self.dir / "archive.ndjson", self.lines())
