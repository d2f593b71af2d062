"""Caller: one call, made until it is answered, as often and as long as `Pace` allows.

A call that changes nothing, or changes the same thing however often it is made, is repeated; one
that makes a file, makes a job or starts one is repeated only where nothing of it was sent. Else it
raises `Unclear`, and whoever called looks at the service first.
"""

from __future__ import annotations

import contextlib
import email.utils
import json
import random
import time
from collections.abc import Callable, Mapping
from typing import IO, Any, TypeVar

import httpx2

from finetune.backends.platform.access import Address, Key
from finetune.backends.platform.retry import (
    BUSY,
    PACE,
    Pace,
    Refused,
    Unclear,
    back_off,
    read_detail,
    read_notices,
    read_wait,
)
from finetune.backends.platform.wire import MOST_BYTES, Lost, NeverSent, Reply, Wire
from finetune.errors import PlatformError
from finetune.text import duration, redact, safe

T = TypeVar("T")
Content = Callable[[], Mapping[str, Any]]


class _Failure(Exception):
    """A try that gave nothing, and may be made again.

    Args:
        fact: What happened.
        sent: Whether some of the request left, so that it may have been heard.
        status: Of the reply, None without one.
        wait: Seconds that the service asks to wait.
    """

    def __init__(
        self,
        fact: str,
        *,
        sent: bool = True,
        status: int | None = None,
        wait: float | None = None,
    ) -> None:
        super().__init__(fact)
        self.fact, self.sent, self.status, self.wait = fact, sent, status, wait


