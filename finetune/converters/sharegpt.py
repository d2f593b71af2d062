r"""ShareGPT: `conversations` of `{"from", "value"}`, with the tool turns of LLaMA-Factory.

| row                                                    | record                                  |
|--------------------------------------------------------|-----------------------------------------|
| `{"from": "human" or "user", "value": "Q"}`            | user `Q`                                |
| `{"from": "gpt", "assistant" or "chatgpt", …}`         | assistant                               |
| `{"from": "system", …}` or a key `system` beside it    | system                                  |
| `{"from": "function_call", "value": "{\"name\": …}"}`  | assistant with `tool_calls`             |
| the same with a list, or several in a row              | one message with several calls          |
| `{"from": "observation", "tool", "function_response"}` | tool, for the oldest open call          |
| `{"tools": "[{\"name\": …}]"}` (a JSON text) or a list | `tools`                                 |
| `{"from": "gpt", "weight": 0, …}`                      | assistant with `weight`                 |
| an empty system prompt                                 | no system message                       |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from finetune.converters.calls import Calls, read_tools, tools_or_unset
from finetune.converters.reading import (
    ConvertError,
    Detection,
    as_object,
    list_at,
    text_at,
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

FIELDS = ("conversations", "system", "tools")
_KEYS = ("conversations", "conversation")
_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "system": "system",
    "function_call": "call",
    "observation": "tool",
    "tool": "tool",
    "function_response": "tool",
}


def recognise(rows: Sequence[Any], columns: Mapping[str, str]) -> Detection | None:
    """Return how `rows` are read, when they are ShareGPT's."""
    for key in [columns["conversations"]] if "conversations" in columns else _KEYS:
        if 2 * sum(_fits(row, key) for row in rows) >= len(rows):
            found = {"conversations": key, **columns}
            return Detection("sharegpt", "chat", found, f"`{key}` of objects with `from`, `value`")
    return None


def _fits(row: Any, key: str) -> bool:
    turns = row.get(key) if isinstance(row, dict) else None
    return isinstance(turns, list) and any(isinstance(t, dict) and "from" in t for t in turns)


def convert(value: Any, source: Detection) -> list[Record]:
    """Return the conversation of one row.

    Raises:
        ConvertError: A turn is not one of the table.
    """
    row = as_object(value)
    key = source.column("conversations")
    messages: list[Message] = []
    if system := source.optional_text(row, "system"):
        messages.append(SystemMessage(content=system))
    _add_turns(messages, list_at(row, key), key)
    tools = row.get(source.column("tools"))
    return [
        ChatRecord(
            messages=messages,
            tools=UNSET
            if tools is None
            else tools_or_unset(read_tools(tools, source.column("tools"))),
        )
    ]


def _add_turns(messages: list[Message], turns: list[Any], key: str) -> None:
    calls = Calls()
    for number, turn in enumerate(turns):
        try:
            role, text = _ROLES[turn["from"]], turn["value"]
        except (KeyError, TypeError):
            raise _explain(turn, f"{key}[{number}]") from None
        if type(text) is not str:
            raise _explain(turn, f"{key}[{number}]")
        if role == "user":
            messages.append(UserMessage(content=text))
        elif role == "assistant":
            answer = AssistantMessage(content=text)
            if turn.get("weight") is not None:
                answer.weight = _weight(turn["weight"], f"{key}[{number}].weight")
            messages.append(answer)
        elif role == "system":
            if text:
                messages.append(SystemMessage(content=text))
        elif role == "call":
            _add_calls(messages, _calls(text, calls, f"{key}[{number}].value"))
        else:
            answered = calls.answer(None, f"{key}[{number}]")
            messages.append(ToolMessage(content=text, tool_call_id=answered))


def _weight(value: Any, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ConvertError("expected a number from 0 to 1", path=path, rule="weight")
    return float(value)


def _calls(text: str, calls: Calls, path: str) -> list[ToolCall]:
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        raise ConvertError("not a JSON text", path=path, rule="call-text") from None
    found = []
    for call in value if isinstance(value, list) else [value]:
        call = as_object(call, path)  # noqa: PLW2901
        found.append(calls.call(text_at(call, "name", path), call.get("arguments")))
    return found


def _add_calls(messages: list[Message], calls: list[ToolCall]) -> None:
    last = messages[-1] if messages else None
    if isinstance(last, AssistantMessage) and last.tool_calls is not UNSET:
        last.tool_calls.extend(calls)
    else:
        messages.append(AssistantMessage(tool_calls=calls))


def _explain(turn: Any, path: str) -> ConvertError:
    try:
        turn = as_object(turn, path)
        text_at(turn, "from", path)
        text_at(turn, "value", path)
    except ConvertError as error:
        return error
    return ConvertError(
        f"not one of {', '.join(_ROLES)}, but {len(turn['from'])} other characters",
        path=f"{path}.from",
        rule="role",
    )
