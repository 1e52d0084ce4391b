"""A small HTTP client: one request a connection, every reply is a value, never an exception for its status."""

import http.client
import json
import ssl
import urllib.parse


class Response:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def text(self):
        return self.body.decode("utf-8", "replace")

    def json(self):
        return json.loads(self.body)

    def expect(self, *statuses):
        """Returns self, or fails showing what came instead."""
        assert self.status in statuses, f"HTTP {self.status}, expected {statuses}: {self.text[:2000]}"
        return self

    def __repr__(self):
        return f"<HTTP {self.status} {self.text[:200]!r}>"


def request(method, url, body=None, headers=None, timeout=30, params=None, context=None):
    """body: bytes, str, or a dict or list that is sent as JSON. Raises OSError when the server cannot be asked."""
    u = urllib.parse.urlsplit(url)
    path = u.path or "/"
    query = "&".join(q for q in (u.query, urllib.parse.urlencode(params or {})) if q)
    if query:
        path += "?" + query
    headers = dict(headers or {})
    if isinstance(body, (dict, list)):
        body = json.dumps(body)
        headers.setdefault("Content-Type", "application/json")
    if isinstance(body, str):
        body = body.encode()
    if u.scheme == "https":
        conn = http.client.HTTPSConnection(
            u.hostname, u.port, timeout=timeout, context=context or ssl.create_default_context()
        )
    else:
        conn = http.client.HTTPConnection(u.hostname, u.port, timeout=timeout)
    try:
        conn.request(method, path, body=body, headers=headers)
        r = conn.getresponse()
        return Response(r.status, r.headers, r.read())
    except http.client.HTTPException as e:
        raise ConnectionError(f"{method} {url}: {e!r}") from e
    finally:
        conn.close()
