"""Generated ids back to a message: the formats of tool calls and thinking, by version."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from msgspec import UNSET

from finetune.records import AssistantMessage, FunctionCall, TextChunk, ThinkChunk, ToolCall


class Controls(NamedTuple):
    """Ids of the control tokens inside an answer; None where the tokenizer has no such token.

    Attributes:
        calls: Begins tool calls (from v11 on, each call).
        call_id: Stands before a call's id (v11).
        arguments: Stands before a call's arguments (v11 and later).
        think: Begins thinking.
        end_think: Ends thinking.
        bracketed: Calls are one JSON list after `calls` (below v11).
    """

    calls: int | None
    call_id: int | None
    arguments: int | None
    think: int | None
    end_think: int | None
    bracketed: bool


def parse_answer(
    ids: Sequence[int], decode: Callable[[Sequence[int]], str], controls: Controls
) -> AssistantMessage:
    """Return the message that the ids of an answer (without EOS) stand for.

    Calls that cannot be read stay in `content`, as generated.
    """
    if controls.calls is not None and controls.calls in ids:
        first = ids.index(controls.calls)
        read = _read_list if controls.bracketed else _read_calls
        calls = read(ids[first:], decode, controls)
        if calls is not None:
            content = _content(ids[:first], decode, controls)
            return AssistantMessage(content=content or UNSET, tool_calls=calls)
    return AssistantMessage(content=_content(ids, decode, controls))


def _content(
    ids: Sequence[int], decode: Callable[[Sequence[int]], str], controls: Controls
) -> str | list[TextChunk | ThinkChunk]:
    if controls.think not in ids:
        return decode(ids)
    chunks: list[TextChunk | ThinkChunk] = []
    rest: Sequence[int] = ids
    thinks = True
    while thinks:
        before, thinks, after = _cut(rest, controls.think)
        if text := decode(before):
            chunks.append(TextChunk(text=text))
        if thinks:
            inside, closed, rest = _cut(after, controls.end_think)
            thinking = [TextChunk(text=decode(inside))]
            chunks.append(ThinkChunk(thinking=thinking, closed=closed))
    return chunks


def _read_list(
    ids: Sequence[int], decode: Callable[[Sequence[int]], str], _controls: Controls
) -> list[ToolCall] | None:
    """Read `[{"name": …, "arguments": …, "id": …}]` (v2 to v7)."""
    try:
        value, _ = json.JSONDecoder().raw_decode(decode(ids).strip())
    except ValueError:
        return None
    if not isinstance(value, list) or not all(_is_call(item) for item in value):
        return None
    return [_tool_call(item["name"], item["arguments"], item.get("id")) for item in value] or None


def _is_call(item: Any) -> bool:
    return (
        isinstance(item, dict)
        and isinstance(item.get("name"), str)
        and isinstance(item.get("arguments"), dict | str)
        and isinstance(item.get("id", ""), str)
    )


def _read_calls(
    ids: Sequence[int], decode: Callable[[Sequence[int]], str], controls: Controls
) -> list[ToolCall] | None:
    """Read a name, in v11 an id, and arguments, each behind its control token."""
    calls = []
    starts = [i for i, token in enumerate(ids) if token == controls.calls]
    for start, stop in zip(starts, [*starts[1:], len(ids)], strict=True):
        head, found, arguments = _cut(ids[start + 1 : stop], controls.arguments)
        if not found:
            return None
        name, has_id, identifier = _cut(head, controls.call_id)
        calls.append(
            _tool_call(decode(name), decode(arguments), decode(identifier) if has_id else None)
        )
    return calls


def _cut(ids: Sequence[int], mark: int | None) -> tuple[Sequence[int], bool, Sequence[int]]:
    if mark is None or mark not in ids:
        return ids, False, []
    place = ids.index(mark)
    return ids[:place], True, ids[place + 1 :]


def _tool_call(name: str, arguments: Any, identifier: str | None) -> ToolCall:
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    function = FunctionCall(name=name, arguments=arguments)
    return ToolCall(id=identifier or UNSET, function=function)
