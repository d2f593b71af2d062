"""Bounds: no request but an upload may be large, with or without a key."""

from __future__ import annotations

from typing import Any

from fastapi.responses import JSONResponse

MAX_BYTES = 32 * 2**20  # of a request's body
_UPLOADS = "/v1/files"  # which count for themselves


class Bounds:
    """Refuses bodies that are too large, before they are kept in memory.

    Args:
        app: What comes behind.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http" or scope["path"] == _UPLOADS:
            await self._app(scope, receive, send)
            return
        begun = False
        size = 0

        async def count() -> Any:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > MAX_BYTES:
                raise _TooLargeError
            return message

        async def note(message: Any) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, count, note)
        except _TooLargeError:
            if not begun:
                await _refusal()(scope, receive, send)


class _TooLargeError(BaseException):
    """Not to be taken for a fault of the app on its way out."""


def _refusal() -> JSONResponse:
    detail = f"The body is larger than {MAX_BYTES // 2**20} MB."
    return JSONResponse({"detail": detail}, 413, {"Connection": "close"})
