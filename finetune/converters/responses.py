r"""OpenAI's Responses API: a conversation as items, sent as `input` and answered as `output`.

| row                                                      | record |
|----------------------------------------------------------|--------|
| `"instructions": "S"`                                    | system `S` first |
| `"input": "Q"`                                           | user `Q` |
| `{"role", "content"}`, `{"type": "message", …}`          | a message; role `developer`: system |
| parts `input_text`, `output_text`, `refusal`             | text |
| a part `input_image` with `image_url`                    | `image_url` |
| `{"type": "function_call", "call_id", "name", "arguments"}` | a call of the answer before it |
| … with no answer before it, or behind a result           | an answer of its own |
| `{"type": "function_call_output", "call_id", "output"}`  | `tool` |
| `{"type": "reasoning", "content": […]}`                  | a `thinking` chunk before the answer |
| the same with a summary of it, or encrypted              | not used, and counted as such |
| `{"tools": [{"type": "function", "name", …}]}`           | `tools` |
| declared tools of the server, such as `web_search`       | not used, and counted as such |
| their calls, custom tools, files, audio                  | the row is rejected: `value` |
| `previous_response_id`, `conversation`, a stored `prompt` | the row is rejected: `no-request` |
| items `item_reference`, `compaction`                     | the same |
| `"status": "incomplete"` of an answer or an item         | left out: `answer-cut` |
| `"status": "failed"`, `"cancelled"`                      | left out: `failed-request` |

Source: OpenAI's Python SDK, `openai.types.responses`, as of 2026-11.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import UNSET

from finetune.converters.calls import Calls
from finetune.converters.content import read_content
from finetune.converters.reading import (
    ROLES,
    ConvertError,
    LeftOut,
    objects_in,
    optional_text,
    text_at,
    unknown_role,
)
from finetune.records import (
    AssistantMessage,
    Message,
    SystemMessage,
    TextChunk,
    ThinkChunk,
    ToolMessage,
    UserMessage,
)

_ITEMS = {"message", "function_call", "function_call_output", "reasoning", "item_reference"}
_PARTS = {"input_text", "input_image", "input_file", "output_text"}
_ELSEWHERE = {"item_reference", "compaction"}
# Settings by which a part of the request stands elsewhere.
_OTHER_PLACES = ("previous_response_id", "conversation", "prompt")
_ECHOED = (*_OTHER_PLACES, "instructions", "tools")


def is_items(values: Any) -> bool:
    """Tell whether a list holds items of the Responses API, which no list of messages has."""
    return isinstance(values, list) and any(_is_item(value) for value in values)


def _is_item(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    kind, content = value.get("type"), value.get("content")
    if isinstance(kind, str) and (kind in _ITEMS or kind.endswith("_call")):
        return True
    parts = content if isinstance(content, list) else []
    kinds = [part.get("type") for part in parts if isinstance(part, dict)]
    return any(isinstance(kind, str) and kind in _PARTS for kind in kinds)


def is_answer(value: Any) -> bool:
    """Tell whether a value is what the Responses API answers, or the items of it."""
    if isinstance(value, dict):
        return value.get("object") == "response" or is_items(value.get("output"))
    return is_items(value)


def is_event(value: Any) -> bool:
    """Tell whether a value is a part of a streamed answer, such as `response.created`."""
    kind = value.get("type") if isinstance(value, dict) else None
    return isinstance(kind, str) and kind.startswith("response.")


def add_echo(request: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request with what its answer says of it, where it does not say so itself."""
    echo = {key: answer[key] for key in _ECHOED if answer.get(key)}
    return {**echo, **{key: value for key, value in request.items() if value is not None}}


def add_answer(messages: list[Message], answer: Mapping[str, Any], calls: Calls, path: str) -> None:
    """Add what the API answered.

    Args:
        messages: The conversation before it.
        answer: The answer, with its items in `output`.
        calls: The calls before it.
        path: Where it stands; empty for the row itself.

    Raises:
        LeftOut: It was cut off, or failed.
        ConvertError: It has not come yet, or an item is not one of the table.
    """
    path = f"{path}." if path else ""
    status = answer.get("status")
    if status == "incomplete":
        raise LeftOut("an answer that was cut off", path=f"{path}status", rule="answer-cut")
    if status in ("failed", "cancelled") or answer.get("error"):
        raise LeftOut("not a success", path=f"{path}status", rule="failed-request")
    if not answer.get("output"):
        raise ConvertError("no answer was logged", path=f"{path}output", rule="no-answer")
    before = len(messages)
    add_items(messages, answer["output"], calls, f"{path}output")
    if len(messages) == before:
        fact = "nothing but reasoning that cannot be read"
        raise ConvertError(fact, path=f"{path}output", rule="no-answer")


