r"""Glaive: conversations with function calls in one text, and its variants.

| row                                                      | record |
|----------------------------------------------------------|--------|
| `{"system": "SYSTEM: S", "chat": "USER: Q ASSISTANT: A"}` | system `S`, user `Q`, assistant `A` |
| `<\|endoftext\|>` at the end of a turn                   | no part of it |
| the whole in one text under `sample`, `text` or `chat`   | the same |
| `SYSTEM: S⏎{"name": …, "parameters": …}⏎{…}`             | system `S` and `tools` |
| `ASSISTANT: <functioncall> {"name": "f", "arguments": '{"a": 1}'}` | assistant with `tool_calls` |
| text before `<functioncall>` | content beside the calls: the rules judge |
| `FUNCTION RESPONSE: R`                                   | tool, for the oldest open call |
| `conversations` of `from` and `value` with `<functioncall>`, `function_description` | the same |
| quotes in the quoted arguments, `\'`                     | as they are, where that gives JSON |
| `Infinity`, a call cut off, quotes that end too early    | the row is rejected: `call-text` |
| declared functions that are not JSON                     | the row is rejected: `tools-text` |
| no `USER:` or `ASSISTANT:`                               | the row is rejected: `no-messages` |
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from finetune.converters.calls import Calls, read_tools, tools_or_unset
from finetune.converters.reading import (
    ROLES,
    ConvertError,
    Detection,
    as_object,
    decoded_at,
    list_at,
    optional_text,
    text_at,
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

FIELDS = ("chat", "system", "conversations", "function_description")
_TEXTS = ("chat", "sample", "text")
_END = "<|endoftext|>"
_CALL = "<functioncall>"
_SPEAKERS = {
    "SYSTEM": "system",
    "USER": "user",
    "ASSISTANT": "assistant",
    "FUNCTION RESPONSE": "tool",
}
_NAMES = "|".join(_SPEAKERS)
# A turn begins a line or follows the end of another; only in a text of one line, anywhere.
_TURN = re.compile(rf"(?:^|\n|<\|endoftext\|>)[ \t]*({_NAMES}):")
_INLINE = re.compile(rf"(?:^|\s|<\|endoftext\|>)({_NAMES}):")
_NAME = re.compile(r'\{\s*"name"\s*:\s*"([^"\\]+)"\s*')
_ARGUMENTS = re.compile(r',\s*"arguments"\s*:\s*')
_LIST = re.compile(r"(?:^|\n|- )[ \t]*(?=[\[{])")
_BETWEEN = re.compile(r"[\s,]*")


def recognise(rows: Sequence[Any], columns: Mapping[str, str]) -> Detection | None:
    """Return how `rows` are read, when they are Glaive's."""
    for name in (columns["chat"],) if "chat" in columns else _TEXTS:
        if 2 * sum(_is_raw(row, name) for row in rows) >= len(rows):
            found = {"chat": name, **columns}
            return Detection("glaive", "chat", found, f"`USER:` and `ASSISTANT:` in `{name}`")
    key = columns.get("conversations", "conversations")
    turns = [turns for row in rows if (turns := _turns(row, key))]
    if 2 * len(turns) < len(rows):
        return None
    described = columns.get("function_description", "function_description")
    if any(isinstance(row, dict) and row.get(described) for row in rows):
        sign = f"`{described}` beside it"
    elif any(_CALL in turn.get("value", "") for each in turns for turn in each):
        sign = f"`{_CALL}`"
    else:
        return None
    found = {"conversations": key, **columns}
    return Detection("glaive", "chat", found, f"`{key}` with {sign}")


def _is_raw(row: Any, key: str) -> bool:
    text = row.get(key) if isinstance(row, dict) else None
    return isinstance(text, str) and {"USER", "ASSISTANT"} <= set(_turn_of(text).findall(text))


def _turns(row: Any, key: str) -> list[dict[str, str]]:
    turns = row.get(key) if isinstance(row, dict) else None
    return [
        turn
        for turn in (turns if isinstance(turns, list) else [])
        if isinstance(turn, dict) and "from" in turn and isinstance(turn.get("value"), str)
    ]


