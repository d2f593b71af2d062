"""A raw socket that answers as no service should: what happens to the bytes of one reply."""

from __future__ import annotations

import contextlib
import gzip
import io
import random
import socket
import struct
import threading

from finetune.backends.platform.access import Key, read_address
from finetune.backends.platform.api import Client
from finetune.backends.platform.retry import Pace

KEY = "CANARY-key-0123456789"
CALLS = {
    "list models": lambda client: client.list_models(),
    "list files": lambda client: client.list_files(),
    "upload": lambda client: client.upload("a.jsonl", 3, lambda: io.BytesIO(b"{}\n")),
    "download": lambda client: client.download("f", io.BytesIO(), 1000),
    "get a job": lambda client: client.get_job("j"),
    "create": lambda client: client.create_job({"model": "m"}),
    "start": lambda client: client.start_job("j"),
    "chat": lambda client: client.chat({"model": "m", "messages": []}),
}
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def _json(connection, over):
    body = b'{"id": "x", "object": "y"}'
    connection.sendall(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)


def _wait(connection, over):
    over.wait(20)


def _reset(connection, over):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _close(connection, over):
    pass


def _send(data):
    return lambda connection, _: connection.sendall(data)


def _drip(before, data):
    def fault(connection, over):
        connection.sendall(before)
        for byte in data:
            if over.wait(0.05):
                return
            connection.sendall(bytes([byte]))

    return fault


def _flood(connection, over):
    connection.sendall(OK + b"\r\n")
    for _ in range(4000):  # 64 MB
        if over.is_set():
            return
        connection.sendall(b" " * 16384)


def _plain(status, headers=b"", body=b""):
    return _send(
        b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status, headers, len(body), body)
    )


BOMB = gzip.compress(b" " * 50_000_000)
PORTAL = b"<html><body>Welcome to the airport</body></html>"

# Name → what happens to a reply, and the exit code of a call that it always happens to.
FAULTS = {
    "silence": (_wait, 5),
    "reset": (_reset, 5),
    "closed at once": (_close, 5),
    "half a status line": (_send(b"HTTP/1.1 20"), 5),
    "no HTTP": (_send(b"SSH-2.0-OpenSSH_9.9\r\n"), 5),
    "headers that drip": (_drip(b"HTTP/1.1 200 OK\r\n", b"X-A: " + b"a" * 4000), 5),
    "a body that drips": (_drip(OK + b"\r\n", b" " * 4000), 5),
    "a body cut short": (_send(OK + b'Content-Length: 999\r\n\r\n{"id": "x"}'), 5),
    "half a JSON without a length": (_send(OK + b'\r\n{"id": "x", "obj'), 5),
    "a chunk cut short": (_send(OK + b"Transfer-Encoding: chunked\r\n\r\nff\r\n{"), 5),
    "a header of 2 MB": (_send(b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 2_000_000 + b"\r\n\r\n"), 5),
    "a body without an end": (_flood, 5),
    "a gzip bomb": (_plain(b"200 OK", b"Content-Encoding: gzip\r\n", BOMB), 5),
    "a portal's page": (_plain(b"200 OK", b"Content-Type: text/html\r\n", PORTAL), 5),
    "a redirect": (_plain(b"302 Found", b"Location: http://127.0.0.1:9/evil\r\n"), 5),
    "JSON of another shape": (_plain(b"200 OK", body=b'{"id": 7.5, "data": "none"}'), 5),
    "busy for ever": (_plain(b"503 Unavailable", body=b'{"detail": "busy"}'), 5),
    "a wait of a day": (_plain(b"429 Slow", b"Retry-After: 86400\r\n"), 5),
    "a refused key": (_plain(b"401 No", body=b'{"detail": "Unauthorized"}'), 4),
    "a retired endpoint": (_plain(b"410 Gone", body=b'{"detail": "retired"}'), 8),
}


def make_pace(seconds, tries):
    """Return bounds with one deadline for every call."""
    return Pace(connect=1, call=seconds, answer=seconds, upload=seconds, tries=tries, budget=30)


def open_client(url, *, pace=None, **options):
    """Return a client that does not wait between tries."""
    options = {"sleep": lambda _: None, "dice": random.Random(0), **options}
    return Client(read_address(url), Key(KEY), pace=pace or make_pace(0.4, 2), **options)


class Raw:
    """Listens on loopback; `fault` is what happens to each connection."""

    def __init__(self):
        self.fault, self.over = _json, threading.Event()
        self.heard = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection, self.over), daemon=True).start()

    def _answer(self, connection, over):
        with contextlib.suppress(OSError), connection:
            connection.settimeout(20)
            head = b""
            while b"\r\n\r\n" not in head and (data := connection.recv(65536)):
                head += data
            self.heard.append(head)
            self.fault(connection, over)

    def rest(self):
        """End what is going on, for the next fault."""
        self.over.set()
        self.over = threading.Event()
        self.heard.clear()

    def close(self):
        self.over.set()
        self._listener.close()
