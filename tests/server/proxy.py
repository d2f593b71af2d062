"""A proxy that stands between a client and a server, and spoils what it passes on."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

_BUSY = b"HTTP/1.1 %d Busy\r\nContent-Length: 2\r\n%b\r\n{}"


class Proxy:
    """Listens on loopback. One connection carries one request, as our client sends them.

    `fate(method, path)` may return the name of what happens to a request: `reset` (before it is
    heard), `cut` (half of it is passed on), `drop` (it is done, the reply is lost), `half` (done,
    half a reply), an HTTP status (not done), or `("after", status)` (done, but that is said).

    Args:
        fate: See above; None lets everything pass.

    Attributes:
        port: Of the server; it may change, and 0 is none at all.
    """

    def __init__(self, fate):
        self.fate, self.port = fate, 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._listener.close()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with contextlib.suppress(OSError), connection:
            connection.settimeout(60)
            request = _read(connection)
            if not request:
                return
            method, path, _ = request.split(b" ", 2)
            fate = self.fate(method.decode(), path.decode().partition("?")[0])
            if isinstance(fate, int):
                connection.sendall(_BUSY % (fate, b"Retry-After: 1\r\n" if fate == 429 else b""))
                return
            if fate == "cut":
                with self._connect() as server:
                    server.sendall(request[: len(request) // 2])
            elif fate != "reset":
                with self._connect() as server:
                    server.sendall(request)
                    reply = _read(server)
                if fate is None:
                    connection.sendall(reply)
                    return
                if isinstance(fate, tuple):
                    connection.sendall(_BUSY % (fate[1], b""))
                    return
                if fate == "half":
                    connection.sendall(reply[: -len(reply) // 3])
            # Closed so, the other side hears of a reset.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)


def _read(connection):
    """Return a whole message, or what came of it."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            return data
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:])
    left = int(fields.get(b"content-length", 0)) - len(body)
    while left > 0 and (part := connection.recv(65536)):
        data += part
        left -= len(part)
    return data