def convert(value: Any, source: Detection) -> list[Record]:
    """Return the conversation of one row.

    Raises:
        ConvertError: It is not certain what a part of it means.
    """
    row = as_object(value)
    key = source.column("conversations")
    turns = list(_listed(row, key, source.roles) if key in row else _raw(row, source))
    if not any(role in {"user", "assistant"} for role, _, _ in turns):
        raise ConvertError("no turns of a user or the assistant", path=key, rule="no-messages")
    messages: list[Message] = []
    described = source.column("function_description")
    tools = _functions(optional_text(row, described), described)[1]
    calls = Calls()
    for role, text, path in turns:
        if role == "system":
            said, more = _functions(text.removeprefix("SYSTEM:").strip(), path)
            tools = tools or more
            if said:
                messages.append(SystemMessage(content=said))
        elif role == "user":
            messages.append(UserMessage(content=text))
        elif role == "tool":
            answered = calls.answer(None, path)
            messages.append(ToolMessage(content=text, tool_call_id=answered))
        elif role == "call":
            messages.append(AssistantMessage(tool_calls=[_read_call(text, calls, path)]))
        else:
            messages.append(_read_answer(text, calls, path))
    declared = tools_or_unset(read_tools(tools, described if row.get(described) else "system"))
    return [ChatRecord(messages=messages, tools=declared)]


_Turn = tuple[str, str, str]  # role, text, path


def _listed(row: dict[str, Any], key: str, said: Mapping[str, str]) -> Iterator[_Turn]:
    system = optional_text(row, "system")
    if system:
        yield "system", system, "system"
    roles = {**ROLES, "function_call": "call", "function-call": "call", **said}
    for number, item in enumerate(list_at(row, key)):
        path = f"{key}[{number}]"
        turn = as_object(item, path)
        name = text_at(turn, "from", path)
        if name not in roles:
            raise unknown_role(name, f"{path}.from")
        yield roles[name], _bare(text_at(turn, "value", path)), f"{path}.value"


def _raw(row: dict[str, Any], source: Detection) -> Iterator[_Turn]:
    key = source.columns.get("chat") or next((name for name in _TEXTS if name in row), "chat")
    text = text_at(row, key)
    system = optional_text(row, source.column("system"))
    if system:
        yield "system", system, source.column("system")
    found = list(_turn_of(text).finditer(text))
    if not found or _bare(text[: found[0].start()]):
        raise ConvertError("text before the first turn", path=key, rule="no-messages")
    ends = [*(match.start() for match in found[1:]), len(text)]
    for match, end in zip(found, ends, strict=True):
        yield _SPEAKERS[match[1]], _bare(text[match.end() : end]), key


def _turn_of(text: str) -> re.Pattern[str]:
    """Return what a turn begins with: a line, or in a text of one line a word."""
    if {"USER", "ASSISTANT"} <= set(_TURN.findall(text)):
        return _TURN
    return _INLINE if _INLINE.match(text) else _TURN


def _bare(text: str) -> str:
    """Return the text of a turn without the mark of its end."""
    return text.strip().removesuffix(_END).strip()


def _functions(text: str, path: str) -> tuple[str, list[Any]]:
    """Return a system prompt without the functions at its end, and these."""
    start = _LIST.search(text)
    if not start:
        return text, []
    found: list[Any] = []
    at = start.end()
    while at < len(text):
        value, at = decoded_at(text, at, path, "tools-text")
        found += value if isinstance(value, list) else [value]
        between = _BETWEEN.match(text, at)
        at = between.end() if between else at
    return text[: start.start()].strip(), found


def _read_answer(text: str, calls: Calls, path: str) -> AssistantMessage:
    said, *called = text.split(_CALL)
    answer = AssistantMessage()
    if said.strip() or not called:
        answer.content = said.strip()
    if called:
        answer.tool_calls = [_read_call(_bare(call), calls, path) for call in called]
    return answer


def _read_call(text: str, calls: Calls, path: str) -> ToolCall:
    """Return a call, if its text can only mean one."""
    text = _bare(text.removeprefix(_CALL))
    name = _NAME.match(text)
    if name is None or not text.endswith("}"):
        whole = name is None and text.endswith("}")
        fact = "a call in no known form" if whole else "a call that is cut off"
        raise ConvertError(fact, path=path, rule="call-text")
    rest = text[name.end() : -1].strip()
    if not rest:
        return calls.call(name[1], None)
    begin = _ARGUMENTS.match(rest)
    if begin is None:
        raise ConvertError("a call in no known form", path=path, rule="call-text")
    return calls.call(name[1], _read_arguments(rest[begin.end() :], path))


def _read_arguments(text: str, path: str) -> dict[str, Any]:
    if len(text) > 1 and text[0] == text[-1] == "'":
        text = text[1:-1]
    for reading in (text, text.replace("\\'", "'")):
        try:
            value = msgspec.json.decode(reading)
            if isinstance(value, str):
                value = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError):
            continue
        if isinstance(value, dict):
            return value
    infinite = re.search(r":[ ]?-?(?:Infinity|NaN)\b", text)
    fact = "Infinity or NaN in the arguments" if infinite else "arguments that are not JSON"
    raise ConvertError(fact, path=path, rule="call-text")
