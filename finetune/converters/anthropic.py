r"""Anthropic messages: contents in blocks, the system prompt beside them.

| row                                                      | record |
|----------------------------------------------------------|--------|
| `{"system": "S" or [{"type": "text", "text": "S"}], …}`  | system `S` first |
| `{"type": "text", "text": "T"}`                          | content `T`; several stay a list |
| `{"type": "tool_use", "id", "name", "input": {…}}` | `tool_calls`, `arguments` as JSON text |
| `{"type": "tool_result", "tool_use_id", …}` in a user turn | `tool`, before the rest of the turn |
| `{"type": "image", "source": {"type": "base64", …}}`     | `image_url`, a data URL |
| `{"type": "image", "source": {"type": "url", "url": …}}` | `image_url`, the address |
| `{"type": "thinking", "thinking": "R"}`                  | a `thinking` chunk: the rules judge |
| `{"type": "redacted_thinking"}` | not used, and counted as such: it cannot be read |
| `{"tools": [{"name", "input_schema"}]}`                  | `tools` with `parameters` |
| `{"custom_id", "params": {"messages": …}}` (a batch request) | the conversation in `params` |
| the same with `"result": {"type": "succeeded", "message"}` | with the answer at its end |
| the same with a result that is not `succeeded`           | left out: `failed-request` |
| the same with an answer stopped by its length            | left out: `answer-cut` |
| tools of the server, such as `web_search_20250305` | not used, and counted as such |
| an answer that the request began (prefill)               | one message |
| documents, calls of such tools, text after a call in one turn | the row is rejected: `value` |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from finetune.converters.calls import (
    Calls,
    functions_of,
    read_tools,
    server_tools,
    tools_or_unset,
)
from finetune.converters.content import Chunk, read_chunk, read_content, settle
from finetune.converters.reading import (
    ROLES,
    ConvertError,
    Detection,
    LeftOut,
    as_object,
    check_end,
    decoded,
    objects_in,
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

FIELDS = ("messages", "system", "tools")
_BLOCKS = {"tool_use", "tool_result", "thinking", "redacted_thinking", "image"}
_USED = frozenset(("role", "content"))


def recognise(rows: Sequence[Any], columns: Mapping[str, str]) -> Detection | None:
    """Return how `rows` are read, when they are Anthropic's."""
    source = Detection("anthropic", "chat", dict(columns))
    signs = [sign for row in rows if (sign := _sign(row, source))]
    if not signs:
        return None
    fitting = [
        row for row in rows if isinstance(_request(row).get(source.column("messages")), list)
    ]
    reason = f"`{source.column('messages')}` with {signs[0]}"
    return source._replace(reason=reason) if 2 * len(fitting) >= len(rows) else None


