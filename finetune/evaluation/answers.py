"""Answers: what a model said, and what the data say it should have said. No models, no I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from finetune.checks.parameters import explain_mismatch
from finetune.records import AssistantMessage, Message, SystemMessage, Tools, text_of

_MOST_BRACES = 64  # places of a system prompt that are tried as the start of a schema


class Call(NamedTuple):
    """A tool call without its id, which is chance.

    Attributes:
        name: The function.
        arguments: As an object, or as written where that is no JSON.
    """

    name: str
    arguments: Any


class Answer(NamedTuple):
    """What a model said.

    Attributes:
        text: Its text, or its calls as a JSON list.
        calls: Its tool calls.
    """

    text: str
    calls: tuple[Call, ...] = ()


class Reference(NamedTuple):
    """What should have been said.

    Attributes:
        answer: The record's own answer.
        schema: The JSON Schema in the system prompt that this answer follows, if there is one.
        tools: The parameters of each declared function by its name.
    """

    answer: Answer
    schema: dict[str, Any] | None = None
    tools: Mapping[str, dict[str, Any]] = {}


def read_answer(message: AssistantMessage) -> Answer:
    """Return what a message answers. Text beside calls is left out."""
    if not message.tool_calls:
        return Answer(text_of(message.content))
    calls = tuple(
        Call(call.function.name, _arguments(call.function.arguments)) for call in message.tool_calls
    )
    return Answer(msgspec.json.encode([call._asdict() for call in calls]).decode(), calls)


def read_reference(
    message: AssistantMessage, before: Sequence[Message] = (), tools: Tools = msgspec.UNSET
) -> Reference:
    """Return what an answer is measured against.

    Args:
        message: The record's own answer.
        before: The messages before it.
        tools: The record's tools.
    """
    answer = read_answer(message)
    declared = {tool.function.name: tool.function.parameters for tool in tools or ()}
    return Reference(answer, _find_schema(answer, before), declared)


def read_structure(text: str) -> dict[str, Any] | list[Any] | None:
    """Return a text's JSON object or list, None where it is no such thing.

    A bare number, word or `null` is JSON by the letter, but nobody's JSON answer.
    """
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None


def _find_schema(answer: Answer, before: Sequence[Message]) -> dict[str, Any] | None:
    """Return the schema in a system prompt, if the record's own answer follows it."""
    value = None if answer.calls else read_structure(answer.text)
    if value is None:
        return None
    for message in before:
        text = text_of(message.content) if isinstance(message, SystemMessage) else ""
        for schema in _find_objects(text):
            known = "$schema" in schema or {"type", "properties"} <= schema.keys()
            if (known or {"type", "items"} <= schema.keys()) and fits(value, schema):
                return schema
    return None


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """Return whether a value follows a schema, as far as `checks.parameters` looks at it."""
    return explain_mismatch(value, schema) is None


def _find_objects(text: str) -> list[dict[str, Any]]:
    """Return the outermost JSON objects in a text."""
    decoder, found, place = json.JSONDecoder(), [], text.find("{")
    for _ in range(_MOST_BRACES):
        if place < 0:
            break
        try:
            value, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            end = place + 1
        else:
            found.append(value)
        place = text.find("{", end)
    return found


def _arguments(value: str | dict[str, Any]) -> Any:
    if isinstance(value, dict):
        return value
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return value
