r"""ShareGPT: `conversations` of `{"from", "value"}`, with the tool turns of LLaMA-Factory.

| row                                                     | record                              |
|---------------------------------------------------------|-------------------------------------|
| `{"from": "human" or "user", "value": "Q"}`             | user `Q`                            |
| `{"from": "gpt", "assistant", "chatgpt", "bing" …}`     | assistant                           |
| `{"from": "system", …}` or a key `system` beside it     | system                              |
| `{"from": "agent", …}` with `roles: {agent: assistant}` | assistant, else the row is rejected |
| `{"from": "function_call", "value": "{\"name\": …}"}`   | assistant with `tool_calls`         |
| the same with a list, or several in a row               | one message with several calls      |
| `{"from": "observation", "tool", "function_response"}`  | tool, for the oldest open call      |
| `{"tools": "[{\"name\": …}]"}` (a JSON text) or a list  | `tools`                             |
| `{"from": "gpt", "weight": 0, …}`                       | assistant with `weight`             |
| an empty system prompt                                  | no system message                   |
| an answer first, a question last                        | kept: the rules judge               |
| other keys of a turn                                    | not used, and counted as such       |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import UNSET, UnsetType

from finetune.converters import glaive, hermes, toolace
from finetune.converters.calls import Calls, read_calls, read_tools, tools_or_unset
from finetune.converters.reading import (
    ROLES,
    ConvertError,
    Detection,
    as_object,
    list_at,
    text_at,
    unknown_role,
    weight_of,
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
_ROLES = {**ROLES, "function_call": "call", "function-call": "call", "tool_call": "call"}
_USED = frozenset(("from", "value", "weight"))


def recognise(rows: Sequence[Any], columns: Mapping[str, str]) -> Detection | None:
    """Return how `rows` are read, when they are ShareGPT's."""
    if any(other.recognise(rows, columns) for other in (glaive, toolace, hermes)):
        return None
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
    key = _key(row, source)
    messages: list[Message] = []
    if system := source.optional_text(row, "system"):
        messages.append(SystemMessage(content=system))
    _add_turns(messages, list_at(row, key), key, source.roles)
    tools = row.get(source.column("tools"))
    return [
        ChatRecord(
            messages=messages,
            tools=UNSET
            if tools is None
            else tools_or_unset(read_tools(tools, source.column("tools"))),
        )
    ]


def _key(row: dict[str, Any], source: Detection) -> str:
    if "conversations" in source.columns:
        return source.columns["conversations"]
    return next((key for key in _KEYS if key in row), "conversations")


def unused(row: dict[str, Any], source: Detection) -> Iterator[str]:
    """Yield the keys of turns that are not used, once each."""
    key = _key(row, source)
    seen = {extra for turn in row[key] if len(turn) > 2 for extra in turn.keys() - _USED}
    yield from (f"{key}[].{extra}" for extra in sorted(seen))


def _add_turns(
    messages: list[Message], turns: list[Any], key: str, said: Mapping[str, str]
) -> None:
    roles, calls = {**_ROLES, **said} if said else _ROLES, Calls()
    for number, turn in enumerate(turns):
        try:
            role, text = roles[turn["from"]], turn["value"]
        except (KeyError, TypeError):
            raise _explain(turn, f"{key}[{number}]") from None
        if type(text) is not str:
            raise _explain(turn, f"{key}[{number}]")
        if role == "user":
            messages.append(UserMessage(content=text))
        elif role == "assistant":
            answer = AssistantMessage(content=text)
            if turn.get("weight") is not None:
                answer.weight = weight_of(turn["weight"], f"{key}[{number}].weight")
            messages.append(answer)
        elif role == "system":
            if text:
                messages.append(SystemMessage(content=text))
        elif role == "call":
            made = read_calls(text, calls, f"{key}[{number}].value")
            weight = turn.get("weight")
            _add_calls(
                messages,
                made,
                UNSET if weight is None else weight_of(weight, f"{key}[{number}].weight"),
            )
        else:
            answered = calls.answer(None, f"{key}[{number}]")
            messages.append(ToolMessage(content=text, tool_call_id=answered))


def _add_calls(messages: list[Message], calls: list[ToolCall], weight: float | UnsetType) -> None:
    last = messages[-1] if messages else None
    if (
        isinstance(last, AssistantMessage)
        and last.tool_calls is not UNSET
        and last.weight == weight
    ):
        last.tool_calls.extend(calls)
    else:
        messages.append(AssistantMessage(tool_calls=calls, weight=weight))


def _explain(turn: Any, path: str) -> ConvertError:
    try:
        turn = as_object(turn, path)
        text_at(turn, "from", path)
        text_at(turn, "value", path)
    except ConvertError as error:
        return error
    return unknown_role(turn["from"], f"{path}.from")