def _request(row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        return {}
    params = row.get("params")
    return params if isinstance(params, dict) else row


def _sign(row: Any, source: Detection) -> str | None:
    request = _request(row)
    messages = request.get(source.column("messages"))
    if not isinstance(messages, list) or "response" in row:  # a logged request
        return None
    if request is not row:
        return "`params`, as in a batch"
    if "anthropic_version" in request:
        return "`anthropic_version`"
    if isinstance(request.get(source.column("system")), list):
        return "a system prompt in blocks"
    tools = request.get(source.column("tools"))
    if isinstance(tools, list) and any(isinstance(t, dict) and "input_schema" in t for t in tools):
        return "`input_schema`"
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        for block in content if isinstance(content, list) else ():
            kind = block.get("type") if isinstance(block, dict) else None
            if (
                isinstance(kind, str)
                and kind in _BLOCKS
                and not isinstance(block.get("thinking"), list)
            ):
                return f"blocks of the type `{kind}`"
    return None


def convert(value: Any, source: Detection) -> list[Record]:
    """Return the conversation of one row.

    Raises:
        LeftOut: It is a batch request that failed.
        ConvertError: A block is not one of the table.
    """
    row = as_object(value)
    request, path = (
        (row, "") if "params" not in row else (as_object(row["params"], "params"), "params.")
    )
    messages, calls = read_request(request, source, path)
    if row.get("result") is not None:
        result = as_object(row["result"], "result")
        if result.get("type") != "succeeded":
            raise LeftOut("the request did not succeed", path="result.type", rule="failed-request")
        message = as_object(result.get("message"), "result.message")
        check_end(message.get("stop_reason"), "result.message.stop_reason")
        add_answer(messages, message, calls, "result.message")
    name = source.column("tools")
    tools = read_tools(functions_of(request.get(name), f"{path}{name}"), f"{path}{name}")
    return [ChatRecord(messages=messages, tools=tools_or_unset(tools))]


def read_request(
    request: dict[str, Any], source: Detection, path: str
) -> tuple[list[Message], Calls]:
    """Return the conversation of a request, and the calls in it.

    Args:
        request: What is sent to Anthropic's API.
        source: How it is read.
        path: Where it stands, with a dot at its end; empty for the row itself.

    Raises:
        ConvertError: It holds no conversation.
    """
    messages: list[Message] = []
    name, key, calls = source.column("system"), source.column("messages"), Calls()
    if request.get(name):
        content = read_content(request[name], "system", f"{path}{name}")
        messages.append(SystemMessage(content=content))
    add_messages(messages, request.get(key), calls, f"{path}{key}", source.roles)
    return messages, calls


def add_messages(
    messages: list[Message],
    values: Any,
    calls: Calls,
    path: str,
    roles: Mapping[str, str] = {},
) -> None:
    """Add messages of Anthropic's form.

    Args:
        messages: Where they are added.
        values: The list, or its JSON text.
        calls: The calls before them.
        path: Where the list stands, for errors.
        roles: What the rows call their roles → our roles.

    Raises:
        ConvertError: One is not a message.
    """
    for place, message in objects_in(values, path):
        name = text_at(message, "role", place)
        role = roles.get(name) or ROLES.get(name)
        content = message.get("content")
        blocks = content if isinstance(content, list) else [content]
        if role == "user":
            _add_user(messages, blocks, calls, f"{place}.content")
        elif role == "assistant":
            messages.append(_read_answer(blocks, calls, f"{place}.content"))
        elif role == "system":
            messages.append(SystemMessage(content=read_content(content, "system", place)))
        else:
            raise unknown_role(name, f"{place}.role")


def add_answer(messages: list[Message], message: dict[str, Any], calls: Calls, path: str) -> None:
    """Add the answer of Anthropic's API; where the request began it, it goes on there.

    Raises:
        ConvertError: It is not a message.
    """
    begun = messages[-1] if messages else None
    add_messages(messages, [message], calls, path)
    answer = messages[-1]
    if not (isinstance(begun, AssistantMessage) and isinstance(answer, AssistantMessage)):
        return
    if not (isinstance(begun.content, str) and isinstance(answer.content, str)):
        raise ConvertError("the answer goes on with more than text", path=path, rule="value")
    begun.content += answer.content
    begun.tool_calls = answer.tool_calls
    del messages[-1]


def _kind(block: Any, path: str) -> str:
    if isinstance(block, str):
        return "text"
    return text_at(as_object(block, path), "type", path)


def _add_user(messages: list[Message], blocks: list[Any], calls: Calls, path: str) -> None:
    results: list[Message] = []
    chunks: list[Chunk] = []
    for number, block in enumerate(blocks):
        place = f"{path}[{number}]"
        if _kind(block, place) == "tool_result":
            answered = calls.answer(text_at(block, "tool_use_id", place), place)
            content = read_content(block.get("content"), "tool", f"{place}.content")
            results.append(ToolMessage(content=content, tool_call_id=answered))
        else:
            chunks.append(read_chunk(block, place))
    messages += results
    if chunks or not results:
        messages.append(UserMessage(content=settle(chunks, "user", path)))


def _read_answer(blocks: list[Any], calls: Calls, path: str) -> AssistantMessage:
    made: list[ToolCall] = []
    chunks: list[Chunk] = []
    for number, block in enumerate(blocks):
        place = f"{path}[{number}]"
        kind = _kind(block, place)
        if kind == "tool_use":
            name, old = text_at(block, "name", place), text_at(block, "id", place)
            made.append(calls.call(name, block.get("input"), old))
        elif kind != "redacted_thinking":
            if made:
                # A record has its calls after its content: another order would be ours.
                raise ConvertError("content after a call", path=place, rule="value")
            chunks.append(read_chunk(block, place))
    answer = AssistantMessage()
    if chunks:
        answer.content = settle(chunks, "assistant", path)
    if made:
        answer.tool_calls = made
    return answer


def unused(row: dict[str, Any], source: Detection) -> Iterator[str]:
    """Yield the keys of messages and the blocks that are not used, once each."""
    key, name = source.column("messages"), source.column("tools")
    seen = set(server_tools(_request(row).get(name), name))
    for message in decoded(_request(row)[key], key, "type"):
        seen.update(f"{key}[].{extra}" for extra in message.keys() - _USED)
        for block in message["content"] if isinstance(message["content"], list) else ():
            if isinstance(block, dict) and block["type"] == "redacted_thinking":
                seen.add(f"{key}[].content[].redacted_thinking")
    yield from sorted(seen)
