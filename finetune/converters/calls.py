"""Tool calls in foreign rows: their ids, their arguments, the tools they need."""

from __future__ import annotations

import hashlib
import math
import re
import string
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import UNSET

from finetune.converters.reading import (
    ConvertError,
    as_object,
    decoded,
    optional_text,
    text_at,
    type_name,
)
from finetune.records import Function, FunctionCall, Tool, ToolCall

_ALPHABET = string.ascii_letters + string.digits
_GOOD_ID = re.compile(r"[A-Za-z0-9]{9}")
_DECLARATION = ("function", "parameters", "input_schema")
_NO_PARAMETERS = {"type": "object", "properties": {}}


class Calls:
    """The tool calls of one row, so that calls and results keep the same ids.

    Mistral's ids are 9 letters and digits. One that fits is kept; any other becomes 9 characters
    of its hash, so that a rerun gives the same bytes. Calls without an id get one from their
    position. A result without one answers the oldest open call, of its name where it has one.
    """

    def __init__(self) -> None:
        self._ids: dict[str | int, str] = {}
        self._taken: set[str] = set()
        self._open: dict[str, str] = {}  # id → name, the oldest first

    def call(self, name: str, arguments: Any, old: str | None = None) -> ToolCall:
        """Return a call and remember that it waits for a result."""
        new = self._new_id(old if old and old != "null" else len(self._ids) + 1)
        self._open[new] = name
        return ToolCall(
            id=new, function=FunctionCall(name=name, arguments=arguments_text(arguments))
        )

    def answer(self, old: str | None, path: str, name: str | None = None) -> str:
        """Return the id of the call that a result belongs to.

        Raises:
            ConvertError: It names none, and no call (of its name) is open.
        """
        if old and old != "null":
            new = self._new_id(old)
        else:
            fitting = (one for one, called in self._open.items() if name in (None, called))
            found = next(fitting, None)
            if found is None:
                raise ConvertError(
                    "a tool result without a call before it", path=path, rule="result-without-call"
                )
            new = found
        self._open.pop(new, None)
        return new

    def _new_id(self, old: str | int) -> str:
        if old not in self._ids:
            text = f"call {old}" if isinstance(old, int) else old
            new, salt = text, 0
            while not _GOOD_ID.fullmatch(new) or new in self._taken:
                new = _hashed_id(f"{text}\n{salt}")
                salt += 1
            self._ids[old] = new
            self._taken.add(new)
        return self._ids[old]


def _hashed_id(text: str) -> str:
    number = int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "big")
    digits = []
    for _ in range(9):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(digits)


def arguments_text(arguments: Any) -> str:
    """Return a call's arguments as the JSON text that La Plateforme shows.

    An object is written as JSON, nothing is `{}`, and a JSON text that was encoded twice is
    opened. A text that is not JSON stays as it is: that is for the rules to judge.

    Raises:
        ConvertError: A number is not finite, or a text not Unicode.
    """
    if arguments in (None, "", "null"):
        return "{}"
    if not isinstance(arguments, str):
        try:
            data = msgspec.json.encode(arguments)
        except UnicodeEncodeError:
            fact = "half of a surrogate pair in a call's arguments"
            raise ConvertError(fact, rule="surrogate") from None
        if b"null" in data and _has_nan(arguments):  # msgspec writes NaN as null
            raise ConvertError("NaN or Infinity in a call's arguments", rule="nan")
        return data.decode()
    text = arguments
    while text.startswith('"'):
        try:
            text = msgspec.json.decode(text)
            msgspec.json.decode(text)
        except (msgspec.DecodeError, TypeError, RecursionError):
            return arguments
    return text


def _has_nan(value: Any) -> bool:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict | list):
            stack += item.values() if isinstance(item, dict) else item
        elif isinstance(item, float) and not math.isfinite(item):
            return True
    return False


def read_calls(value: Any, calls: Calls, path: str) -> list[ToolCall]:
    """Return the calls of a JSON text, object or list: `{"name", "arguments"}` each.

    Raises:
        ConvertError: They are something else.
    """
    value = decoded(value, path, "call-text")
    found = []
    for item in value if isinstance(value, list) else [value]:
        call = as_object(item, path)
        call = as_object(call.get("function", call), path)
        found.append(calls.call(text_at(call, "name", path), call.get("arguments")))
    return found


def read_tools(value: Any, path: str) -> list[Tool]:
    """Return the tools that a row declares.

    They are in OpenAI's, the bare or Anthropic's form (`input_schema`), or a JSON text of these.

    Raises:
        ConvertError: They are something else.
    """
    value = decoded(value or [], path, "tools-text")
    if not isinstance(value, list):
        raise ConvertError(
            f"expected a list of tools, got {type_name(value)}", path=path, rule="type"
        )
    return [_read_tool(tool, f"{path}[{number}]") for number, tool in enumerate(value)]


def _read_tool(value: Any, path: str) -> Tool:
    tool = as_object(decoded(value, path, "tools-text"), path)
    if "function" in tool:
        tool, path = as_object(tool["function"], f"{path}.function"), f"{path}.function"
    key = "input_schema" if "input_schema" in tool else "parameters"
    return Tool(
        function=Function(
            name=text_at(tool, "name", path),
            description=optional_text(tool, "description", path),
            parameters=as_object(tool[key], f"{path}.{key}") if tool.get(key) else _NO_PARAMETERS,
            strict=tool.get("strict") is True,
        )
    )


def functions_of(tools: Any, path: str) -> Any:
    """Return declared tools without those that the server runs, which no record can hold.

    Raises:
        ConvertError: They are a text that is not JSON.
    """
    tools = decoded(tools, path, "tools-text")
    if not isinstance(tools, list):
        return tools
    return [tool for tool in tools if not _of_server(tool)]


def server_tools(tools: Any, path: str) -> Iterator[str]:
    """Yield what `functions_of` leaves out, such as `tools[].web_search`."""
    tools = decoded(tools, path, "tools-text")
    kinds = map(_of_server, tools) if isinstance(tools, list) else ()
    yield from sorted({f"{path}[].{kind}" for kind in kinds if kind})


def _of_server(tool: Any) -> str | None:
    """Return what kind of the server's tool it is, None where it is a function."""
    kind = tool.get("type") if isinstance(tool, dict) else None
    declared = isinstance(kind, str) and tool.keys().isdisjoint(_DECLARATION)
    return kind if declared and kind != "function" else None


def tools_or_unset(tools: list[Tool]) -> Any:
    """Return `tools`, or UNSET where there are none."""
    return tools or UNSET
