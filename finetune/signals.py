"""Signals that end work: SIGINT and SIGTERM become `Interrupted` where the work was begun."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

from finetune.errors import Interrupted


class _Stop(BaseException):
    """Passes through whatever catches an `Exception`, as libraries do while they are imported."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def interruptible(message: str, *, hint: str | None = None) -> Iterator[None]:
    """End the block on SIGINT or SIGTERM; leave the process at once on the second.

    Args:
        message: What `Interrupted` says.
        hint: How to go on.

    Raises:
        Interrupted: A signal came.
    """
    caught: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        if caught:
            os._exit(128 + number)
        caught.append(number)
        raise _Stop(number)

    try:
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals are somebody else's
        yield
        return
    try:
        yield
    except _Stop as stopped:
        raise Interrupted(stopped.number, message, hint=hint) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
