r"""Request logs: what was sent to a chat API and what it answered.

| row                                                      | record |
|----------------------------------------------------------|--------|
| `{"request": {"messages"}, "response": {"choices"}}`     | the messages and the answer |
| `body` around either; `messages` beside `choices`        | the same |
| several choices                                          | a record each |
| OpenAI batch: `{"custom_id", "body", "response": {"status_code": 200, "body"}}` | the same |
| OpenAI batch, output alone: requests are in another file | the row is rejected: `no-request` |
| Anthropic: `{"request": {"system", "messages"}, "response": {"content": […]}}` | the same |
| LiteLLM: `{"messages", "response", "proxy_server_request"}`, also as JSON texts | the same |
| OpenRouter: `{"data": {"input", "output"}}`              | the same, `reasoning` as a chunk |
| OpenAI's Responses: `{"request": {"input"}, "response": {"output": […]}}` | items: see there |
| messages of either API in either kind of log             | read as what they are |
| an error, a status that is none of success, a refused batch line | left out: `failed-request` |
| an answer stopped by its length or a filter              | left out: `answer-cut` |
| no answer                                                | the row is rejected: `no-answer` |
| contents that were not logged (LiteLLM's `{}`)           | the row is rejected: `no-request` |
| the chunks of a stream                                   | the row is rejected: `streamed` |
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from finetune.converters import anthropic, openai, responses
from finetune.converters.calls import (
    Calls,
    functions_of,
    read_tools,
    server_tools,
    tools_or_unset,
)
from finetune.converters.reading import (
    ConvertError,
    Detection,
    LeftOut,
    as_object,
    check_end,
    decoded,
)
from finetune.records import ChatRecord, Message, Record, Tool, UserMessage

FIELDS = ()

_REQUESTS = ("request", "body", "input", "params", "proxy_server_request", "kwargs")
_RESPONSES = ("response", "output", "completion", "result")
_GOOD = {"success", "succeeded", "completed", "complete", "ok", "200", "201"}
_CHUNKS = ("chat.completion.chunk", "message_start", "content_block_delta", "text_completion.chunk")


def recognise(rows: Sequence[Any], columns: Mapping[str, str]) -> Detection | None:
    """Return how `rows` are read, when they are logged requests."""
    signs = [sign for row in rows if (sign := _sign(row))]
    if columns or not signs or 2 * len(signs) < len(rows):
        return None
    return Detection("logs", "chat", {}, signs[0])


def _sign(row: Any) -> str | None:
    if not isinstance(row, dict):
        return None
    row = _opened(row)
    if row.get("object") in _CHUNKS or responses.is_event(row):
        return "chunks of a stream"
    choices = row.get("choices")
    if isinstance(choices, list) and any(isinstance(choice, dict) for choice in choices):
        return "`choices`"
    if "custom_id" in row and ("response" in row or "body" in row):
        return "`custom_id`, as in a batch"
    for answer in ("response", "output"):
        for request in ("request", "messages", "input", "proxy_server_request"):
            if answer in row and _is_request(row.get(request), request):
                return f"`{request}` and `{answer}`"
    return "an answer of the Responses API" if any(map(responses.is_answer, _parts(row))) else None


def _parts(row: dict[str, Any]) -> Iterator[Any]:
    """Yield where an answer of the Responses API may stand: the row, its parts, their bodies."""
    yield row
    for key in _RESPONSES:
        part = _decoded(row.get(key))
        yield part
        yield _object(part).get("body")


def _is_request(value: Any, key: str) -> bool:
    value = _decoded(value)
    if isinstance(value, list):
        return any(isinstance(item, dict) and "role" in item for item in value)
    keys = {"messages", "prompt", "body"} | ({"input"} if key != "input" else set())
    return isinstance(value, dict) and (not value or not keys.isdisjoint(value))


def _opened(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row in OpenRouter's envelope, or the row itself."""
    data = row.get("data")
    return data if isinstance(data, dict) and "output" in data else row


