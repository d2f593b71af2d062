"""Rules on tools: declarations, calls and their results.

Who must pair them how is in the table of rules; this module only says what it sees.
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec
from msgspec import UNSET

from finetune.checks.conversation import Place, in_messages
from finetune.checks.lines import check_values
from finetune.checks.parameters import explain_mismatch
from finetune.checks.report import Fault
from finetune.records import AssistantMessage, Function, Message, ToolCall, ToolMessage, Tools
from finetune.text import plural

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ID = re.compile(r"[A-Za-z0-9]{9}")
_MEMO_SIZE = 4096
_MAX_NAMES = 10_000  # tools remembered of a file

_encode = msgspec.json.Encoder().encode
_object = msgspec.json.Decoder(dict[str, Any]).decode


class ToolRules:
    """Checks tools; remembers the schemas it saw, since a file's records share theirs.

    Args:
        rules: The rules in force; the others are not looked for where that costs something.
    """

    def __init__(self, rules: Container[str]) -> None:
        self._seen: dict[bytes, list[Fault]] = {}
        self._rules = rules
        self._uncalled: set[str] = set()
        self._called: set[str] = set()

    def check(
        self, messages: Sequence[Message], tools: Tools, place: Place = in_messages
    ) -> list[Fault]:
        """Return the faults of a conversation's tools.

        Args:
            messages: The conversation.
            tools: The declared tools.
            place: Gives a message's path from its index.
        """
        faults, declared = self._check_tools(tools)
        called: set[str] = set()
        pairs = _Pairs(faults, place, self._rules)
        for index, message in enumerate(messages):
            if type(message) is AssistantMessage:
                pairs.close(index)
                if message.tool_calls is not UNSET:
                    last = index == len(messages) - 1
                    _check_contents(faults, message, place, index)
                    pairs.open(message.tool_calls, index, last=last)
                    for number, call in enumerate(message.tool_calls):
                        faults += _check_call(call, place, (index, number), declared)
                        called.add(call.function.name)
            elif type(message) is ToolMessage:
                pairs.answer(message, index)
        pairs.end(len(messages) - 1)
        self._note(declared.keys(), called)
        return faults

    def _note(self, declared: AbstractSet[str], called: set[str]) -> None:
        if len(self._called) < _MAX_NAMES:
            self._called |= called
        if len(self._uncalled) < _MAX_NAMES:
            self._uncalled |= declared - self._called

    def finish(self) -> list[Fault]:
        """Return what the records as a whole show."""
        count = len(self._uncalled - self._called)
        if not count or not self._called or len(self._called) >= _MAX_NAMES:
            return []
        return [Fault("unused-tool", "tools", f"{plural(count, 'tool')} declared and never called")]

    def _check_tools(self, tools: Tools) -> tuple[list[Fault], dict[str, Any]]:
        """Return the faults of the declared tools, and the parameters of each."""
        faults: list[Fault] = []
        declared: dict[str, Any] = {}
        if not tools:
            return faults, declared
        if "no-tools" in self._rules:
            faults.append(Fault("no-tools", "tools", "tools are declared"))
        for number, tool in enumerate(tools):
            path = f"tools[{number}].function"
            name = tool.function.name
            if name in declared:
                faults.append(Fault("duplicate-tool", f"{path}.name", "declared before"))
            declared[name] = tool.function.parameters
            key = _encode(tool.function)
            known = self._seen.get(key)
            if known is None:
                if len(self._seen) >= _MEMO_SIZE:
                    self._seen.clear()
                known = self._seen[key] = _check_function(tool.function)
            if known:
                faults += [fault._replace(path=path + fault.path) for fault in known]
        return faults, declared


class _Pairs:
    """Pairs the calls of one assistant message with the results that follow it."""

    def __init__(self, faults: list[Fault], place: Place, rules: Container[str]) -> None:
        self._faults = faults
        self._place = place
        self._rules = rules
        self._calls: list[str] = []
        self._results = 0
        self._answered: set[str] = set()

    def open(self, calls: list[ToolCall], index: int, *, last: bool) -> None:
        self._calls = ["null" if call.id is UNSET else call.id for call in calls]
        if calls:
            self._add("no-tools", index, ".tool_calls", "a tool call")
            if index == 0:
                self._add("call-first", index, ".tool_calls", "a tool call in the first message")
        for number, name in enumerate(self._calls):
            if not _ID.fullmatch(name):
                place = f".tool_calls[{number}].id"
                if name in {"", "null"}:
                    self._add(f"{'last-' * last}call-id-missing", index, place, "no id")
                if name != "null":
                    self._add("call-id", index, place, _describe_id(name))
            if name in self._calls[:number]:
                place = f".tool_calls[{number}].id"
                self._add("call-duplicate", index, place, "the id of another call of this message")

    def answer(self, message: ToolMessage, index: int) -> None:
        name = message.tool_call_id
        self._results += 1
        self._add("no-tools", index, "", "a tool result")
        if message.name is not UNSET and not _NAME.fullmatch(message.name):
            self._add("function-name", index, ".name", _describe_name(message.name))
        if self._results == 2 and self._calls:
            self._add("parallel-results", index, "", "a second result in one turn")
        place = ".tool_call_id"
        if name is UNSET or name in {"", "null"}:
            self._add("result-id-missing", index, place, "no id")
            return
        if not _ID.fullmatch(name):
            self._add("call-id", index, place, _describe_id(name))
        if name in self._answered:
            self._add("call-match", index, place, "a second result of one call")
        elif name not in self._calls:
            self._add("call-match", index, place, "no call before it has this id")
        self._answered.add(name)

    def close(self, index: int) -> None:
        if self._results != len(self._calls):
            self._add("call-count", index, "", self._count())
        self._calls, self._results = [], 0
        self._answered.clear()

    def end(self, index: int) -> None:
        if self._results > len(self._calls):
            self._add("call-count", index, "", self._count())

    def _count(self) -> str:
        calls, results = plural(len(self._calls), "call"), plural(self._results, "result")
        return f"{calls} and {results} before this"

    def _add(self, rule: str, index: int, path: str, message: str) -> None:
        if rule in self._rules:
            self._faults.append(Fault(rule, self._place(index) + path, message))


def _check_contents(
    faults: list[Fault], message: AssistantMessage, place: Place, index: int
) -> None:
    if message.content and message.tool_calls:
        faults.append(Fault("content-and-calls", place(index), "both content and tool calls"))
    elif message.tool_calls and message.content is not UNSET:
        path = f"{place(index)}.content"
        faults.append(Fault("empty-content", path, "empty beside tool calls"))
    elif message.content and not message.tool_calls:
        path = f"{place(index)}.tool_calls"
        faults.append(Fault("empty-content", path, "empty beside content"))


def _check_call(
    call: ToolCall, place: Place, where: tuple[int, int], declared: dict[str, Any]
) -> list[Fault]:
    name, arguments = call.function.name, call.function.arguments
    faults = []
    if not _NAME.fullmatch(name):
        faults.append(Fault("function-name", ".name", _describe_name(name)))
    elif name not in declared:
        faults.append(Fault("undeclared-tool", ".name", "not declared in `tools`"))
    value: dict[str, Any] | None = None
    if isinstance(arguments, dict):
        faults.append(Fault("arguments-object", ".arguments", "an object"))
        deep = check_values(arguments)
        faults += [fault._replace(path=".arguments") for fault in deep]
        value = None if deep else arguments
    else:
        try:
            value = _object(arguments)
        except msgspec.ValidationError:
            fact = "the JSON text of something else than an object"
            faults.append(Fault("arguments", ".arguments", fact))
        except (msgspec.DecodeError, RecursionError):
            fact = "a text that is not JSON" if arguments else "an empty text"
            faults.append(Fault("arguments", ".arguments", fact))
    if value is not None and (misfit := explain_mismatch(value, declared.get(name))):
        faults.append(Fault("arguments-schema", ".arguments", misfit))
    if faults:
        path = f"{place(where[0])}.tool_calls[{where[1]}].function"
        return [fault._replace(path=path + fault.path) for fault in faults]
    return faults


def _check_function(function: Function) -> list[Fault]:
    faults = []
    if not _NAME.fullmatch(function.name):
        faults.append(Fault("function-name", ".name", _describe_name(function.name)))
    if not function.description:
        faults.append(Fault("tool-description", "", "no description"))
    deep = [fault._replace(path=".parameters") for fault in check_values(function.parameters)]
    if (
        not deep
        and not _is_plain_schema(function.parameters)
        and not _is_schema(function.parameters)
    ):
        faults.append(Fault("tool-schema", ".parameters", "not a JSON Schema of draft 7"))
    return faults + deep


_TYPES = {"object", "string", "number", "integer", "boolean", "array", "null"}
_PLAIN = {"title": str, "description": str, "default": object, "additionalProperties": bool}


def _is_plain_schema(schema: Any) -> bool:
    """Return whether a schema is one of the usual, surely valid ones.

    It spares loading jsonschema: what is not plain is not wrong, and is looked at by jsonschema.
    """
    if not isinstance(schema, dict):
        return False
    for key, value in schema.items():
        if key == "type":
            good = isinstance(value, str) and value in _TYPES
        elif key == "properties":
            good = isinstance(value, dict) and all(map(_is_plain_schema, value.values()))
        elif key == "items":
            good = _is_plain_schema(value)
        elif key in {"required", "enum"}:
            good = isinstance(value, list) and all(isinstance(item, str) for item in value)
            good = good and len(set(value)) == len(value) and (key == "required" or bool(value))
        else:
            good = key in _PLAIN and isinstance(value, _PLAIN[key])
        if not good:
            return False
    return True


def _is_schema(schema: dict[str, Any]) -> bool:
    # Only the meta-schema is applied: a schema found in data never drives the engine, so that no
    # address in it is fetched and none of its patterns is run.
    from jsonschema import Draft7Validator
    from jsonschema.exceptions import SchemaError

    try:
        Draft7Validator.check_schema(schema)
    except SchemaError:
        return False
    return True


def _describe_id(text: str) -> str:
    return f"{plural(len(text), 'character')}, expected 9 letters and digits"


def _describe_name(text: str) -> str:
    return f"a name of {plural(len(text), 'character')} that is not A-Z a-z 0-9 _ - (1 to 64)"
