"""Names that do not resolve, or never answer; a server that comes and goes; a handshake that is begun anew and not ended."""

import pathlib
import socket
import struct
import subprocess
import threading
import time

from faultworld import Store
from support import QUICK, archive_output, config, file_input, loki_output, search_output, total, wait_rest
from tailrace_test import FaultServer, Loggen, Reset, assert_arrived, free_port, wait_until, write

INPUT = {"multiline": "off", "tenant": "acme"}


class Names:
    """A DNS server on 127.0.0.77:53. answers: {name: address, or "nxdomain", "servfail", None for silence}."""

    ADDRESS = ("127.0.0.77", 53)

    def __init__(self, answers):
        self.answers, self.asked = answers, []
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(self.ADDRESS)
        self.sock.settimeout(0.1)
        self.stopping = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.stopping:
            try:
                query, peer = self.sock.recvfrom(512)
            except socket.timeout:
                continue
            answer = self._answer(query)
            if answer:
                self.sock.sendto(answer, peer)

    def _answer(self, query):
        at, labels = 12, []
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode())
            at += 1 + query[at]
        name, kind = ".".join(labels), struct.unpack(">H", query[at + 1 : at + 3])[0]
        question = query[12 : at + 5]
        self.asked.append(name)
        say = self.answers.get(name, "nxdomain")
        if say is None:
            return None
        code = {"nxdomain": 3, "servfail": 2}.get(say, 0)
        has = code == 0 and kind == 1
        head = query[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, 1 if has else 0, 0, 0)
        record = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 0, 4) + socket.inet_aton(say) if has else b""
        return head + question + record

    def wrap(self, tmp_path):
        """The command before the agent: a mount namespace with a resolv.conf of ours."""
        conf = tmp_path / "resolv.conf"
        conf.write_text(f"nameserver {self.ADDRESS[0]}\noptions timeout:30 attempts:1\n")
        return ["unshare", "-m", "sh", "-c", f'mount --bind {conf} /etc/resolv.conf && exec "$@"', "sh"]

    def stop(self):
        self.stopping = True
        self.thread.join()
        self.sock.close()


def test_names(agent, faults, tmp_path):
    """NXDOMAIN, SERVFAIL, a resolver that hangs, a server that moved: each is said in words, and only its own output waits."""
    names = Names({"good.test": "127.0.0.1", "failing.test": "servfail", "silent.test": None, "moved.test": "127.0.0.2"})
    try:
        stores = {n: Store("loki") for n in ("good", "absent", "failing", "silent", "moved")}
        servers = {n: faults(default=s.answer) for n, s in stores.items()}
        lines = Loggen(seed=1, shapes=["tracing"]).lines(20)
        write(tmp_path / "app.log", lines)
        a = agent(config(
            {"app": file_input(tmp_path / "app.log", **INPUT)},
            {**{n: loki_output(f"http://{n}.test:{s.port}", timeout="2s") for n, s in servers.items()},
             "archive": archive_output(tmp_path / "archive.ndjson")}), wrap=names.wrap(tmp_path))
        for n in ("good", "archive"):
            a.wait_delivered(20, n, timeout=10)
        for n, code, words in (("absent", "dns", "resolve host"), ("failing", "dns", "resolve host"),
                               ("silent", "timeout", "esolving timed out"), ("moved", "refused", "connect")):
            a.wait_metric("requests_total", 1, output=n, code=code)
            assert words in a.status()["outputs"][n]["last_error"], a.status()["outputs"][n]
            assert total(a.status()["ledger"]["outputs"], "delivered_lines", output=n) == 0
        more = Loggen(seed=2, shapes=["tracing"], first=20).lines(20)
        write(tmp_path / "app.log", more)  # while a name is being asked for
        a.wait_delivered(40, "good", timeout=5)
        begun = time.monotonic()
        a.sigterm()
        assert time.monotonic() - begun < 4  # the resolver would take 30 s
        a.start()
        a.wait_metric("requests_total", 1, output="moved", code="refused")
        for n in stores:
            names.answers[f"{n}.test"] = "127.0.0.1"
        wait_until(lambda: all(len(s.held) == 40 for s in stores.values()), 60,
                   lambda: f"all have theirs: { {n: len(s.held) for n, s in stores.items()} }\n{a.describe()}")
        wait_rest(a, read=40)
        for s in stores.values():
            assert_arrived(lines + more, list(s.held.values()))
    finally:
        names.stop()


