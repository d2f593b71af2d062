"""One line as JSON: what is wrong with it before it is a record.

Fast parsers stop at the first fault and pass over some (duplicate keys, huge numbers). Lines that
they took are only counted here; those they refused are read again, slowly, to say why.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from finetune.checks.report import Fault
from finetune.files import MAX_LINE_BYTES
from finetune.records import AssistantMessage, ChatRecord, Message, Record
from finetune.text import size

MAX_DEPTH = 64  # of a free value, such as a tool's parameters; records themselves add seven
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"?', re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")
_WORDS = {
    "Expecting value": "a value is expected",
    "Expecting property name enclosed in double quotes": "a key in double quotes is expected",
    "Expecting ':' delimiter": "`:` is expected",
    "Expecting ',' delimiter": "`,` is expected",
    "Unterminated string starting at": "a text is not closed",
    "Invalid control character at": "a control character stands unescaped in a text",
    "Invalid \\escape": "an escape that JSON does not have",
    "Invalid \\uXXXX escape": "an escape that JSON does not have",
    "Extra data": "more than one value on the line",
}


class _Call(msgspec.Struct):
    id: msgspec.Raw | UnsetType = UNSET
    type: msgspec.Raw | UnsetType = UNSET
    function: dict[str, msgspec.Raw] | UnsetType = UNSET


class _Message(msgspec.Struct):
    role: msgspec.Raw
    content: msgspec.Raw | UnsetType = UNSET
    tool_calls: list[_Call] | UnsetType = UNSET
    weight: msgspec.Raw | UnsetType = UNSET
    tool_call_id: msgspec.Raw | UnsetType = UNSET
    name: msgspec.Raw | UnsetType = UNSET


class _Chat(msgspec.Struct):
    """The keys of a chat record's line, each with the bytes of its value."""

    messages: list[_Message]
    tools: msgspec.Raw | UnsetType = UNSET


_chat = msgspec.json.Decoder(_Chat).decode
_encode = msgspec.json.Encoder().encode
_SINGLE: set[bytes] = set()  # declarations of tools that have each key once
_MEMO_SIZE = 1024


def has_duplicate_keys(data: bytes, record: Record) -> bool:
    """Return whether a key stands twice in an object of a line that was decoded.

    A line whose keys are written anew, each once, has as many colons as before where none stood
    twice. Others are read again, slowly.

    Args:
        data: The line.
        record: What it was decoded to.
    """
    if isinstance(record, ChatRecord) and _is_single(data, record):
        return False
    # The texts too are written anew, so that an escape may hide a colon.
    anew = _encode(msgspec.json.decode(data))
    if data.count(b":") == anew.count(b":") and b"\\u003" not in data:
        return False
    return any(_duplicates(data))


def _is_single(data: bytes, record: ChatRecord) -> bool:
    """Return whether a conversation surely has each key once: values are kept as they are."""
    keys = _chat(data)
    if data.count(b":") != _encode(keys).count(b":"):
        return False
    if keys.tools is not UNSET:
        tools = bytes(keys.tools)
        if tools not in _SINGLE:
            if any(_duplicates(tools)):
                return False
            if len(_SINGLE) >= _MEMO_SIZE:
                _SINGLE.clear()
            _SINGLE.add(tools)
    return not any(map(_has_objects, record.messages))


def _has_objects(message: Message) -> bool:
    """Return whether a message holds objects beside its calls: chunks, or parsed arguments."""
    if isinstance(message.content, list):
        return True
    calls = message.tool_calls if type(message) is AssistantMessage else UNSET
    return calls is not UNSET and not all(type(c.function.arguments) is str for c in calls)


def _duplicates(data: bytes) -> Iterator[bool]:
    found: list[bool] = []

    def hook(pairs: list[tuple[str, Any]]) -> None:
        found.append(len({key for key, _ in pairs}) < len(pairs))

    json.loads(data, object_pairs_hook=hook)
    yield from found


