"""The messages and calls of a record's JSON value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Value = dict[str, Any]


def talks_of(value: Value) -> Iterator[list[Any]]:
    """Yield the lists of messages of a record."""
    for key in ("messages", "prompt", "chosen", "rejected", "completion"):
        messages = value.get(key)
        if isinstance(messages, list):
            yield messages


def messages_of(value: Value) -> Iterator[Value]:
    """Yield the messages of a record."""
    for messages in talks_of(value):
        for message in messages:
            if isinstance(message, dict):
                yield message


def calls_of(message: Value) -> list[Value]:
    """Return the tool calls of a message."""
    calls = message.get("tool_calls")
    return [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
