r"""OpenAI chat: `messages` with tools, old `functions` included.

| row                                                    | record                                  |
|--------------------------------------------------------|-----------------------------------------|
| role `developer`                                       | role `system`                           |
| role `function`, `{"role": "function", "name": …}`     | role `tool`, for the oldest open call   |
| `"function_call": {"name", "arguments"}`               | `tool_calls` with one call              |
| `"functions": [{"name", …}]`                           | `"tools": [{"function": {"name", …}}]`  |
| ids such as `call_9eVqFTwTQrPBOmGHZyEVKxLe`            | 9 letters and digits, on both sides     |
| `"content": null`, or `""` beside calls                | no key                                  |
| `"tool_calls": []`, `"refusal": null` and other nulls  | no key                                  |
| `"arguments": "\"{\\\"a\\\": 1}\""` (encoded twice)    | `"arguments": "{\"a\": 1}"`             |
| `"arguments": {"a": 1}`, `""`                          | `"{\"a\":1}"`, `"{}"`                   |
| `"parameters": null` or absent                         | an object without properties            |
| any other key of a message                             | the row is rejected: `unknown-key`      |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from finetune.converters.calls import Calls, read_tools
from finetune.converters.reading import (
    Detection,
    as_object,
    list_at,
    text_at,
    to_record,
)
from finetune.records import Record

FIELDS = ("messages", "tools")
_ROLES = {"developer": "system", "function": "tool"}
# Keys that exports of the API carry and that hold nothing for training.
_EMPTY_KEYS = ("refusal", "annotations", "audio", "function_call", "tool_calls", "name")


def recognise(rows: Sequence[Any], columns: Mapping[str, str]) -> Detection | None:
    """Return how `rows` are read, when they are OpenAI's and not already La Plateforme's."""
    source = Detection("openai", "chat", dict(columns))
    fitting = [row for row in rows if _has_messages(row, source.column("messages"))]
    if 2 * len(fitting) < len(rows):
        return None
    for row in fitting:
        if sign := _sign(row, row[source.column("messages")]):
            return source._replace(reason=f"`{source.column('messages')}` with {sign}")
    return source._replace(reason="`columns` says what holds what") if columns else None


def _has_messages(row: Any, key: str) -> bool:
    messages = row.get(key) if isinstance(row, dict) else None
    return isinstance(messages, list) and any(isinstance(m, dict) and "role" in m for m in messages)


def _sign(row: dict[str, Any], messages: list[Any]) -> str | None:
    for key in ("functions", "parallel_tool_calls"):
        if key in row:
            return f"`{key}`"
    for message in messages:
        if not isinstance(message, dict):
            continue
        if message.get("role") in _ROLES:
            return f"the role `{message['role']}`"
        if message.get("content", "") is None or any(
            key in message and not message[key] for key in _EMPTY_KEYS
        ):
            return "empty keys"
        if "function_call" in message:
            return "`function_call`"
        if any(len(i) != 9 for i in _ids(message)):
            return "call ids that are not 9 characters"
    return None


def _ids(message: dict[str, Any]) -> list[str]:
    calls = message.get("tool_calls")
    found = [call.get("id") for call in calls or () if isinstance(call, dict)] if calls else []
    return [i for i in (*found, message.get("tool_call_id")) if isinstance(i, str)]


def convert(value: Any, source: Detection) -> list[Record]:
    """Return the conversation of one row.

    Raises:
        ConvertError: A message is not one of the table.
    """
    row = as_object(value)
    key, calls = source.column("messages"), Calls()
    messages = [
        _message(message, calls, f"{key}[{number}]")
        for number, message in enumerate(list_at(row, key))
    ]
    record = {"messages": messages}
    for name in (source.column("tools"), "functions"):
        if row.get(name):
            record["tools"] = msgspec.to_builtins(read_tools(row[name], name))
            break
    return [to_record("chat", record)]


def _message(value: Any, calls: Calls, path: str) -> dict[str, Any]:
    old = as_object(value, path)
    message = {key: item for key, item in old.items() if item or key not in _EMPTY_KEYS}
    role = text_at(old, "role", path)
    message["role"] = _ROLES.get(role, role)
    if message["role"] == "tool":
        message["tool_call_id"] = calls.answer(old.get("tool_call_id"), path)
    made = [_call(call, calls, f"{path}.tool_calls") for call in message.get("tool_calls", [])]
    if function := message.pop("function_call", None):
        made.append(_call({"function": function}, calls, f"{path}.function_call"))
    if made:
        message["tool_calls"] = made
    if message.get("content", 0) is None or (made and message.get("content") == ""):
        del message["content"]
    return message


def _call(value: Any, calls: Calls, path: str) -> Any:
    call = as_object(value, path)
    function = as_object(call.get("function"), f"{path}.function")
    name = text_at(function, "name", f"{path}.function")
    old = text_at(call, "id", path) if call.get("id") else None
    return msgspec.to_builtins(calls.call(name, function.get("arguments"), old))
