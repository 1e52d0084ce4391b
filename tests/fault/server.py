"""One server in this process for all runs: it takes Loki pushes and Elasticsearch bulks, and keeps what it took.

The first part of the path says whose it is: http://127.0.0.1:PORT/r17/loki/api/v1/push belongs to arrivals("r17").
Loki's rule of doubles (an entry equal in stream, time, line and metadata is one) and Elasticsearch's (one document an
_id, 409 for the next `create`) are played as the real ones play them, without the limits of a head block.
"""

import json
import pathlib
import selectors
import socket
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))

from tailrace_test import wire  # noqa: E402

from world import line_id  # noqa: E402

HELLO = json.dumps({"name": "fault", "cluster_name": "fault", "version": {"number": "8.19.21"},
                    "tagline": "You Know, for Search"})


class Arrivals:
    """What came under one name."""

    def __init__(self):
        self.entries = {}  # (tenant, labels, ts, line, metadata) -> how often: Loki shows each once
        self.documents = {}  # (index, _id) -> the document as sent
        self.loki_ids, self.search_ids = set(), set()  # for a quick look at how far it is
        self.requests = self.resent = 0
        self.mode = "answer"  # "silent": read, never answered; "reset": cut; "forget": answered, not kept (to test the tests)
        self.refuse = None  # a function of a document: True is a 400 for it

    def push(self, tenant, body):
        for stream in wire.decode_loki(body):
            for e in stream.entries:
                key = (tenant, stream.text, e.ts, e.line, tuple(sorted(e.metadata.items())))
                seen = self.entries.get(key, 0)
                self.entries[key] = seen + 1
                self.resent += seen > 0
                self.loki_ids.add(line_id(e.line))
        return 204, b""

    def bulk(self, body, encoding):
        items, errors = [], False
        for item in wire.decode_bulk(body, encoding):
            key = (item.meta["_index"], item.meta["_id"])
            if item.action != "create":
                raise wire.WireError(f"action {item.action}")
            if key in self.documents:
                status, self.resent = 409, self.resent + 1
                if self.documents[key] != item.doc:
                    raise wire.WireError(f"{key} came with two contents")
            elif self.refuse and self.refuse(item.doc):
                status = 400
            else:
                status = 201
                self.documents[key] = item.doc
                self.search_ids.add(line_id(item.doc))
            result = {"_index": key[0], "_id": key[1], "status": status}
            if status >= 300:
                errors = True
                kind = "version_conflict_engine_exception" if status == 409 else "document_parsing_exception"
                result["error"] = {"type": kind, "reason": "as told"}
            items.append({"create": result})
        return 200, json.dumps({"took": 1, "errors": errors, "items": items}).encode()


class _Connection:
    def __init__(self, sock):
        self.sock, self.data, self.out = sock, bytearray(), bytearray()


class Server:
    """Runs in a thread from the start on; `changed` is notified at each request."""

    def __init__(self):
        self.changed = threading.Condition()
        self.all = {}
        self.errors = []  # requests that could not be taken: each is a failure of a run
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._stop = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def url(self, name):
        return f"http://127.0.0.1:{self.port}/{name}"

    def arrivals(self, name):
        with self.changed:
            return self.all.setdefault(name, Arrivals())

    def drop(self, name):
        with self.changed:
            self.all.pop(name, None)

    def wait(self, predicate, timeout):
        """Waits until predicate() holds, looked at after each request; whether it came to hold."""
        with self.changed:
            return self.changed.wait_for(predicate, timeout)

    def stop(self):
        self._stop = True
        self._thread.join()
        self._listener.close()

    # --- connections ---

    def _run(self):
        while not self._stop:
            for key, _ in self._selector.select(0.2):
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    self._readable(key.data)

    def _accept(self):
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(sock, selectors.EVENT_READ, _Connection(sock))

    def _close(self, c):
        self._selector.unregister(c.sock)
        c.sock.close()

    def _readable(self, c):
        try:
            data = c.sock.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(c)
            return
        c.data += data
        try:
            while self._request(c):
                pass
        except OSError:
            self._close(c)

    def _request(self, c):
        """Answers one whole request, if there is one."""
        end = c.data.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = c.data[:end].decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = {k.lower(): v.strip() for k, _, v in (h.partition(":") for h in head[1:])}
        length = int(headers.get("content-length", 0))
        if len(c.data) < end + 4 + length:
            if headers.get("expect", "").lower() == "100-continue" and not c.out:
                c.out += b"x"
                c.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            return False
        body = bytes(c.data[end + 4 : end + 4 + length])
        del c.data[: end + 4 + length]
        c.out.clear()
        answer = self._answer(method, target, headers, body)
        if answer is None:
            return True
        if answer == "reset":
            raise OSError("as told")
        status, content, kind = answer
        text = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nX-Elastic-Product: Elasticsearch\r\n"
        if status != 204:
            text += f"Content-Length: {len(content)}\r\n"
        c.sock.setblocking(True)
        c.sock.settimeout(10)
        c.sock.sendall(text.encode() + b"\r\n" + content)
        c.sock.setblocking(False)
        return True

    def _answer(self, method, target, headers, body):
        _, name, *rest = target.partition("?")[0].split("/")
        path = "/" + "/".join(rest)
        with self.changed:
            arrivals = self.all.get(name)
            if arrivals is None:  # of a run that is over
                return "reset"
            mode = arrivals.mode
            if mode in ("silent", "reset"):
                return None if mode == "silent" else "reset"
            try:
                return self._take(arrivals, method, path, headers, body)
            except (wire.WireError, KeyError, ValueError) as e:
                self.errors.append(f"{name}: {method} {path}: {e!r}")
                return 400, b"not understood", "text/plain"
            finally:
                self.changed.notify_all()

    def _take(self, arrivals, method, path, headers, body):
        if arrivals.mode == "forget" and method == "POST" and path == "/loki/api/v1/push":
            arrivals.mode = "answer"
            return 204, b"", "text/plain"
        if method == "POST" and path == "/loki/api/v1/push":
            arrivals.requests += 1
            status, content = arrivals.push(headers.get("x-scope-orgid", ""), body)
            return status, content, "text/plain"
        if method == "POST" and path.endswith("/_bulk"):
            arrivals.requests += 1
            status, content = arrivals.bulk(body, headers.get("content-encoding", ""))
            return status, content, "application/json"
        if path == "/":
            return 200, HELLO.encode(), "application/json"
        if path.startswith(("/_cluster", "/_index_template", "/_component_template")):
            return 200, b'{"status":"green","acknowledged":true}', "application/json"
        return 404, b'{"error":"not found","status":404}', "application/json"