def read_request(
    request: Mapping[str, Any], calls: Calls, path: str, roles: Mapping[str, str] = {}
) -> list[Message]:
    """Return the conversation of a request.

    Args:
        request: What is sent to the API.
        calls: Where its calls are remembered.
        path: Where it stands, with a dot at its end; empty for the row itself.
        roles: What the rows call their roles → our roles.

    Raises:
        ConvertError: An item is not one of the table, or a part of the request is not there.
    """
    for key in _OTHER_PLACES:
        if request.get(key):
            fact = "what was sent stands elsewhere in part"
            raise ConvertError(fact, path=f"{path}{key}", rule="no-request")
    messages: list[Message] = []
    said = request.get("instructions")
    if isinstance(said, list):
        add_items(messages, said, calls, f"{path}instructions", roles)
    elif said := optional_text(dict(request), "instructions", path.removesuffix(".")):
        messages.append(SystemMessage(content=said))
    values = request["input"]
    if isinstance(values, str) and not values.lstrip().startswith("["):
        messages.append(UserMessage(content=values))
    else:
        add_items(messages, values, calls, f"{path}input", roles)
    return messages


def add_items(
    messages: list[Message],
    values: Any,
    calls: Calls,
    path: str,
    roles: Mapping[str, str] = {},
) -> None:
    """Add the messages that items make: reasoning, text and calls in a row are one answer.

    Args:
        messages: Where they are added.
        values: The list, or its JSON text.
        calls: The calls before them.
        path: Where the list stands, for errors.
        roles: What the rows call their roles → our roles.

    Raises:
        LeftOut: An item was cut off.
        ConvertError: One is not an item of the table.
    """
    made: list[Message] = []
    for place, item in objects_in(values, path):
        if item.get("status") == "incomplete":
            raise LeftOut("an answer that was cut off", path=f"{place}.status", rule="answer-cut")
        kind = "message" if item.get("type") is None else text_at(item, "type", place)
        if kind == "message":
            _add_message(made, item, place, roles)
        elif kind == "function_call":
            answer = _open(made, behind_text=True, behind_calls=True)
            old = text_at(item, "call_id", place)
            call = calls.call(text_at(item, "name", place), item.get("arguments"), old)
            answer.tool_calls = [*(answer.tool_calls or []), call]
        elif kind == "function_call_output":
            answered = calls.answer(text_at(item, "call_id", place), place)
            content = read_content(item.get("output"), "tool", f"{place}.output")
            made.append(ToolMessage(content=content, tool_call_id=answered))
        elif kind == "reasoning":
            if texts := _reasoning(item, place):
                answer = _open(made)
                answer.content = [*_chunks(answer), ThinkChunk(thinking=texts)]
        elif kind in _ELSEWHERE:
            fact = "what was sent stands elsewhere in part"
            raise ConvertError(fact, path=f"{place}.type", rule="no-request")
        else:
            fact = "a kind of item that a record does not have"
            raise ConvertError(fact, path=f"{place}.type", rule="value")
    messages += made


def _add_message(
    made: list[Message], item: dict[str, Any], path: str, roles: Mapping[str, str]
) -> None:
    name = text_at(item, "role", path)
    role = roles.get(name) or ROLES.get(name)
    if role not in {"user", "system", "assistant"}:
        raise unknown_role(name, f"{path}.role")
    content = read_content(item.get("content"), role, f"{path}.content")
    if role == "assistant":
        answer = _open(made)
        before = _chunks(answer)
        after = content if isinstance(content, list) else [TextChunk(text=content)]
        answer.content = [*before, *after] if before else content
    else:
        kind: Any = UserMessage if role == "user" else SystemMessage
        made.append(kind(content=content))


def _open(
    made: list[Message], *, behind_text: bool = False, behind_calls: bool = False
) -> AssistantMessage:
    """Return the answer that an item belongs to: the last one where it may follow, else a new."""
    last = made[-1] if made else None
    if isinstance(last, AssistantMessage):
        thought = all(isinstance(chunk, ThinkChunk) for chunk in _chunks(last))
        if (behind_text or thought) and (behind_calls or not last.tool_calls):
            return last
    answer = AssistantMessage()
    made.append(answer)
    return answer


def _chunks(answer: AssistantMessage) -> list[Any]:
    if answer.content is UNSET:
        return []
    content = answer.content
    return content if isinstance(content, list) else [TextChunk(text=content)]


def _reasoning(item: dict[str, Any], path: str) -> list[TextChunk]:
    """Return the texts of a reasoning item; its summary is about them, and none of them."""
    parts = objects_in(item.get("content") or [], f"{path}.content")
    texts = [text_at(part, "text", place) for place, part in parts]
    return [TextChunk(text=text) for text in texts if text]


def unused(request: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is not used of a request or an answer: reasoning that cannot be read."""
    for key in ("input", "output"):
        items = request.get(key)
        for item in items if isinstance(items, list) else ():
            if item.get("type") == "reasoning" and not _reasoning(item, key):
                yield f"{key}[].reasoning"