def test_a_server_that_comes_and_goes(agent, faults, tmp_path):
    """Up and down 12 times within seconds, with requests cut in the middle: everything once, in both protocols."""
    kinds = {"loki": Store("loki"), "bulk": Store("bulk")}
    lost = {"loki": 0, "bulk": 0}

    def answer_of(kind):
        def answer(request):
            lost[kind] += 1
            if lost[kind] % 5 == 0:  # stored, and the answer is lost
                kinds[kind].take(request)
                return Reset("after")
            return kinds[kind].answer(request)
        return answer

    servers = {k: faults(default=answer_of(k)) for k in kinds}
    a = agent(config(
        {"app": file_input(tmp_path / "app.log", **INPUT)},
        {"loki": loki_output(servers["loki"].url),
         "bulk": search_output(servers["bulk"].url, index="ix", template="off", queue=QUICK)}))
    generator, written = Loggen(seed=3, shapes=["tracing"]), []
    for n in range(12):
        for s in servers.values():
            s.drop_connections()
            s.stop()
            if n % 2:
                s.start()
        for _ in range(10):
            lines = generator.lines(10)
            written += lines
            write(tmp_path / "app.log", lines)
            a.wait_metric("read_lines_total", len(written))
        for s in servers.values():
            if s.stopping:
                s.start()
    for name in kinds:
        a.wait_delivered(len(written), name, timeout=120)
    _, outputs = wait_rest(a, read=len(written), timeout=60)
    for name, store in kinds.items():
        assert_arrived(written, list(store.held.values()))
        assert total(outputs, "dead_lines", output=name) == 0
        assert a.metric("requests_total", output=name, code="reset") + a.metric("requests_total", output=name, code="refused") > 0
    a.wait_event("output.recovered")


def test_a_handshake_begun_anew_and_never_ended(agent, certs, tmp_path):
    """TLS 1.2: the server asks to negotiate again within the request and is silent then."""
    port = free_port()
    cert, key = certs.server
    out = open(tmp_path / "s_server.out", "wb")
    server = subprocess.Popen(
        ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", cert, "-key", key, "-tls1_2", "-legacy_renegotiation"],
        stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT)
    said = lambda: pathlib.Path(out.name).read_bytes()  # noqa: E731
    try:
        wait_until(lambda: b"ACCEPT" in said(), 10, "s_server listens")
        lines = Loggen(seed=4, shapes=["tracing"]).lines(5)
        write(tmp_path / "app.log", lines)
        a = agent(config({"app": file_input(tmp_path / "app.log", **INPUT)},
                         {"loki": loki_output(f"https://127.0.0.1:{port}", timeout="2s", tls={"ca_file": str(certs.ca)})}))
        wait_until(lambda: b"POST /loki" in said(), 20, lambda: f"the request is there: {said()}\n{a.describe()}")
        server.stdin.write(b"R\n")
        server.stdin.flush()
        a.wait_metric("requests_total", 1, output="loki", code="timeout", timeout=20)
        assert total(a.status()["ledger"]["outputs"], "delivered_lines") == 0
    finally:
        server.kill()
        server.wait()
        out.close()
    store = Store("loki")
    with FaultServer(tls=certs.server, port=port, default=store.answer):
        a.wait_delivered(5, "loki", timeout=60)
        assert_arrived(lines, list(store.held.values()))
        a.sigterm()
