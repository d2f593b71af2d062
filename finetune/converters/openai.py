r"""OpenAI chat: `messages` with tools, old `functions` included.

| row                                                     | record |
|---------------------------------------------------------|--------|
| `conversation`, `dialog`, `dialogue`, `turns`, `chat` … | as `messages` |
| messages as a JSON text                                 | the same |
| a text `system` beside them                             | system message in front |
| role `developer`                                        | role `system` |
| role `function` with a `name` | `tool`, for the oldest open call of that name |
| `"function_call": {"name", "arguments"}`                | `tool_calls` with one call |
| `"functions": [{"name", …}]`                            | `"tools": [{"function": {"name", …}}]` |
| ids such as `call_9eVqFTwTQrPBOmGHZyEVKxLe`             | 9 letters and digits, on both sides |
| `"content": null`, or `""` beside calls                 | no key |
| `"content": [{"type": "text", "text": "T"}]` | `"content": "T"`; several parts stay a list |
| `"content": null, "refusal": "R"`                       | `"content": "R"`: what was said |
| `"reasoning_content": "R"` or `reasoning`               | a `thinking` chunk before the content |
| `"arguments": "\"{\\\"a\\\": 1}\""` (encoded twice)     | `"arguments": "{\"a\": 1}"` |
| `"arguments": {"a": 1}`, `""`                           | `"{\"a\":1}"`, `"{}"` |
| `"parameters": null` or absent                          | an object without properties |
| text beside calls, no answer at the end                 | kept: the rules judge |
| `{"type": "text", "content": "T"}` (oumi)               | the text `T` |
| any other key, such as `name` of a user, `tool_choice`  | not used, and counted as such |
| a role of another name | that of `roles`, else the row is rejected |
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import UNSET

from finetune.converters import anthropic
from finetune.converters.calls import Calls, read_tools, tools_or_unset
from finetune.converters.content import read_content, thought
from finetune.converters.images import has_parts
from finetune.converters.reading import (
    ROLES,
    ConvertError,
    Detection,
    as_object,
    decoded,
    objects_in,
    optional_text,
    text_at,
    type_name,
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

FIELDS = ("messages", "tools", "system")
_KEYS = (
    "messages",
    "conversation",
    "conversations",
    "dialog",
    "dialogue",
    "turns",
    "chat",
)
_OURS = {"system", "user", "assistant", "tool"}
# What makes a row one of another kind of record, or a logged request.
_OTHERS = ("chosen", "rejected", "label", "labels", "response", "output", "choices")
_USED = frozenset(
    (
        "role",
        "content",
        "tool_calls",
        "tool_call_id",
        "function_call",
        "weight",
        "refusal",
        "reasoning_content",
        "reasoning",
    )
)


def recognise(rows: Sequence[Any], columns: Mapping[str, str]) -> Detection | None:
    """Return how `rows` are read, when they are OpenAI's and not already La Plateforme's."""
    if anthropic.recognise(rows, {}):
        return None
    keys = [columns["messages"]] if "messages" in columns else _KEYS
    for key in keys:
        fitting = [row for row in rows if _has_messages(row, key)]
        if 2 * len(fitting) >= len(rows):
            sign = key != "messages" or _sign(fitting, key)
            source = Detection("openai", "chat", {**columns, "messages": key})
            if sign:
                with_ = "`role` and `content`" if sign is True else sign
                return source._replace(reason=f"`{key}` with {with_}")
            return source._replace(reason="`columns` says what holds what") if columns else None
    return None


def _has_messages(row: Any, key: str) -> bool:
    if not isinstance(row, dict) or any(other in row for other in _OTHERS):
        return False
    try:
        messages = decoded(row.get(key), key, "type")
    except ConvertError:
        return False
    return isinstance(messages, list) and any(
        isinstance(m, dict) and "role" in m and m.keys() & _USED - {"role"} for m in messages
    )


def _sign(rows: Sequence[dict[str, Any]], key: str) -> str | None:
    """Return what La Plateforme's own rows do not have: in one message, or beside most lists."""
    for row in rows:
        if isinstance(row[key], str):
            return "messages in a JSON text"
        if sign := find_sign(row[key]):
            return sign
    beside = [extra for row in rows for extra in row.keys() - {key, "tools"}]
    if 2 * len(beside) >= len(rows):
        return f"other keys beside it, such as `{min(beside)[:40]}`" if beside else None
    return None


def find_sign(messages: Sequence[Any]) -> str | None:
    """Return what messages have that La Plateforme's own do not, for people."""
    signs = (_message_sign(message) for message in messages if isinstance(message, dict))
    return next(filter(None, signs), None)


def _message_sign(message: dict[str, Any]) -> str | None:
    role = message.get("role")
    if isinstance(role, str) and role not in _OURS:
        return f"the role `{role}`" if role in ROLES else "roles of other names"
    if message.get("content", "") is None:
        return "empty keys"
    for extra in message.keys() & (_USED | {"name", "annotations", "audio"}):
        if not message[extra] and extra not in {"content", "weight"}:
            return "empty keys"
    for extra in ("function_call", "refusal", "reasoning_content", "reasoning"):
        if extra in message:
            return f"`{extra}`"
    if has_parts(message):
        return "images of other makers"
    if any(len(i) != 9 for i in _ids(message)):
        return "call ids that are not 9 characters"
    return _inner_sign(message)