def convert(value: Any, source: Detection) -> list[Record]:
    """Return the conversation of one row, once for each answer.

    Raises:
        LeftOut: The request failed, or its answer was cut off.
        ConvertError: Request or answer are not there, or not as one of the table.
    """
    row = _opened(as_object(value))
    _check_success(row)
    request, path = _request(row)
    answers, place = _answers(row)
    if responses.is_answer(answers[0]):
        request = responses.add_echo(request, answers[0])
    messages, calls, tools = _read_request(request, source, path)
    records: list[Record] = []
    for number, answer in enumerate(answers):
        whole, after = messages, calls
        if len(answers) > 1:  # each record has messages of its own: later steps change them
            whole, after = copy.deepcopy((messages, calls))
        if responses.is_answer(answer):
            responses.add_answer(whole, answer, after, place)
        else:
            _add_answer(whole, answer, after, f"{place}[{number}]")
        records.append(ChatRecord(messages=whole, tools=tools_or_unset(list(tools))))
    return records


def unused(row: dict[str, Any], _source: Detection) -> Iterator[str]:
    """Yield what is not used of the items of a row, once each."""
    row = _opened(row)
    request, _ = _request(row)
    answers = [answer for answer in _answers(row)[0] if responses.is_answer(answer)]
    parts = (request, *answers) if request["input"] else ()
    tools = [
        name for part in (request, *answers) for name in server_tools(part.get("tools"), "tools")
    ]
    yield from sorted({*tools, *(name for part in parts for name in responses.unused(part))})


def _check_success(row: dict[str, Any]) -> None:
    response = _object(row.get("response"))
    for part in (row, response):
        for key in ("error", "error_str", "error_information"):
            error = part.get(key)
            if error and (not isinstance(error, dict) or any(error.values())):
                raise LeftOut("an error was logged", path=key, rule="failed-request")
        for key in ("status", "status_code", "statusCode"):
            if part.get(key) == "incomplete":
                raise LeftOut("an answer that was cut off", path=key, rule="answer-cut")
            if part.get(key) is not None and str(part[key]).lower() not in _GOOD:
                raise LeftOut("not a success", path=key, rule="failed-request")
    if response.get("type") == "error":
        raise LeftOut("an error was logged", path="response.type", rule="failed-request")


def _object(value: Any) -> dict[str, Any]:
    """Return the object that a value or its JSON text is; an empty one where it is none."""
    found = _decoded(value)
    return found if isinstance(found, dict) else {}


def _decoded(value: Any) -> Any:
    """Return what a JSON text holds; anything else as it is."""
    try:
        return decoded(value, "", "type")
    except ConvertError:
        return value


