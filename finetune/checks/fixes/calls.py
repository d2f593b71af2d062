"""Repairs of tool calls."""

from __future__ import annotations

import hashlib
import json
import re
import string
from typing import Any

import msgspec

from finetune.checks.fixes.walk import Value, calls_of, messages_of, talks_of

_ALPHABET = string.ascii_letters + string.digits
_ID_LENGTH = 9
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_CLOSING = {"{": "}", "[": "]"}
INFERRED = "Inferred from its calls."  # the description that marks a tool declared by a fix


def _is_id(name: Any) -> bool:
    return isinstance(name, str) and len(name) == _ID_LENGTH and all(c in _ALPHABET for c in name)


def _make_id(seed: str, taken: set[str]) -> str:
    """Return 9 letters and digits that follow from `seed`, and are not yet `taken`."""
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest())
    text = "".join(_ALPHABET[number // 62**place % 62] for place in range(_ID_LENGTH))
    return text if text not in taken else _make_id(f"{seed}+", taken)


def rewrite_call_ids(value: Value) -> None:
    """Give calls and their results ids of 9 letters and digits."""
    # The parts of a record that make one conversation share their ids.
    whole = list(messages_of(value))
    names = [call.get("id") for message in whole for call in calls_of(message)]
    taken: set[str] = {name for name in names if isinstance(name, str) and _is_id(name)}
    new: dict[str, str] = {}
    unanswered: list[str] = []
    number = 0
    for message in whole:
        for call in calls_of(message):
            number += 1
            name = call.get("id")
            if name is None or name in ("", "null"):
                call["id"] = _make_id(f"call {number}", taken)
            elif isinstance(name, str) and not _is_id(name):
                call["id"] = new.setdefault(name, _make_id(name, taken | set(new.values())))
            taken.add(call["id"] if isinstance(call["id"], str) else "")
            unanswered.append(call["id"])
        if message.get("role") == "tool":
            _answer(message, new, unanswered, taken)


def _answer(message: Value, new: dict[str, str], unanswered: list[str], taken: set[str]) -> None:
    """Give a result the id of its call; one without any id answers the first open call."""
    name = message.get("tool_call_id")
    if name is None or name in ("", "null"):
        if unanswered:
            message["tool_call_id"] = unanswered[0]
    elif isinstance(name, str) and not _is_id(name):
        message["tool_call_id"] = new.get(name) or _make_id(name, taken)
    if message.get("tool_call_id") in unanswered:
        unanswered.remove(message["tool_call_id"])


def drop_empty_content(value: Value) -> None:
    """Leave out empty content beside calls, and empty calls beside content."""
    for message in messages_of(value):
        content, calls = message.get("content"), message.get("tool_calls")
        if calls and "content" in message and not content:
            del message["content"]
        elif content and "tool_calls" in message and not calls:
            del message["tool_calls"]


def arguments_text(value: Value) -> None:
    """Write arguments as JSON text; open those that were encoded twice."""
    for message in messages_of(value):
        for call in calls_of(message):
            function = _function(call)
            arguments = function.get("arguments")
            if isinstance(arguments, dict):
                function["arguments"] = json.dumps(arguments, ensure_ascii=False)
            elif "arguments" in function and (arguments is None or arguments == ""):
                function["arguments"] = "{}"
            elif isinstance(arguments, str) and arguments.lstrip().startswith('"'):
                inner = _parse(arguments)
                if _object(inner) is not None:
                    function["arguments"] = inner


def drop_call_content(value: Value) -> None:
    """Leave out the content of messages that call tools."""
    for message in messages_of(value):
        if calls_of(message) and message.get("content"):
            del message["content"]


def split_call_content(value: Value) -> None:
    """Give the content of a message that calls tools a message of its own, before it."""
    for messages in talks_of(value):
        for index in reversed(range(len(messages))):
            message = messages[index]
            if isinstance(message, dict) and calls_of(message) and message.get("content"):
                kept = {key: part for key, part in message.items() if key != "tool_calls"}
                messages.insert(index, kept)
                del message["content"]


def declare_tools(value: Value) -> None:
    """Declare the tools that are called but not declared, as far as their calls show them."""
    tools = value.get("tools", [])
    if "labels" in value or not isinstance(tools, list):
        return
    known = {name for tool in tools if isinstance(name := _function(tool).get("name"), str)}
    seen: dict[str, dict[str, set[str]]] = {}
    for message in messages_of(value):
        for call in calls_of(message):
            function = _function(call)
            name, arguments = function.get("name"), _object(function.get("arguments"))
            if isinstance(name, str) and name not in known and arguments is not None:
                types = seen.setdefault(name, {})
                for key, argument in arguments.items():
                    types.setdefault(key, set()).add(_type_name(argument))
    if seen:
        value["tools"] = [*tools, *(_declare(name, types) for name, types in seen.items())]


def _function(item: Any) -> dict[str, Any]:
    function = item.get("function") if isinstance(item, dict) else None
    return function if isinstance(function, dict) else {}


def _object(arguments: Any) -> dict[str, Any] | None:
    value = _parse(arguments) if isinstance(arguments, str) else arguments
    return value if isinstance(value, dict) else None


def _type_name(value: Any) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer"}
    return names.get(type(value), "null" if value is None else "number")


def _declare(name: str, types: dict[str, set[str]]) -> dict[str, Any]:
    properties = {
        key: {"type": min(found) if len(found) == 1 else sorted(found)}
        for key, found in types.items()
    }
    function = {
        "name": name,
        "description": INFERRED,
        "parameters": {"type": "object", "properties": properties},
    }
    return {"type": "function", "function": function}


def close_json(value: Value) -> None:
    """Close the brackets of arguments that lack nothing else.

    Done only where the text breaks off after a whole value, and what comes out has every key that
    the tool requires: a number or a word may have been cut, and more keys may have followed.
    """
    tools = value.get("tools")
    required = {
        str(_function(tool).get("name")): _function(tool).get("parameters", {})
        for tool in (tools if isinstance(tools, list) else [])
    }
    for message in messages_of(value):
        for call in calls_of(message):
            function = _function(call)
            parameters, arguments = (
                required.get(str(function.get("name"))),
                function.get("arguments"),
            )
            if isinstance(parameters, dict) and isinstance(arguments, str):
                closed = _close(arguments)
                needed = parameters.get("required", [])
                made = _object(closed)
                if (
                    made is not None
                    and isinstance(needed, list)
                    and all(k in [*made] for k in needed)
                ):
                    function["arguments"] = closed


def _close(text: str) -> str | None:
    """Return the text with the brackets that are missing at its end, None where that is not all."""
    if not text.startswith("{") or not text.endswith(('"', "}", "]", "true", "false", "null")):
        return None
    rest = _STRING.sub("", text)
    if '"' in rest:
        return None
    open_brackets: list[str] = []
    for sign in rest:
        if sign in _CLOSING:
            open_brackets.append(_CLOSING[sign])
        elif sign in "}]" and (not open_brackets or open_brackets.pop() != sign):
            return None
    return text + "".join(reversed(open_brackets)) if open_brackets else None


def _parse(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return None
