"""Running: the server on a port, until it is told to end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import shlex
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.backends.local.device import find_device
from finetune.errors import MissingExtra, UsageError
from finetune.files import Lock

if TYPE_CHECKING:
    from uvicorn import Server

    from finetune.server.app import Settings


def open_settings(
    folder: Path,
    *,
    models: Path | None,
    aliases: dict[str, Path],
    workers: int,
    share: bool | None,
    trainer: str | None,
    refuse: str | None,
) -> Settings:
    """Return the settings of a server; on a GPU training has the device to itself by default.

    Raises:
        MissingExtra: The extra `server` is not installed.
        UsageError: `trainer` is no command.
    """
    try:
        from finetune.server.app import Settings
        from finetune.server.supervisor import TRAINER
    except ImportError as error:
        raise MissingExtra("server", error.name or "fastapi") from None
    exclusive = find_device().kind == "cuda" if share is None else not share
    try:
        command = tuple(shlex.split(trainer)) if trainer else TRAINER
    except ValueError as error:
        raise UsageError(f"--trainer: {str(error).lower()}") from None
    return Settings(folder, models, aliases, workers, exclusive, trainer=command, refuse=refuse)


def serve(settings: Settings, *, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: From `open_settings`.
        host: The address to listen at.
        port: The port; 0 takes a free one.
        ready: Called with the server's URL once it answers.

    Raises:
        UsageError: The port is taken, or a file of the settings is wrong.
        RunLocked: Another server works in this folder.
    """
    import uvicorn

    from finetune.server.app import Service, create_app

    settings.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with Lock(settings.folder / ".lock"), listen(host, port) as listener:
        app = create_app(Service(settings))
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, timeout_graceful_shutdown=5
        )
        shown = f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{listener.getsockname()[1]}"
        asyncio.run(_run(uvicorn.Server(config), listener, lambda: ready(url)))


@contextlib.contextmanager
def listen(host: str, port: int) -> Iterator[socket.socket]:
    """Give a socket that listens.

    Raises:
        UsageError: The port is taken, or the address is not this machine's.
    """
    try:
        listener = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=1024
        )
    except OSError as error:
        fact = str(error.strerror).partition(" (while")[0].lower()
        taken = error.errno in (errno.EADDRINUSE, errno.EACCES)
        hint = (
            "`--port 0` takes a free port" if taken else "`--host` takes this machine's addresses"
        )
        raise UsageError(f"{host}:{port}: {fact}", hint=hint) from None
    # An answer's head and body are two writes: the second would wait 40 ms for the first's ACK.
    # asyncio sets this itself only on sockets that were made for TCP by number.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with listener:
        yield listener


async def _run(server: Server, listener: socket.socket, ready: Callable[[], None]) -> None:
    def end() -> None:
        server.should_exit = True

    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    # The socket listens already: a request that comes before the start is kept, not lost.
    loop.call_soon(ready)
    await server.serve(sockets=[listener])
