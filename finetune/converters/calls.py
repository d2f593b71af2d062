"""Tool calls in foreign rows: their ids, their arguments, the tools they need."""

from __future__ import annotations

import hashlib
import re
import string
from typing import Any

import msgspec
from msgspec import UNSET

from finetune.converters.reading import ConvertError, as_object, text_at, type_name
from finetune.records import Function, FunctionCall, Tool, ToolCall

_ALPHABET = string.ascii_letters + string.digits
_GOOD_ID = re.compile(r"[A-Za-z0-9]{9}")
_NO_PARAMETERS = {"type": "object", "properties": {}}


class Calls:
    """The tool calls of one row, so that calls and results keep the same ids.

    Mistral's ids are 9 letters and digits. One that fits is kept; any other becomes 9 characters
    of its hash, so that a rerun gives the same bytes. Calls without an id get one from their
    position, and results without one answer the oldest open call.
    """

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}
        self._made = 0
        self._open: list[str] = []

    def call(self, name: str, arguments: Any, old: str | None = None) -> ToolCall:
        """Return a call and remember that it waits for a result."""
        if old is None:
            self._made += 1
            old = f"call {self._made}"
        new = self._new_id(old)
        self._open.append(new)
        return ToolCall(
            id=new, function=FunctionCall(name=name, arguments=arguments_text(arguments))
        )

    def answer(self, old: str | None, path: str) -> str:
        """Return the id of the call that a result belongs to.

        Raises:
            ConvertError: It names none, and no call is open.
        """
        if old is not None:
            new = self._new_id(old)
        elif self._open:
            new = self._open[0]
        else:
            raise ConvertError(
                "a tool result without a call before it", path=path, rule="result-without-call"
            )
        if new in self._open:
            self._open.remove(new)
        return new

    def _new_id(self, old: str) -> str:
        if old not in self._ids:
            new, salt = old, 0
            while not _GOOD_ID.fullmatch(new) or new in self._ids.values():
                new = _hashed_id(f"{old}\n{salt}")
                salt += 1
            self._ids[old] = new
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
    opened once. A text that is not JSON stays as it is: that is for the rules to judge.
    """
    if arguments is None or arguments == "":
        return "{}"
    if not isinstance(arguments, str):
        return msgspec.json.encode(arguments).decode()
    if arguments.startswith('"'):
        try:
            inner = msgspec.json.decode(arguments)
            msgspec.json.decode(inner)
        except (msgspec.DecodeError, TypeError):
            return arguments
        return str(inner)
    return arguments


def read_tools(value: Any, path: str) -> list[Tool]:
    """Return the tools that a row declares, in OpenAI's or in the bare form, or as JSON text.

    Raises:
        ConvertError: They are something else.
    """
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value or "[]")
        except msgspec.DecodeError:
            raise ConvertError("not a JSON text", path=path, rule="tools-text") from None
    if not isinstance(value, list):
        raise ConvertError(
            f"expected a list of tools, got {type_name(value)}", path=path, rule="type"
        )
    return [_read_tool(tool, f"{path}[{number}]") for number, tool in enumerate(value)]


def _read_tool(value: Any, path: str) -> Tool:
    tool = as_object(value, path)
    if "function" in tool:
        tool, path = as_object(tool["function"], f"{path}.function"), f"{path}.function"
    parameters = tool.get("parameters")
    return Tool(
        function=Function(
            name=text_at(tool, "name", path),
            description=text_at(tool, "description", path) if tool.get("description") else "",
            parameters=_NO_PARAMETERS
            if parameters is None
            else as_object(parameters, f"{path}.parameters"),
            strict=tool.get("strict") is True,
        )
    )


def tools_or_unset(tools: list[Tool]) -> Any:
    """Return `tools`, or UNSET where there are none."""
    return tools or UNSET
