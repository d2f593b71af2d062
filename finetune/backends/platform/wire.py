"""Wire: one HTTP exchange within bounds of time and size.

A time-out of httpx2 is one of a single read: a reply that drips lasts for ever (measured: 20 s with
`timeout=2`). So each exchange runs in a thread of its own, and whoever waits leaves at its
deadline, whatever the thread is stuck in: a name server, a header, a body. Its socket is shut, so
that the thread ends too.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from typing import IO, Any, NamedTuple
from urllib.parse import urlsplit

import httpx2

from finetune import __version__

MOST_BYTES = 8_000_000  # of a reply that is held in memory


class Reply(NamedTuple):
    """What came back.

    Attributes:
        status: The HTTP status.
        headers: With names in lower case.
        content: The body; empty where it was written into a file.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes


class NeverSent(Exception):
    """Nothing of the request has left: no connection was made."""


class Lost(Exception):
    """The request left, at least in part, and nobody knows what became of it."""


class Wire:
    """One address.

    Redirects are never followed. Proxies of the environment are used for https alone: over http
    one would read the key.

    Args:
        url: Without a slash at its end.
        headers: Sent with every request.
        connect: Seconds that making a connection may take.
        transport: Takes the place of the network.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        connect: float = 5.0,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self._url = url
        self._connect = connect
        self._client = httpx2.Client(
            headers={
                "user-agent": f"finetune/{__version__}",
                "accept-encoding": "identity",  # a small reply cannot grow into a large one
                **headers,
            },
            transport=transport,
            trust_env=urlsplit(url).scheme == "https",
            follow_redirects=False,
            # A connection serves once: its socket is then this call's to shut.
            limits=httpx2.Limits(max_keepalive_connections=0),
        )

    def exchange(
        self,
        method: str,
        path: str,
        *,
        deadline: float,
        most: int = MOST_BYTES,
        sink: IO[bytes] | None = None,
        **content: Any,
    ) -> Reply:
        """Send one request and return what comes back.

        Args:
            method: Such as `GET`.
            path: Behind the address.
            deadline: Seconds until this returns or raises.
            most: Bytes that the body may have.
            sink: Where the body of a 200 is written.
            content: `params`, `json`, `data` and `files`, as httpx2 takes them.

        Raises:
            NeverSent: No connection was made.
            Lost: Anything else than a whole reply.
        """
        call = _Call(deadline, most, sink)
        timeout = httpx2.Timeout(deadline, connect=min(self._connect, deadline))
        try:
            request = self._client.build_request(
                method,
                self._url + path,
                timeout=timeout,
                extensions={"trace": call.trace},
                **content,
            )
        except (httpx2.InvalidURL, ValueError, TypeError) as error:
            raise NeverSent(type(error).__name__) from None
        return call.run(self._client, request)

    def close(self) -> None:
        """Let go of what is held open."""
        self._client.close()


class _Call:
    """One exchange: a thread that makes it, and a caller that waits no longer than it may."""

    def __init__(self, deadline: float, most: int, sink: IO[bytes] | None) -> None:
        self._deadline, self._most, self._sink = deadline, most, sink
        self._over = threading.Event()
        self._abandoned = False
        self._sent = False
        self._socket: socket.socket | None = None
        self._reply: Reply | None = None
        self._error: BaseException | None = None

    def run(self, client: httpx2.Client, request: httpx2.Request) -> Reply:
        end = time.monotonic() + self._deadline
        threading.Thread(target=self._work, args=(client, request, end), daemon=True).start()
        try:
            self._over.wait(self._deadline)
        finally:
            if not self._over.is_set():
                self._abandon()
        # Where the socket was shut, a reply without a length seems whole: nothing counts by then.
        if not self._abandoned and self._error is not None:
            raise self._error
        if self._abandoned or self._reply is None:
            raise Lost(self._late()) if self._sent else NeverSent(self._late())
        return self._reply

    def _late(self) -> str:
        return f"no reply within {self._deadline:g} s"

    def trace(self, event: str, facts: Mapping[str, Any]) -> None:
        """Take note of what the connection does; called by the transport."""
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._socket = facts["return_value"].get_extra_info("socket")
        elif event.endswith("send_request_headers.started"):
            self._sent = True
        if self._abandoned:
            self._abandon()

    def _work(self, client: httpx2.Client, request: httpx2.Request, end: float) -> None:
        try:
            self._reply = self._read(client, request, end)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            self._error = NeverSent(_explain(error))
        except (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError, httpx2.ProxyError) as error:
            # The text of these may hold a header, and so the key.
            self._error = NeverSent(type(error).__name__)
        except (httpx2.ReadTimeout, httpx2.WriteTimeout):
            self._error = Lost(self._late())
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, OSError) as error:
            self._error = Lost(type(error).__name__)
        except BaseException as error:  # noqa: BLE001 (it is raised again where it is waited for)
            self._error = error
        finally:
            self._over.set()

    def _read(self, client: httpx2.Client, request: httpx2.Request, end: float) -> Reply:
        response = client.send(request, stream=True)
        self._sent = True
        with contextlib.closing(response):
            if response.headers.get("content-encoding", "identity") != "identity":
                raise Lost("a compressed reply that was not asked for")
            sink = self._sink if response.status_code == 200 else None
            content, size = bytearray(), 0
            for part in response.iter_bytes():
                size += len(part)
                if size > self._most:
                    raise Lost(f"a reply of more than {self._most:,} bytes")
                if time.monotonic() > end:
                    raise Lost(self._late())
                if sink is not None:
                    sink.write(part)
                else:
                    content += part
            declared = response.headers.get("content-length", "")
            if declared.isdigit() and int(declared) != size:
                raise Lost("a reply that was cut off")
            headers = {name.lower(): value for name, value in response.headers.items()}
            return Reply(response.status_code, headers, bytes(content))

    def _abandon(self) -> None:
        self._abandoned = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


def _explain(error: BaseException) -> str:
    """Return why there is no connection, from the error that lies under the library's."""
    under: BaseException | None = error
    while under is not None:
        if isinstance(under, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted: {under.verify_message}"
        if isinstance(under, ssl.SSLError):
            return f"it speaks no TLS that is understood: {under.reason}"
        if isinstance(under, socket.gaierror):
            return "no such host"
        if isinstance(under, OSError) and under.errno:
            return os.strerror(under.errno).lower()
        under = under.__cause__ or under.__context__
    return type(error).__name__