def check_values(value: Any) -> list[Fault]:
    """Return the faults of a free JSON value: too deep, or numbers beyond 64 bits."""
    faults: dict[str, Fault] = {}
    stack = [(value, 1)]
    while stack:
        item, depth = stack.pop()
        if isinstance(item, dict | list):
            if depth > MAX_DEPTH:
                faults["too-deep"] = Fault("too-deep", "", f"deeper than {MAX_DEPTH} levels")
            else:
                children = item.values() if isinstance(item, dict) else item
                stack += [(child, depth + 1) for child in children]
        elif isinstance(item, float) and not math.isfinite(item):
            faults["number"] = Fault("number", "", "a number beyond any float")
        elif item.__class__ is int and not -(2**63) <= item < 2**64:
            faults["number"] = Fault("number", "", "a whole number beyond 64 bits")
    return list(faults.values())


def read_value(data: bytes | None) -> tuple[Any, list[Fault]]:
    """Return the value of a line and every fault of its JSON.

    The value is None where there is none; with faults it is the best reading of the line, for
    looking on, never for use.

    Args:
        data: The line without its end; None where it was too long to be kept.
    """
    if data is None or len(data) > MAX_LINE_BYTES:
        return None, [Fault("line-too-long", "", f"longer than {size(MAX_LINE_BYTES)}")]
    faults: list[Fault] = []
    if data.startswith(codecs.BOM_UTF8):
        faults.append(Fault("bom", "", "begins with a byte order mark"))
        data = data.removeprefix(codecs.BOM_UTF8)
    if not data.strip():
        return None, [*faults, Fault("blank-line", "", "nothing on the line")]
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        return None, [*faults, Fault("utf-8", "", f"not UTF-8 at byte {error.start + 1}")]
    if "\x00" in text:
        return None, [*faults, Fault("utf-8", "", f"a NUL at byte {data.index(0) + 1}")]
    if _depth(data) > MAX_DEPTH + 7:
        return None, [*faults, Fault("too-deep", "", f"deeper than {MAX_DEPTH} levels")]
    value, more = _parse(text)
    return value, faults + more


def _depth(data: bytes) -> int:
    depth = deepest = 0
    for byte in _STRINGS.sub(b"", data):
        if byte in b"{[":
            depth += 1
            deepest = max(depth, deepest)
        elif byte in b"}]":
            depth -= 1
    return deepest


def _parse(text: str) -> tuple[Any, list[Fault]]:  # noqa: C901 (the parser's five hooks)
    faults: dict[str, Fault] = {}

    def note(rule: str, message: str) -> None:
        faults.setdefault(rule, Fault(rule, "", message))

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(items)
        if len(value) < len(items):
            note("duplicate-key", "a key stands twice in one object")
        return value

    def constant(_: str) -> float:
        note("nan", "NaN or Infinity")
        return 0.0

    def integer(digits: str) -> int:
        if len(digits) > 20 or not -(2**63) <= int(digits) < 2**64:
            note("number", "a whole number beyond 64 bits")
            return 0
        return int(digits)

    def real(digits: str) -> float:
        value = float(digits)
        if not math.isfinite(value):
            note("number", "a number beyond any float")
            return 0.0
        return value

    try:
        value = json.loads(
            text,
            object_pairs_hook=pairs,
            parse_constant=constant,
            parse_int=integer,
            parse_float=real,
        )
    except json.JSONDecodeError as error:
        return None, [*faults.values(), _explain(error, len(text.rstrip()))]
    if any(_SURROGATE.search(part) for part in _texts(value)):
        note("surrogate", "half of a surrogate pair in a text")
    if not isinstance(value, dict):
        note("not-object", f"{name_of(value)} where an object is expected")
        value = None
    return value, list(faults.values())


def _explain(error: json.JSONDecodeError, length: int) -> Fault:
    fact = _WORDS.get(error.msg, "not JSON")
    if error.pos >= length and fact != _WORDS["Extra data"]:
        fact = "the line ends in the middle of a value"
    elif error.msg.startswith("Unterminated"):
        fact = "a text is not closed: the line may be cut off"
    return Fault("json", "", f"{fact}, at column {error.pos + 1}")


def _texts(value: Any) -> Iterator[str]:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            yield from item
            stack += item.values()
        elif isinstance(item, list):
            stack += item


def name_of(value: Any) -> str:
    """Return what kind of JSON value this is, in words."""
    names: dict[type, str] = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), "null")
