"""Refused: what the API says no to, with La Plateforme's body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Refused(Exception):
    """A reply that is not a success.

    Args:
        status: The HTTP status.
        detail: A sentence, or a list of `{loc, msg, type}`.
        message: More about it.
        headers: Such as `Retry-After`.
    """

    def __init__(
        self,
        status: int,
        detail: str | list[dict[str, Any]],
        *,
        message: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.headers = dict(headers or {})
        self.body: dict[str, Any] = {"detail": detail}
        if message is not None:
            self.body["message"] = message
