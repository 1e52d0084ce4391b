"""A scripted HTTP(S) server on loopback that plays what real servers will not play on request.

    with FaultServer() as s:
        s.script(Reply(503, headers={"Retry-After": "1"}), Reset("after"), times=1)
        ... s.url ...                     # afterwards s.default answers: Reply(204) unless changed
        s.wait_requests(3, timeout=10)
        s.requests[0].loki()              # decoded streams

One step plays for one request. Steps are taken in the order they were scripted, first the script whose
`when` matches; a step that needs the body reads it, so a step may also answer without ever reading.
`ConnectionStep`s (Close, ResetConnection, HoldConnection, SayOnAccept) at the head of the script without
`when` are played when a connection is accepted, before TLS.
"""

import collections
import json
import select
import socket
import ssl
import struct
import threading
import time
import urllib.parse

from . import client, wire
from .wait import wait_until

MAX_BODY = 256 << 20
MAX_HEAD = 1 << 20


class Gone(Exception):
    """The peer closed or reset the connection, or this server stops."""


class Headers(dict):
    """Names in lower case; get() in any case."""

    def get(self, name, default=None):
        return dict.get(self, name.lower(), default)


class Request:
    """One request as it arrived. `complete` is set when its whole body was read."""

    def __init__(self, connection, number, method, target, headers):
        self._connection = connection
        self.number, self.connection = number, connection.number
        self.method, self.target = method, target
        u = urllib.parse.urlsplit(target)
        self.path, self.params = u.path, dict(urllib.parse.parse_qsl(u.query, keep_blank_values=True))
        self.headers = headers
        self.raw = b""
        self.complete = False
        self.answered = None  # the status, from when its answer begins
        self.time = time.monotonic()

    @property
    def tenant(self):
        return self.headers.get("X-Scope-OrgID")

    @property
    def body(self):
        """The body as sent, still compressed. Reads it when it was not read yet."""
        if not self.complete:
            self._connection.read_body(self)
        return self.raw

    def loki(self):
        """The push as a list of wire.Stream."""
        return wire.decode_loki(
            self.body, self.headers.get("Content-Type", ""), self.headers.get("Content-Encoding", "")
        )

    def bulk(self):
        """The bulk as a list of wire.BulkItem (action, meta, doc)."""
        return wire.decode_bulk(self.body, self.headers.get("Content-Encoding", ""))

    def lines(self):
        """The lines or documents in it, as bytes, whichever protocol it is."""
        if self.path.endswith("/_bulk"):
            return [i.doc for i in self.bulk()]
        return [e.line for s in self.loki() for e in s.entries]

    def __repr__(self):
        return f"<{self.number}: {self.method} {self.target} {len(self.raw)} bytes, answered {self.answered}>"


# --- steps -------------------------------------------------------------------------------------------
# play(conn, request) returns True when the connection may serve another request.


class Step:
    def play(self, conn, request):
        raise NotImplementedError

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in vars(self).items())})"[:300]


class Reply(Step):
    """An ordinary answer after reading the whole body. headers override, also Content-Length; None leaves one out.
    body: bytes, str, or dict (JSON). delay: seconds before it, cut short when the server stops."""

    def __init__(self, status=204, body=b"", headers=None, reason="X", close=False, delay=0.0):
        self.status, self.reason, self.close, self.delay = status, reason, close, delay
        self.headers = dict(headers or {})
        if isinstance(body, dict):
            body = json.dumps(body)
            self.headers.setdefault("Content-Type", "application/json")
        self.body = body.encode() if isinstance(body, str) else body

    def bytes_for(self, request):
        headers = {"Content-Length": str(len(self.body))} if self.status not in (204, 304) else {}
        if self.body:
            headers["Content-Type"] = "text/plain; charset=utf-8"
        if self.close:
            headers["Connection"] = "close"
        headers.update(self.headers)
        head = f"HTTP/1.1 {self.status} {self.reason}\r\n"
        head += "".join(f"{k}: {v}\r\n" for k, v in headers.items() if v is not None)
        return head.encode() + b"\r\n" + self.body

    def play(self, conn, request):
        conn.read_body(request)
        if self.delay:
            conn.pause(self.delay)
        data = self.bytes_for(request)
        request.answered = self.status
        conn.send(data)
        return not self.close


