"""MEASURES: what an answer is worth beside the reference. Pure functions, no models, no I/O.

| measure        | asks                                          | applies where              |
|----------------|-----------------------------------------------|----------------------------|
| exact_match    | is it the reference (as JSON where both are)? | everywhere                 |
| json_valid     | is it one JSON object or list?                | the reference is one       |
| field_accuracy | which share of the fields is right?           | the reference is an object |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from finetune.records import AssistantMessage, text_of

_ABSENT = object()


def exact_match(prediction: str, reference: str) -> float:
    """Return 1 where the answer is the reference, else 0.

    Space around the text does not count; where both are JSON, neither do spaces and the order of
    keys in it.

    Example:
        >>> exact_match('{"b":2, "a":1}', '{"a": 1, "b": 2}')
        1.0
    """
    if prediction.strip() == reference.strip():
        return 1.0
    wanted, got = _structure(reference), _structure(prediction)
    return float(wanted is not None and _same(got, wanted))


def json_valid(prediction: str, reference: str) -> float | None:
    """Return 1 where the answer is a JSON object or list, else 0; None where none was wanted.

    Example:
        >>> json_valid('{"a": 1', '{"a": 1}')
        0.0
    """
    if _structure(reference) is None:
        return None
    return float(_structure(prediction) is not None)


def field_accuracy(prediction: str, reference: str) -> float | None:
    """Return the share of fields that are right, of those in either object; None without one.

    Counting the fields of both, so that invented ones cost as much as missing ones.

    Example:
        >>> field_accuracy('{"a": 1, "b": 3}', '{"a": 1, "b": 2}')
        0.5
    """
    wanted, got = _structure(reference), _structure(prediction)
    if not isinstance(wanted, dict) or not wanted:
        return None
    if not isinstance(got, dict):
        return 0.0
    keys = wanted.keys() | got.keys()
    right = sum(_same(got.get(key, _ABSENT), wanted.get(key, _ABSENT)) for key in keys)
    return right / len(keys)


MEASURES: dict[str, Callable[[str, str], float | None]] = {
    "exact_match": exact_match,
    "json_valid": json_valid,
    "field_accuracy": field_accuracy,
}


def compare(prediction: str, reference: str) -> dict[str, float]:
    """Return every measure that applies."""
    values = {name: measure(prediction, reference) for name, measure in MEASURES.items()}
    return {name: value for name, value in values.items() if value is not None}


def answer_text(message: AssistantMessage) -> str:
    """Return what a message answers: its text, or its tool calls as a JSON list.

    The ids of calls are left out: they are chance. Text beside calls is left out too.
    """
    if not message.tool_calls:
        return text_of(message.content)
    calls = [
        {"name": call.function.name, "arguments": _arguments(call.function.arguments)}
        for call in message.tool_calls
    ]
    return msgspec.json.encode(calls).decode()


def _arguments(value: str | dict[str, Any]) -> Any:
    if isinstance(value, dict):
        return value
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError:
        return value


def _structure(text: str) -> dict[str, Any] | list[Any] | None:
    # A bare number, word or `null` is JSON by the letter, but nobody's JSON answer.
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: `true` is not 1, but 1 is 1.0."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)