def _request(row: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Return what was sent, and its path with a dot at the end."""
    found: dict[str, Any] = {}
    path = ""
    for key in _REQUESTS:
        request = _object(row.get(key))
        inner = _object(request.get("body"))
        if request or inner:
            found, path = {**found, **request, **inner}, path or f"{key}."
    messages = _decoded(row.get("messages"))
    if isinstance(messages, str) and messages:
        found["input"] = messages  # a text that LiteLLM sent to the Responses API
    if isinstance(messages, list) and messages:
        found, path = {**found, **row, "messages": messages}, ""
    elif isinstance(messages, dict):
        found |= messages
    elif not found.get("messages") and _sent(row):
        found, path = {**found, **row}, ""
    if "tools" not in found:
        found |= {"tools": _object(row.get("model_parameters")).get("tools")}
    if sent := _sent(found):
        return {**found, "messages": None, "input": sent}, path
    stored = isinstance(found.get("prompt"), dict)  # a name of one: its text stands elsewhere
    if not found.get("messages") and (stored or not found.get("prompt")):
        fact = "no messages that were sent"
        raise ConvertError(fact, path=path.removesuffix(".") or None, rule="no-request")
    return {**found, "input": None}, path


def _sent(request: Mapping[str, Any]) -> Any:
    """Return what was sent to the Responses API, None where it was another one."""
    messages = request.get("messages")
    if messages:
        return messages if responses.is_items(messages) else None
    value = _decoded(request.get("input"))
    return value if isinstance(value, str | list) and value else None


def _answers(row: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """Return the messages that came back, whole ones, and their path."""
    if "choices" in row:
        return _choices(row["choices"]), "choices"
    for key in _RESPONSES:
        if not row.get(key):
            continue
        response = row[key]
        if isinstance(response, str) and response.lstrip().startswith(("data:", "event:")):
            raise ConvertError("the chunks of a stream", path=key, rule="streamed")
        if isinstance(response, str) and response.lstrip()[:1] not in {"{", "["}:
            return [{"role": "assistant", "content": response}], key
        response = decoded(response, key, "type")
        if isinstance(response, list):
            _check_chunks(response, key)
        if responses.is_items(response):
            return [{**row, "output": response}], ""
        response = as_object(response, key)
        inner = response.get("body", response.get("message", response))
        if inner is not response:
            response = as_object(decoded(inner, key, "type"), key)
        return _whole(response, key), key
    raise ConvertError("no answer was logged", rule="no-answer")


def _check_chunks(values: list[Any], path: str) -> None:
    for value in values:
        if responses.is_event(value) or (
            isinstance(value, dict) and (value.get("object") or value.get("type")) in _CHUNKS
        ):
            raise ConvertError("the chunks of a stream", path=path, rule="streamed")


def _whole(response: dict[str, Any], path: str) -> list[dict[str, Any]]:
    _check_chunks([response], path)
    if "choices" in response:
        return _choices(response["choices"])
    if responses.is_answer(response):
        return [response]
    if isinstance(response.get("completion"), str):
        return [
            {
                "role": "assistant",
                "content": response["completion"],
                "reasoning": response.get("reasoning"),
            }
        ]
    if response.get("role") != "assistant":
        raise ConvertError("no answer in a known form", path=path, rule="no-answer")
    check_end(response.get("stop_reason"), path)
    return [response]


def _choices(values: Any) -> list[dict[str, Any]]:
    answers = []
    for number, item in enumerate(values if isinstance(values, list) else ()):
        path = f"choices[{number}]"
        choice = as_object(item, path)
        if "delta" in choice and "message" not in choice:
            raise ConvertError("the chunks of a stream", path=path, rule="streamed")
        check_end(choice.get("finish_reason"), path)
        answers.append(as_object(choice.get("message"), f"{path}.message"))
    if not answers:
        raise ConvertError("no choices", path="choices", rule="no-answer")
    return answers


def _read_request(
    request: dict[str, Any], source: Detection, path: str
) -> tuple[list[Message], Calls, list[Tool]]:
    declared = functions_of(request.get("tools") or request.get("functions"), f"{path}tools")
    tools = read_tools(declared, f"{path}tools")
    if request.get("input"):
        calls = Calls()
        return responses.read_request(request, calls, path, source.roles), calls, tools
    if not request.get("messages"):
        prompt = request["prompt"]
        if isinstance(prompt, str):
            return [UserMessage(content=prompt)], Calls(), tools
        request = {**request, "messages": prompt}
    if request.get("system") or anthropic.recognise([request], {}):
        messages, calls = anthropic.read_request(request, source, path)
        return messages, calls, tools
    messages, calls = [], Calls()
    openai.add_messages(messages, request["messages"], calls, f"{path}messages", source.roles)
    return messages, calls, tools


def _add_answer(messages: list[Message], answer: dict[str, Any], calls: Calls, path: str) -> None:
    blocks = answer["content"] if isinstance(answer.get("content"), list) else []
    used = any(isinstance(block, dict) and block.get("type") == "tool_use" for block in blocks)
    if used or answer.get("type") == "message":
        anthropic.add_answer(messages, answer, calls, path)
    else:
        messages.append(openai.read_answer(answer, calls, path))