class BulkReply(Reply):
    """The answer of _bulk. decide(items) gets the list of wire.BulkItem and returns one verdict an item:
    a status, or (status, error type), or (status, error type, reason), or a whole result dict.
    Without decide all are 201. drop: leaves out that many items at the end."""

    def __init__(self, decide=None, drop=0, took=1, **kw):
        super().__init__(200, **kw)
        self.decide, self.drop, self.took = decide, drop, took

    def bytes_for(self, request):
        items = request.bulk()
        verdicts = self.decide(items) if self.decide else [201] * len(items)
        assert len(verdicts) == len(items), f"decide() gave {len(verdicts)} verdicts for {len(items)} items"
        results, errors = [], False
        for item, verdict in zip(items, verdicts):
            if isinstance(verdict, dict):
                result = verdict
            else:
                status, kind, reason = (tuple(verdict) + (None, None))[:3] if isinstance(verdict, tuple) else (
                    verdict, None, None)
                result = {"_index": item.meta.get("_index"), "_id": item.meta.get("_id"), "status": status}
                if status >= 300:
                    kind = kind or _BULK_ERRORS.get(status, "exception")
                    result["error"] = {"type": kind, "reason": reason or f"scripted {kind}"}
                else:
                    result["result"] = "created"
            errors = errors or result["status"] >= 300
            results.append({item.action: result})
        self_body = json.dumps(
            {"took": self.took, "errors": errors, "items": results[: len(results) - self.drop]}
        ).encode()
        step = Reply(200, self_body, {"Content-Type": "application/json", **self.headers}, "OK", self.close)
        return step.bytes_for(request)


_BULK_ERRORS = {
    400: "document_parsing_exception",
    403: "cluster_block_exception",
    404: "index_not_found_exception",
    409: "version_conflict_engine_exception",
    429: "es_rejected_execution_exception",
    503: "unavailable_shards_exception",
}


class EarlyReply(Step):
    """Answers after the head, without reading the body, then closes or resets: Elasticsearch's way with 413."""

    def __init__(self, status=413, body=b"", reset=False):
        self.status, self.body, self.reset = status, body, reset

    def play(self, conn, request):
        request.answered = self.status
        conn.send(Reply(self.status, self.body, close=True).bytes_for(request))
        if self.reset:
            conn.reset()
        return False


class Reset(Step):
    """A TCP reset: "before" the body is read, "mid" (after half of it), "after" it, or "reply" (half of a status line)."""

    def __init__(self, when="before"):
        assert when in ("before", "mid", "after", "reply"), when
        self.when = when

    def play(self, conn, request):
        if self.when == "mid":
            conn.read_body(request, share=0.5)
        elif self.when in ("after", "reply"):
            conn.read_body(request)
        if self.when == "reply":
            conn.send(b"HTTP/1.1 20")
        conn.reset()
        return False


class Hangup(Step):
    """Reads the body and closes without an answer: the reply is lost. half=True: shuts its sending side only."""

    def __init__(self, half=False):
        self.half = half

    def play(self, conn, request):
        conn.read_body(request)
        if self.half:
            conn.sock.shutdown(socket.SHUT_WR)
            conn.drain()
        return False


class Stall(Step):
    """Reads the body, then is silent until server.release(), the peer's close, or `seconds`; then plays `then`.
    read=False: does not even read, so the peer meets a full window."""

    def __init__(self, seconds=None, then=None, read=True):
        self.seconds, self.then, self.read = seconds, then, read

    def play(self, conn, request):
        if self.read:
            conn.read_body(request)
        conn.hold(self.seconds, watch=self.read)
        return self.then.play(conn, request) if self.then else False


def NeverRead(seconds=None):
    """Takes the head and nothing more, without an answer."""
    return Stall(seconds, read=False)


class CutReply(Step):
    """A whole head and the first `at` bytes of the body, then the connection ends (or is reset)."""

    def __init__(self, reply, at, reset=False):
        self.reply, self.at, self.reset = reply, at, reset

    def play(self, conn, request):
        conn.read_body(request)
        data = self.reply.bytes_for(request)
        conn.send(data[: data.index(b"\r\n\r\n") + 4 + self.at])
        if self.reset:
            conn.reset()
        return False


