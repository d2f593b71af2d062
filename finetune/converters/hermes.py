r"""Hermes: calls in `<tool_call>` tags, as Hermes and Qwen are taught them, in ShareGPT's turns.

| row                                                      | record |
|----------------------------------------------------------|--------|
| a system prompt with `<tools>[{"type": "function", …}]</tools>` | `tools` |
| a tool a line in the tags, or as Python prints them      | the same |
| no tools in the prompt, but a list `tools` beside it     | the same |
| Hermes' and Qwen's own text around the tags              | left out: it says how to write calls |
| any other text around them                               | system message |
| `{"from": "gpt", "value": "<tool_call>{\"name\", \"arguments\"}</tool_call>"}` | `tool_calls` |
| several in a turn, or as Python prints them              | the same |
| text before a call                                       | content beside it: the rules judge |
| `<tool_response>R</tool_response>` of `tool` or `human`  | tool `R`, for the oldest open call |
| several in a turn, `tool` without tags                   | a tool message each; the whole text |
| text behind a tag                                        | the row is rejected: `value` |
| a tag that is not closed, calls that are no objects      | the row is rejected: `call-text` |

Sources: NousResearch/hermes-function-calling-v1; Qwen2.5's chat template, as of 2026-11.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from finetune.converters.calls import Calls, read_calls, read_tools, tools_or_unset
from finetune.converters.literals import read_value
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
    Tool,
    ToolMessage,
    UserMessage,
)

FIELDS = ("conversations", "tools")
_USED = frozenset(("from", "value", "weight"))
_CALL_KEYS = frozenset(("name", "arguments", "id", "type"))
_CALL, _RESULT, _TOOLS = "tool_call", "tool_response", "tools"
# Where the text begins that says how to write calls; it ends with the last example of one.
_TEMPLATE = re.compile(
    r"You are a function calling AI model|# Tools\s{1,4}You may call one or more functions"
)


def recognise(rows: Sequence[Any], columns: Mapping[str, str]) -> Detection | None:
    """Return how `rows` are read, when calls stand in their texts in tags."""
    source = Detection("hermes", "chat", dict(columns))
    key = source.column("conversations")
    fitting = [row for row in rows if isinstance(row, dict) and isinstance(row.get(key), list)]
    if 2 * len(fitting) < len(rows):
        return None
    signs = (_sign(turn) for row in fitting for turn in row[key] if isinstance(turn, dict))
    sign = next(filter(None, signs), None)
    return source._replace(reason=f"`{key}` with {sign}") if sign else None


def _sign(turn: dict[str, Any]) -> str | None:
    text = turn.get("value")
    if not isinstance(text, str):
        return None
    role = ROLES.get(str(turn.get("from")))
    if role == "assistant" and f"<{_CALL}>" in text:
        return f"`<{_CALL}>` in an answer"
    return f"`<{_TOOLS}>`" if role == "system" and _split_tools(text)[1] else None


def convert(value: Any, source: Detection) -> list[Record]:
    """Return the conversation of one row.

    Raises:
        ConvertError: A turn is not one of the table.
    """
    row = as_object(value)
    key, name = source.column("conversations"), source.column("tools")
    messages: list[Message] = []
    tools: list[Tool] = []
    calls = Calls()
    for number, item in enumerate(list_at(row, key)):
        path = f"{key}[{number}]"
        turn = as_object(item, path)
        said, text = text_at(turn, "from", path), text_at(turn, "value", path)
        role, path = source.roles.get(said) or ROLES.get(said), f"{path}.value"
        if role == "system":
            text, declared = _split_tools(text)
            tools += _read_tools(declared, path) if declared else []
            messages += [SystemMessage(content=text)] if text else []
        elif role == "assistant":
            answer = _read_answer(text, calls, path)
            if turn.get("weight") is not None:
                answer.weight = weight_of(turn["weight"], f"{key}[{number}].weight")
            messages.append(answer)
        elif role == "tool" or (role == "user" and text.lstrip().startswith(f"<{_RESULT}>")):
            messages += _read_results(text, calls, path)
        elif role == "user":
            messages.append(UserMessage(content=text))
        else:
            raise unknown_role(said, f"{key}[{number}].from")
    if not tools and row.get(name):
        tools = read_tools(row[name], name)
    return [ChatRecord(messages=messages, tools=tools_or_unset(tools))]


def unused(row: dict[str, Any], source: Detection) -> Iterator[str]:
    """Yield the keys of turns that are not used, once each."""
    key = source.column("conversations")
    seen = {extra for turn in row[key] for extra in turn.keys() - _USED}
    yield from (f"{key}[].{extra}" for extra in sorted(seen))


def _split_tools(text: str) -> tuple[str, str]:
    """Return a system prompt without what says how to call, and what it lists as tools."""
    listed = ""
    for piece in text.split(f"<{_TOOLS}>")[1:]:
        inner, closed, _ = piece.partition(f"</{_TOOLS}>")
        if closed and inner.lstrip()[:1] in {"[", "{"}:
            listed = inner.strip()
            text = text.replace(f"<{_TOOLS}>{inner}</{_TOOLS}>", "", 1)
            break
    if listed and (template := _TEMPLATE.search(text)):
        end = f"</{_CALL}>"
        at = text.rfind(end, template.start())
        after = text[at + len(end) :] if at >= 0 else ""
        text = f"{text[: template.start()].rstrip()}\n{after.lstrip()}"
    return text.strip() if listed else text, listed


def _read_tools(text: str, path: str) -> list[Tool]:
    """Return the tools that a text lists: a list, or a tool a line."""
    try:
        value = read_value(text, path, "tools-text")
    except ConvertError:
        lines = filter(str.strip, text.splitlines())
        value = [read_value(line, path, "tools-text") for line in lines]
    return read_tools(value if isinstance(value, list) else [value], path)


def _parts(text: str, tag: str, path: str) -> tuple[str, list[str]]:
    """Return the text before the first of some tags, and what stands in each of them."""
    before, *pieces = text.split(f"<{tag}>")
    found = []
    for piece in pieces:
        inner, closed, after = piece.partition(f"</{tag}>")
        if not closed:
            raise ConvertError(f"`<{tag}>` is not closed", path=path, rule="call-text")
        if after.strip():
            raise ConvertError(f"text behind `</{tag}>`", path=path, rule="value")
        found.append(inner.strip())
    return before, found


def _read_answer(text: str, calls: Calls, path: str) -> AssistantMessage:
    before, written = _parts(text, _CALL, path)
    if not written:
        return AssistantMessage(content=text)
    made = []
    for one in written:
        call = as_object(read_value(one, path, "call-text"), path)
        if not call.keys() <= _CALL_KEYS:
            raise ConvertError("keys that a call does not have", path=path, rule="call-text")
        made += read_calls(call, calls, path)
    answer = AssistantMessage(tool_calls=made)
    if before.strip():
        answer.content = before.rstrip()
    return answer


def _read_results(text: str, calls: Calls, path: str) -> list[Message]:
    before, written = _parts(text, _RESULT, path)
    if written and before.strip():
        raise ConvertError(f"text before `<{_RESULT}>`", path=path, rule="value")
    return [
        ToolMessage(content=one, tool_call_id=calls.answer(None, path)) for one in written or [text]
    ]
