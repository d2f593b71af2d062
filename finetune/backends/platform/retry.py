"""Retry: what a failed call means, and how long to wait before it is tried again."""

from __future__ import annotations

import email.utils
import json
import random
from collections.abc import Mapping
from typing import Any, NamedTuple

from finetune.backends.platform.wire import Reply
from finetune.errors import PlatformError
from finetune.text import safe

BUSY = (408, 425, 429, 500, 502, 503, 504)
_MOST_DETAIL = 300  # characters of what a service says about a refusal
_DEPRECATION = ("x-model-deprecation-timestamp", "deprecation", "sunset")


class Pace(NamedTuple):
    """Bounds of calls and of what is tried again, in seconds but for `tries`.

    Attributes:
        connect: Of making a connection.
        call: Of a call with small texts.
        answer: Of a call for which a model computes.
        upload: Of an upload, plus one for each `upload_rate` bytes.
        upload_rate: Bytes a second that an upload or a download must reach.
        tries: How often a call is made at most.
        budget: Of all tries of a call together, or its deadline where that is more.
        longest: The longest wait that a service may ask for.
    """

    connect: float = 5.0
    call: float = 30.0
    answer: float = 120.0
    upload: float = 60.0
    upload_rate: float = 64_000.0
    tries: int = 5
    budget: float = 180.0
    longest: float = 120.0


PACE = Pace()


class Refused(PlatformError):
    """The service said no, and would say so again.

    Attributes:
        status: The HTTP status.
        detail: What it said, cleaned and bounded.
    """

    def __init__(
        self, message: str, status: int, detail: str, *, exit_code: int, hint: str | None = None
    ) -> None:
        super().__init__(message, exit_code=exit_code, hint=hint)
        self.status, self.detail = status, detail


class Unclear(PlatformError):
    """A call that changes something was sent, and nobody knows whether it did.

    Attributes:
        status: The HTTP status of the reply, None without one.
        wait: Seconds that the service asks to wait, None where it does not say.
    """

    def __init__(
        self, message: str, *, status: int | None = None, wait: float | None = None
    ) -> None:
        super().__init__(message, hint="the same command looks what became of it")
        self.status, self.wait = status, wait


def back_off(attempt: int, dice: random.Random) -> float:
    """Return the seconds to wait after a try, by chance between nothing and 0.5 · 2ⁿ, at most 16.

    Args:
        attempt: The number of the try, from 1.
        dice: Where chance comes from.
    """
    return dice.uniform(0, min(16.0, 0.5 * 2.0**attempt))


def read_wait(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds that a reply asks to wait; None where it asks for none that is one.

    Args:
        headers: Of the reply, names in lower case.
        now: Seconds since 1970.

    Example:
        >>> read_wait({"retry-after": "3"}, 0), read_wait({"retry-after": "soon"}, 0)
        (3.0, None)
    """
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        text = headers.get(name, "").strip()
        try:
            wait = float(text) / unit
        except ValueError:
            try:
                wait = email.utils.parsedate_to_datetime(text).timestamp() - now
            except (ValueError, TypeError, OverflowError):
                continue
        if 0 < wait < float("inf"):
            return wait
    return None


def read_notices(headers: Mapping[str, str]) -> list[str]:
    """Return what a reply says about the end of what was asked for."""
    return [f"{name}: {safe(headers[name], 80)}" for name in _DEPRECATION if name in headers]


def read_detail(reply: Reply) -> str:
    """Return what a refusal says: its `detail` (a text or a list), its `message`, or its text."""
    text = reply.content[:64_000].decode("utf-8", errors="replace")
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        # A page of a portal or a gateway: its words say nothing about the request.
        return "" if "<" in text else safe(" ".join(text.split()), _MOST_DETAIL)
    if isinstance(value, dict):
        value = value.get("detail") or value.get("message") or value.get("error") or ""
        if isinstance(value, dict):
            value = value.get("message") or ""
    if isinstance(value, list):
        value = "; ".join(_tell(one) for one in value[:5])
    return safe(" ".join(str(value).split()), _MOST_DETAIL)


def _tell(fault: Any) -> str:
    """Return one entry of a list of faults, without the input that it may quote."""
    if not isinstance(fault, dict):
        return str(fault)
    where = fault.get("loc")
    path = ".".join(map(str, where)) if isinstance(where, list) else ""
    return f"{path}: {fault.get('msg', '')}" if path else str(fault.get("msg", ""))