class SlowReply(Step):
    """The reply, `chunk` bytes every `interval` seconds."""

    def __init__(self, reply, interval=0.1, chunk=1):
        self.reply, self.interval, self.chunk = reply, interval, chunk

    def play(self, conn, request):
        conn.read_body(request)
        data = self.reply.bytes_for(request)
        request.answered = self.reply.status
        for at in range(0, len(data), self.chunk):
            conn.send(data[at : at + self.chunk])
            conn.pause(self.interval)
        return not self.reply.close


class Garbage(Step):
    """Bytes that are no HTTP, after reading the body."""

    def __init__(self, data=b"\x00\xffSSH-2.0-nonsense\r\n\r\n"):
        self.data = data

    def play(self, conn, request):
        conn.read_body(request)
        conn.send(self.data)
        return False


class HugeBody(Step):
    """A reply whose body has `size` bytes, sent in pieces as fast as the peer takes them. headers=True: a head that size."""

    def __init__(self, status=200, size=1 << 30, headers=False, fill=b" "):
        self.status, self.size, self.headers, self.fill = status, size, headers, fill

    def play(self, conn, request):
        conn.read_body(request)
        piece = self.fill * 65536
        request.answered = self.status
        if self.headers:
            conn.send(f"HTTP/1.1 {self.status} X\r\nX-Long: ".encode())
        else:
            conn.send(f"HTTP/1.1 {self.status} X\r\nContent-Length: {self.size}\r\n\r\n".encode())
        left = self.size
        while left > 0:
            conn.send(piece[: min(left, len(piece))])
            left -= len(piece)
        if self.headers:
            conn.send(b"\r\nContent-Length: 0\r\n\r\n")
        return True


class Forward(Step):
    """Hands the request on to a real server. lose=True: the real server has it, its answer is lost (connection closed)."""

    def __init__(self, url, lose=False, timeout=60):
        self.url, self.lose, self.timeout = url.rstrip("/"), lose, timeout

    def play(self, conn, request):
        body = request.body
        skip = ("host", "content-length", "connection", "expect", "transfer-encoding")
        headers = {k: v for k, v in request.headers.items() if k not in skip}
        r = client.request(request.method, self.url + request.target, body, headers, self.timeout)
        request.forwarded = r
        if self.lose:
            return False
        keep = {k: r.headers[k] for k in ("Content-Type", "Retry-After", "Content-Encoding") if r.headers.get(k)}
        request.answered = r.status
        conn.send(Reply(r.status, r.body, keep).bytes_for(request))
        return True


class Bytes(Step):
    """Any bytes as the answer after reading the body; then the connection closes, or is held (silent) until released."""

    def __init__(self, data, hold=False):
        self.data, self.hold = data, hold

    def play(self, conn, request):
        conn.read_body(request)
        conn.send(self.data)
        if self.hold:
            conn.hold(None, watch=True)
        return False