class Caller:
    """What all calls to a service share.

    Args:
        address: Where it is.
        key: Sent as a bearer token; None sends none.
        pace: Bounds of calls and tries.
        transport: Takes the place of the network.
        clock: Seconds that never go back.
        sleep: Waits.
        wall: Seconds since 1970.
        dice: Where the chance in waits comes from.

    Attributes:
        notices: What replies said about the end of models and endpoints.
        skew: Seconds that the service's clock is ahead of this machine's.
    """

    def __init__(
        self,
        address: Address,
        key: Key | None,
        *,
        pace: Pace = PACE,
        transport: httpx2.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        wall: Callable[[], float] = time.time,
        dice: random.Random | None = None,
    ) -> None:
        self.address, self.pace = address, pace
        self.clock, self.sleep, self.wall = clock, sleep, wall
        self.dice = dice or random.Random()  # noqa: S311 (how long to wait)
        self.notices: list[str] = []
        self.skew = 0.0
        self._key = key
        self._wire = Wire(
            address.url,
            {} if key is None else {"authorization": f"Bearer {key.reveal()}"},
            connect=pace.connect,
            transport=transport,
        )

    def ask(
        self,
        method: str,
        path: str,
        shape: Callable[[Any], T] | None,
        *,
        content: Content = dict,
        deadline: float | None = None,
        most: int = MOST_BYTES,
        sink: IO[bytes] | None = None,
        repeat: bool = True,
    ) -> T:
        """Make a call until it is answered, as often and as long as `Pace` allows.

        Args:
            method: Such as `GET`.
            path: Behind the address.
            shape: Reads the reply's JSON; None where the reply went into `sink`.
            content: Makes what is sent; called for each try.
            deadline: Seconds of one try.
            most: Bytes of the reply.
            sink: Where the reply is written.
            repeat: Whether the call may be made again when nobody knows whether it was heard.

        Raises:
            Refused: The service says no.
            Unclear: With `repeat=False`: nobody knows.
            PlatformError: It cannot be reached, or sends what is no reply.
        """
        started = self.clock()
        bound = deadline or self.pace.call
        budget = max(self.pace.budget, bound)
        attempt = 0
        while True:
            attempt += 1
            try:
                return self._try(method, path, shape, content(), bound, most, sink)
            except _Failure as error:
                failure = error
            wait = failure.wait
            if wait is not None and wait > self.pace.longest:
                raise self._fault(f"{failure.fact}, and asks to wait {duration(wait)}")
            if failure.sent and not repeat:
                raise Unclear(self._say(failure.fact), status=failure.status, wait=wait)
            pause = back_off(attempt, self.dice) if wait is None else wait
            left = budget - (self.clock() - started) - pause
            if attempt == self.pace.tries or left <= 0 or (failure.status == 409 and attempt > 1):
                raise self._fault(failure.fact, absent=not failure.sent)
            self.sleep(pause)
            bound = min(bound, left)

    def _try(
        self,
        method: str,
        path: str,
        shape: Callable[[Any], T] | None,
        content: Mapping[str, Any],
        deadline: float,
        most: int,
        sink: IO[bytes] | None,
    ) -> T:
        """Make one try: return what it gave, or what may be tried again; raise what may not."""
        if sink is not None:
            sink.seek(0)
            sink.truncate()
        try:
            reply = self._wire.exchange(
                method, path, deadline=deadline, most=most, sink=sink, **content
            )
        except NeverSent as error:
            raise _Failure(f"cannot be reached: {error}", sent=False) from None
        except Lost as error:
            raise _Failure(str(error)) from None
        self._note(reply)
        if 200 <= reply.status < 300:
            try:
                return _parse(reply, shape)
            except json.JSONDecodeError:
                raise _Failure("a reply that is no JSON") from None
            except ValueError:
                raise _Failure("a reply of another shape") from None
        if reply.status in BUSY or reply.status == 409:
            detail = self._hide(read_detail(reply)) if reply.status == 409 else ""
            fact = f"answered {reply.status}" + (f": {detail}" if detail else "")
            raise _Failure(fact, status=reply.status, wait=read_wait(reply.headers, self.wall()))
        raise self._refuse(reply)

    def _note(self, reply: Reply) -> None:
        for notice in read_notices(reply.headers):
            if notice not in self.notices:
                self.notices.append(notice)
        date = email.utils.parsedate_tz(reply.headers.get("date", ""))
        with contextlib.suppress(ValueError, OverflowError):  # a date that no calendar has
            if date is not None:
                self.skew = email.utils.mktime_tz(date) - self.wall()

    def _refuse(self, reply: Reply) -> PlatformError:
        status, detail = reply.status, self._hide(read_detail(reply))
        told = f": {detail}" if detail else ""
        if 300 <= status < 400:
            target = safe(reply.headers.get("location", "nowhere"), 100)
            return self._fault(f"answered {status}: redirects to {self._hide(target)}")
        if status == 401:
            code, hint = 4, "set MISTRAL_API_KEY to a key of this host, or give `--api-key-file`"
        elif status == 403:
            code, hint = 4, "the key may not do this: ask whoever administers the workspace"
        elif status == 410:
            code, hint = 8, None
        else:
            code, hint = (2, None) if status < 500 else (5, None)
        facts = {401: "the key is refused", 403: "forbidden", 404: "not there", 410: "retired"}
        fact = facts.get(status, "refused")
        return Refused(
            self._say(f"{fact}: {status}{told}"), status, detail, exit_code=code, hint=hint
        )

    def _hide(self, text: str) -> str:
        return redact(text) if self._key is None else self._key.hide(text)

    def _fault(self, fact: str, *, absent: bool = False) -> PlatformError:
        hint = "the same command goes on from here"
        if absent and self.address.local:
            hint = f"`finetune serve` starts a server; {hint}"
        return PlatformError(self._say(fact), hint=hint)

    def _say(self, fact: str) -> str:
        return f"{safe(self.address.host)}: {fact}"


def _parse(reply: Reply, shape: Callable[[Any], T] | None) -> T:
    if shape is None:
        return None  # type: ignore[return-value]
    try:
        value = json.loads(reply.content)
    except (UnicodeDecodeError, RecursionError):
        raise json.JSONDecodeError("", "", 0) from None
    return shape(value)