def _inner_sign(message: dict[str, Any]) -> str | None:
    """Return what stands deeper in a message than its keys."""
    if any(isinstance(item, dict) for item in _arguments(message)):
        return "arguments that are objects"
    parts = message["content"] if isinstance(message.get("content"), list) else []
    if any(isinstance(part, dict) and "content" in part for part in parts):
        return "parts that have `content`"
    return None


def _arguments(message: dict[str, Any]) -> list[Any]:
    calls = message.get("tool_calls")
    listed = calls if isinstance(calls, list) else []
    functions = [call.get("function") for call in listed if isinstance(call, dict)]
    return [function.get("arguments") for function in functions if isinstance(function, dict)]


def _ids(message: dict[str, Any]) -> list[str]:
    calls = message.get("tool_calls")
    calls = calls if isinstance(calls, list) else []
    found = [call.get("id") for call in calls if isinstance(call, dict)]
    return [i for i in (*found, message.get("tool_call_id")) if isinstance(i, str)]


def convert(value: Any, source: Detection) -> list[Record]:
    """Return the conversation of one row.

    Raises:
        ConvertError: A message is not one of the table.
    """
    row = as_object(value)
    messages: list[Message] = []
    if system := optional_text(row, source.column("system")):
        messages.append(SystemMessage(content=system))
    calls = Calls()
    key = _key(row, source)
    add_messages(messages, row.get(key), calls, key, source.roles)
    name = source.column("tools")
    tools = read_tools(row[name], name) if row.get(name) else []
    if not tools and row.get("functions"):
        tools = read_tools(row["functions"], "functions")
    return [ChatRecord(messages=messages, tools=tools_or_unset(tools))]


def _key(row: Mapping[str, Any], source: Detection) -> str:
    """Return the key of a row that holds its messages."""
    if "messages" in source.columns:
        return source.columns["messages"]
    return next((key for key in _KEYS if key in row), "messages")


def unused(row: dict[str, Any], source: Detection) -> Iterator[str]:
    """Yield the keys of messages that are not used, once each."""
    key = _key(row, source)
    messages = decoded(row[key], key, "type")
    seen = {
        extra
        for message in messages
        for extra in message.keys() - _USED
        if message[extra] and not (extra == "name" and message["role"] in {"tool", "function"})
    }
    yield from (f"{key}[].{extra}" for extra in sorted(seen))


def add_messages(
    messages: list[Message],
    values: Any,
    calls: Calls,
    path: str,
    roles: Mapping[str, str] = {},
) -> None:
    """Add messages of OpenAI's form.

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
        name = message.get("role")
        role = (roles.get(name) or ROLES.get(name)) if isinstance(name, str) else None
        if role == "assistant":
            messages.append(read_answer(message, calls, place))
        elif role in {"user", "system"}:
            content = read_content(message.get("content"), role, f"{place}.content")
            kind: Any = UserMessage if role == "user" else SystemMessage
            messages.append(kind(content=content))
        elif role == "tool":
            messages.append(_read_result(message, calls, place))
        else:
            text_at(message, "role", place)
            raise unknown_role(name, f"{place}.role")


def _read_result(message: dict[str, Any], calls: Calls, path: str) -> ToolMessage:
    name = message.get("name") or None
    old = message.get("tool_call_id")
    if old is not None:
        text_at(message, "tool_call_id", path)
    if name is not None:
        text_at(message, "name", path)
    legacy = message["role"] == "function"
    answered = calls.answer(old, path, name if legacy else None)
    content = read_content(message.get("content"), "tool", f"{path}.content")
    return ToolMessage(content=content, tool_call_id=answered, name=name or UNSET)


def read_answer(message: dict[str, Any], calls: Calls, path: str) -> AssistantMessage:
    """Return an assistant message of OpenAI's form.

    Raises:
        ConvertError: A call or its content is none.
    """
    answer = AssistantMessage()
    made = list(_read_calls(message.get("tool_calls"), calls, f"{path}.tool_calls"))
    if message.get("function_call"):
        old = {"function": message["function_call"]}
        made += _read_calls([old], calls, f"{path}.function_call")
    if made:
        answer.tool_calls = made
    content = message.get("content")
    if refusal := optional_text(message, "refusal", path):
        if content:
            raise ConvertError("both content and a refusal", path=path, rule="value")
        content = refusal
    if content is not None and not (made and content == ""):
        answer.content = read_content(content, "assistant", f"{path}.content")
    thinking = optional_text(message, "reasoning_content", path)
    if thinking := thinking or optional_text(message, "reasoning", path):
        answer.content = thought(thinking, answer.content)
    if message.get("weight") is not None:
        answer.weight = weight_of(message["weight"], f"{path}.weight")
    return answer


def _read_calls(value: Any, calls: Calls, path: str) -> Iterable[ToolCall]:
    value = decoded(value, path, "call-text") or []
    if not isinstance(value, list):
        raise ConvertError(f"expected a list, got {type_name(value)}", path=path, rule="type")
    for number, item in enumerate(value):
        place = f"{path}[{number}]" if path.endswith("calls") else path
        call = as_object(item, place)
        function = as_object(call.get("function"), f"{place}.function")
        name = text_at(function, "name", f"{place}.function")
        old = text_at(call, "id", place) if call.get("id") else None
        yield calls.call(name, function.get("arguments"), old)