class Flood(Step):
    """After reading the body: `piece` again and again, as fast as the peer takes it, up to `size` bytes in all."""

    def __init__(self, piece, size=64 << 20, first=b""):
        self.piece, self.size, self.first = piece, size, first

    def play(self, conn, request):
        conn.read_body(request)
        conn.send(self.first)
        many = self.piece * max(1, 65536 // len(self.piece))
        for _ in range(0, self.size, len(many)):
            conn.send(many)
        return False


class ConnectionStep(Step):
    """Played when a connection is accepted, before TLS; met by a request on an open connection, it plays then."""

    def play(self, conn, request):
        raise NotImplementedError


class Close(ConnectionStep):
    def play(self, conn, request):
        return False


class ResetConnection(ConnectionStep):
    def play(self, conn, request):
        conn.reset()
        return False


class HoldConnection(ConnectionStep):
    """Accepts and neither reads nor speaks: with TLS, a handshake that never ends."""

    def __init__(self, seconds=None):
        self.seconds = seconds

    def play(self, conn, request):
        conn.hold(self.seconds, watch=False)
        return False


class SayOnAccept(ConnectionStep):
    """Speaks first, then closes: a port of another protocol."""

    def __init__(self, data=b"220 smtp.example ready\r\n"):
        self.data = data

    def play(self, conn, request):
        conn.send(self.data)
        return False


# --- the server --------------------------------------------------------------------------------------


class _Connection:
    def __init__(self, server, sock, number):
        self.server, self.sock, self.number = server, sock, number
        self.buffer = bytearray()
        self.dead = False

    # Every wait is bounded by the server's stop: sockets have a short timeout and ask it again and again.
    def _alive(self):
        if self.server.stopping or self.dead:
            raise Gone

    def receive(self):
        while True:
            self._alive()
            try:
                data = self.sock.recv(262144)
            except (socket.timeout, ssl.SSLWantReadError):
                continue
            except OSError as e:
                raise Gone from e
            if not data:
                raise Gone
            return data

    def send(self, data):
        view = memoryview(data)
        while view:
            self._alive()
            try:
                view = view[self.sock.send(view) :]
            except (socket.timeout, ssl.SSLWantWriteError):
                continue
            except OSError as e:
                raise Gone from e

    def drain(self):
        try:
            while True:
                self.receive()
        except Gone:
            pass

    def pause(self, seconds):
        """A scripted delay."""
        if self.server.wake.wait(seconds):
            self._alive()

    def hold(self, seconds, watch):
        """Silence until release(), `seconds`, or (watch) the peer's close."""
        end = None if seconds is None else time.monotonic() + seconds
        generation = self.server.generation
        while self.server.generation == generation and (end is None or time.monotonic() < end):
            self._alive()
            if watch:
                readable, _, _ = select.select([self.sock], [], [], 0.05)
                if readable:
                    self.buffer += self.receive()
            else:
                self.server.wake.wait(0.05)

    def reset(self):
        """Closes with RST instead of FIN."""
        raw = self.sock
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if isinstance(raw, ssl.SSLSocket):
            raw = socket.socket(fileno=raw.detach())
        raw.close()
        self.dead = True

    def read_head(self):
        while True:
            end = self.buffer.find(b"\r\n\r\n")
            if end >= 0:
                break
            if len(self.buffer) > MAX_HEAD:
                raise Gone
            self.buffer += self.receive()
        head = bytes(self.buffer[:end]).decode("latin-1").split("\r\n")
        del self.buffer[: end + 4]
        method, target, _ = head[0].split(" ", 2)
        headers = Headers()
        for line in head[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        return method, target, headers

    def read_body(self, request, share=1.0):
        if request.complete:
            return
        if request.headers.get("Expect", "").lower() == "100-continue" and not request.raw:
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if request.headers.get("Transfer-Encoding", "").lower() == "chunked":
            self._read_chunked(request)
            return
        length = int(request.headers.get("Content-Length", "0"))
        if length > MAX_BODY:
            raise Gone
        want = int(length * share)
        while len(self.buffer) < want:
            self.buffer += self.receive()
        request.raw = bytes(self.buffer[:want])
        if share >= 1.0:
            del self.buffer[:want]
            request.complete = True
            self.server.changed()

    def _read_chunked(self, request):
        def line():
            while b"\r\n" not in self.buffer:
                self.buffer += self.receive()
            text, _, rest = bytes(self.buffer).partition(b"\r\n")
            self.buffer[:] = rest
            return text

        body = bytearray()
        while True:
            size = int(line().split(b";")[0], 16)
            while len(self.buffer) < size + 2:
                self.buffer += self.receive()
            body += self.buffer[:size]
            del self.buffer[: size + 2]
            if size == 0 or len(body) > MAX_BODY:
                break
        request.raw = bytes(body)
        request.complete = True
        self.server.changed()

    def run(self):
        server = self.server
        try:
            step = server.take_connection_step()
            if step and not step.play(self, None):
                return
            if server.tls:
                self.sock.settimeout(10)
                try:
                    self.sock = server.tls.wrap_socket(self.sock, server_side=True)
                except (OSError, ssl.SSLError) as e:
                    server.tls_errors.append(str(e))
                    return
                self.sock.settimeout(0.1)
            while True:
                request = server.record(self, *self.read_head())
                step = server.take_step(request)
                request.step = step
                if not step.play(self, request):
                    return
        except Gone:
            pass
        except Exception as e:  # shown by the test's end: a broken script must not pass unseen
            server.errors.append(e)
        finally:
            if not self.dead:
                try:
                    self.sock.close()
                except OSError:
                    pass
            server.forget(self)


class FaultServer:
    """url, requests, script(), default, release(), stop(), start(). tls: (certificate file, key file)."""

    def __init__(self, tls=None, client_ca=None, default=None, port=0):
        self.default = default or Reply(204)
        self.on_accept = None  # a ConnectionStep for every connection
        self.tls = None
        if tls:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(str(tls[0]), str(tls[1]))
            if client_ca:
                self.tls.load_verify_locations(str(client_ca))
                self.tls.verify_mode = ssl.CERT_REQUIRED
        self.requests, self.tls_errors, self.errors = [], [], []
        self.connections = 0
        self.generation = 0
        self.wake = threading.Event()
        self.stopping = True
        self._scripts = []
        self._lock = threading.Lock()
        self._open = set()
        self._listener = self._acceptor = None
        self.port = port
        self.start()

    @property
    def url(self):
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    # --- scripting ---

    def script(self, *steps, when=None, times=1):
        """Plays the steps in this order, the whole list `times` times. when(request): only for those requests."""
        with self._lock:
            self._scripts.append((when, collections.deque(list(steps) * times)))

    def left(self):
        """Number of scripted steps not played yet."""
        with self._lock:
            return sum(len(q) for _, q in self._scripts)

    def clear(self):
        """Drops what is scripted and not played."""
        with self._lock:
            self._scripts = []

    def release(self):
        """Ends all stalls."""
        self.generation += 1

    def take_connection_step(self):
        with self._lock:
            for when, queue in self._scripts:
                if when is None and queue:
                    return queue.popleft() if isinstance(queue[0], ConnectionStep) else None
        return self.on_accept

    def take_step(self, request):
        with self._lock:
            scripts = list(self._scripts)
        for when, queue in scripts:
            if when is not None and not when(request):
                continue
            with self._lock:
                if queue:
                    return queue.popleft()
        return self.default(request) if not isinstance(self.default, Step) else self.default

    # --- recording ---

    def record(self, connection, method, target, headers):
        with self._lock:
            request = Request(connection, len(self.requests), method, target, headers)
            self.requests.append(request)
            return request

    def changed(self):
        """A request became complete."""

    def complete(self, when=None):
        """The requests that were read to their end."""
        return [r for r in list(self.requests) if r.complete and (when is None or when(r))]

    def wait_requests(self, n, timeout, when=None):
        """Waits until n requests are complete; returns them."""
        wait_until(
            lambda: len(self.complete(when)) >= n, timeout,
            lambda: f"{n} requests at the scripted server; came: {self.requests[-20:]}",
        )
        return self.complete(when)

    def lines(self, accepted_only=False):
        """All lines of all complete requests, or of those answered with 2xx."""
        return [
            line
            for r in self.complete()
            if not accepted_only or (r.answered or 0) // 100 == 2
            for line in r.lines()
        ]

    # --- running ---

    def start(self):
        """Listens, on the same port as before."""
        assert self.stopping, "runs already"
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self.port))
        self._listener.listen(128)
        self._listener.settimeout(0.1)
        self.port = self._listener.getsockname()[1]
        self.stopping = False
        self.wake.clear()
        self._acceptor = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
        self._acceptor.start()
        return self

    def _accept(self, listener):
        while not self.stopping:
            try:
                sock, _ = listener.accept()
            except socket.timeout:
                continue
            except OSError:
                return
            sock.settimeout(0.1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self.connections += 1
                conn = _Connection(self, sock, self.connections)
                thread = threading.Thread(target=conn.run, daemon=True)
                self._open.add((conn, thread))
            thread.start()

    def forget(self, conn):
        with self._lock:
            self._open = {(c, t) for c, t in self._open if c is not conn}

    def drop_connections(self):
        """Resets all open connections; new ones are served."""
        with self._lock:
            open_now = list(self._open)
        for conn, _ in open_now:
            try:
                conn.reset()
            except OSError:
                pass

    def stop(self):
        """Refuses connections from now on, and ends the open ones."""
        if self.stopping:
            return
        self.stopping = True
        self.wake.set()
        self._listener.close()
        self._acceptor.join(10)
        with self._lock:
            threads = [t for _, t in self._open]
        for thread in threads:
            thread.join(15)
            assert not thread.is_alive(), "a connection of the scripted server does not end"

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.stop()
        if kind is None:
            assert not self.errors, f"the script failed: {self.errors!r}"
