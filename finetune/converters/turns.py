r"""Turns: one message a row, as ticket systems and chat logs export them.

Rows are put together by conversation and sorted by order before they come here (`corpus.grouping`
asks `group` for both), so that `convert` sees the rows of one conversation. Two columns are needed
beside the text: `columns: {conversation: ticket_id, role: author, content: body}`, better with
`order: created_at`; without it the order of the file counts.

| row                                                        | record                             |
|------------------------------------------------------------|------------------------------------|
| `{"ticket_id": 7, "author": "user", "body": "Q"}`          | a message of conversation `7`      |
| `"author": "agent"` with `roles: {agent: assistant}`       | role `assistant`                   |
| `User`, `human`, `gpt`, … (in any case)                    | roles `user`, `assistant`          |
| an unknown or empty role                                   | the row is rejected: `role`        |
| no conversation, no text, no order where it is said        | the row is rejected: `no-…`        |
| order `9`, `"10"`, `2.5`                                   | sorts as a number                  |
| order `2026-03-01T10:00:00+02:00`                          | sorts as a time, UTC without zone  |
| order `31/01/2026`, `1.2.26`                               | the row is rejected: `order-date`  |
| any other order                                            | sorts as text                      |
| columns `tool_calls` (a list or JSON text), `tool_call_id` | calls and results                  |
| columns `system`, `tools`                                  | those of the first row             |
| several messages of one role in a row                      | stay, for the rule `same-role`     |
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET

from finetune.converters.calls import Calls, read_tools, tools_or_unset
from finetune.converters.reading import (
    ROLES,
    ConvertError,
    Detection,
    as_object,
    text_at,
    type_name,
    unknown_role,
)
from finetune.records import (
    AssistantMessage,
    ChatRecord,
    Message,
    Record,
    SystemMessage,
    ToolCall,
    ToolMessage,
    UserMessage,
)

FIELDS = (
    "conversation",
    "role",
    "content",
    "order",
    "system",
    "tools",
    "tool_calls",
    "tool_call_id",
)
_NEEDED = ("conversation", "role", "content")
_NAMES = {
    "conversation": {
        f"{thing}{end}"
        for thing in ("conversation", "thread", "ticket", "session", "dialog", "dialogue", "chat")
        for end in ("", "_id", "id")
    },
    "role": {"role", "speaker", "author", "sender", "from"},
    "content": {"content", "message", "body", "text", "utterance"},
    "order": {
        *("order", "turn", "turn_id", "turn_index", "position", "index"),
        *("created_at", "timestamp", "time", "date", "sent_at"),
    },
}
_NUMBER = re.compile(r"[+-]?\d{1,40}(\.\d{1,40})?")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_FOREIGN_DATE = re.compile(r"\d{1,2}[./-]\d{1,2}[./-]\d{2,4}\b|\d{4}[./]\d{1,2}[./]\d{1,2}\b")
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)


class Place(NamedTuple):
    """Where a row belongs.

    Attributes:
        conversation: Rows that share it are one conversation.
        order: Numbers as (0, number), times as (1, microseconds), other texts as (2, text).
    """

    conversation: str
    order: tuple[int, Any]


def recognise(
    rows: Sequence[Any], columns: Mapping[str, str], roles: Mapping[str, str] = {}
) -> Detection | None:
    """Return how `rows` are read, when their columns and the roles in them leave no doubt."""
    if set(_NEEDED) <= columns.keys():
        return Detection("turns", "chat", dict(columns), "`columns` says what holds what")
    objects = [row for row in rows if isinstance(row, dict)]
    found = dict(columns)
    for part, names in _NAMES.items():
        keys = [key for key in (objects[0] if objects else ()) if key.strip().lower() in names]
        if len(keys) > 1 and part not in columns:
            return None
        if keys:
            found.setdefault(part, keys[0])
    if not set(_NEEDED) <= found.keys():
        return None
    source = Detection("turns", "chat", found, roles=roles)
    said = [row.get(found["role"]) for row in objects]
    if not all(isinstance(one, str) and _known_role(one, source) for one in said):
        return None
    shown = ", ".join(f"`{found[part]}`" for part in _NEEDED)
    return source._replace(reason=f"one message a row: columns {shown}")


def group(value: Any, source: Detection) -> Place:
    """Return where a row belongs, having made sure that it is a message.

    Raises:
        ConvertError: It has no conversation, known role, content, or order where one is said.
    """
    row = as_object(value)
    conversation = _key_text(row, source, "conversation")
    _role(row, source)
    if not source.optional_text(row, "content").strip() and not _calls_of(row, source):
        raise _blank(source, "content", "no text")
    if "order" not in source.columns:
        return Place(conversation, (0, 0))
    return Place(conversation, _order(_key_text(row, source, "order"), source.column("order")))


def _key_text(row: dict[str, Any], source: Detection, part: str) -> str:
    column = source.column(part)
    value = row.get(column)
    if type(value) is int or (type(value) is float and not math.isnan(value)):
        return msgspec.json.encode(value).decode()
    text = source.optional_text(row, part)
    if not text.strip():
        raise _blank(source, part, "nothing" if value is None else "an empty text")
    return text


def _blank(source: Detection, part: str, seen: str) -> ConvertError:
    return ConvertError(
        f"{seen} where the {part} is expected", path=source.column(part), rule=f"no-{part}"
    )


def _order(text: str, column: str) -> tuple[int, Any]:
    text = text.strip()
    if number := _NUMBER.fullmatch(text):
        return 0, float(text) if number[1] else int(text)
    if _DATE.match(text):
        try:
            time = dt.datetime.fromisoformat(text)
        except ValueError:
            return 2, text
        if time.tzinfo is None:
            time = time.replace(tzinfo=dt.UTC)
        return 1, (time - _EPOCH) // _MICROSECOND
    if _FOREIGN_DATE.match(text):
        raise ConvertError(
            "a date that does not sort: write it as YYYY-MM-DD", path=column, rule="order-date"
        )
    return 2, text


def _role(row: dict[str, Any], source: Detection) -> str:
    said = source.optional_text(row, "role")
    role = _known_role(said, source)
    if role is None:
        raise unknown_role(said, source.column("role"))
    return role


def _known_role(said: str, source: Detection) -> str | None:
    return source.roles.get(said) or ROLES.get(said.strip().lower())


def convert(value: Any, source: Detection) -> list[Record]:
    """Return the conversation that the rows of a group are.

    Args:
        value: The rows in order; a row alone is a conversation of one message.
        source: How they are read.

    Raises:
        ConvertError: A row is no message, a call cannot be read, or a result answers none.
    """
    if not isinstance(value, list):
        group(value, source)  # of a list, grouping has asked for each row
        value = [value]
    rows = [as_object(row) for row in value]
    messages: list[Message] = []
    first = rows[0] if rows else {}
    if system := source.optional_text(first, "system"):
        messages.append(SystemMessage(content=system))
    calls = Calls()
    messages += [_message(row, source, calls) for row in rows]
    column = source.column("tools")
    tools = first.get(column)
    read = UNSET if tools in (None, "") else tools_or_unset(read_tools(tools, column))
    return [ChatRecord(messages=messages, tools=read)]


def _message(row: dict[str, Any], source: Detection, calls: Calls) -> Message:
    role, text = _role(row, source), source.optional_text(row, "content")
    if role == "system":
        return SystemMessage(content=text)
    if role == "user":
        return UserMessage(content=text)
    if role == "tool":
        column = source.column("tool_call_id")
        old = row.get(column)
        answered = calls.answer(text_at(row, column) if old not in (None, "") else None, column)
        return ToolMessage(content=text, tool_call_id=answered)
    made = [_call(call, calls, source) for call in _calls_of(row, source)]
    return AssistantMessage(content=text or UNSET, tool_calls=made or UNSET)


def _calls_of(row: dict[str, Any], source: Detection) -> list[Any]:
    column = source.column("tool_calls")
    value = row.get(column)
    if isinstance(value, str) and value.strip():
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError:
            raise ConvertError("not a JSON text", path=column, rule="call-text") from None
    if value in (None, "") or isinstance(value, str):
        return []
    if not isinstance(value, list):
        raise ConvertError(
            f"expected a list of calls, got {type_name(value)}", path=column, rule="type"
        )
    return value


def _call(value: Any, calls: Calls, source: Detection) -> ToolCall:
    path = source.column("tool_calls")
    call = as_object(value, path)
    function = as_object(call.get("function", call), f"{path}.function")
    old = text_at(call, "id", path) if call.get("id") else None
    return calls.call(text_at(function, "name", path), function.get("arguments"), old)
