r"""xLAM: a question, functions, and the calls that answer it.

| row                                                   | record                                   |
|-------------------------------------------------------|------------------------------------------|
| `"query": "Q"`                                        | user `Q`                                 |
| `"answers": "[{\"name\": …, \"arguments\": {…}}]"`    | assistant with `tool_calls`              |
| `{"tools": "[{\"name\": …, \"parameters\": {…}}]"}`   | `tools`                                  |
| tools and answers as lists, tools in OpenAI's form    | the same                                 |
| parameters as name → `{"type": "int", "description"}` | JSON Schema                              |
| `"type": "str, optional"`, or a `default`             | not in `required`                        |
| types `str`, `int`, `List[float]`, `Dict[…]` …        | `string`, `integer`, `array`, `object` … |
| a type that JSON Schema lacks, such as `Callable`     | no type, but its name in the description |
| names such as `math.factorial`                        | `math_factorial`, in tools and calls     |
| no calls: `"answers": "[]"`                           | the row is rejected: `no-answer`         |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finetune.converters.calls import Calls, tools_or_unset
from finetune.converters.functions import Names, read_functions
from finetune.converters.reading import (
    ConvertError,
    Detection,
    as_object,
    decoded,
    text_at,
    type_name,
)
from finetune.records import AssistantMessage, ChatRecord, Message, Record, UserMessage

FIELDS = ("query", "tools", "answers")


def recognise(rows: Sequence[Any], columns: Mapping[str, str]) -> Detection | None:
    """Return how `rows` are read, when they are xLAM's."""
    source = Detection("xlam", "chat", dict(columns), "keys `query`, `tools` and `answers`")
    needed = {source.column(name) for name in FIELDS}
    fitting = sum(isinstance(row, dict) and needed <= row.keys() for row in rows)
    return source if 2 * fitting >= len(rows) else None


def convert(value: Any, source: Detection) -> list[Record]:
    """Return the conversation of one row.

    Raises:
        ConvertError: Its tools or answers are not lists of functions and calls.
    """
    row = as_object(value)
    query = text_at(row, source.column("query"))
    names, calls = Names(), Calls()
    tools = read_functions(_list_at(row, source.column("tools"), "tools-text"), names, "tools")
    made = []
    key = source.column("answers")
    for number, item in enumerate(_list_at(row, key, "call-text")):
        path = f"{key}[{number}]"
        call = as_object(item, path)
        name = names.new(text_at(call, "name", path), f"{path}.name")
        made.append(calls.call(name, decoded(call.get("arguments"), path, "call-text")))
    if not made:
        raise ConvertError("no calls", path=key, rule="no-answer")
    messages: list[Message] = [UserMessage(content=query), AssistantMessage(tool_calls=made)]
    return [ChatRecord(messages=messages, tools=tools_or_unset(tools))]


def _list_at(row: dict[str, Any], key: str, rule: str) -> list[Any]:
    found = decoded(row.get(key), key, rule)
    if not isinstance(found, list):
        raise ConvertError(f"expected a list, got {type_name(found)}", path=key, rule="type")
    return found
