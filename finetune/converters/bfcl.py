r"""BFCL: questions, functions, and the calls that are right.

| row                                                      | record |
|----------------------------------------------------------|--------|
| `"question": [[{"role": "user", "content": "Q"}]]`, or a text | user `Q` |
| `"function": [{"name", "description", "parameters"}]`    | `tools` |
| `"ground_truth": [{"f": {"a": [1, 2], "b": ["", 3]}}]`   | a call, first values: `{"a": 1}` |
| `""` as first value: it may be left out                  | left out |
| the same inside objects                                  | the same |
| `"ground_truth": ["f(a=1)"]`                             | a call `{"a": 1}` |
| types `dict`, `float`, `tuple`, `any`                    | `object`, `number`, `array`, no type |
| names such as `math.factorial`                           | `math_factorial`, in tools and calls |
| no `ground_truth`: it is in a file of its own            | the row is rejected: `no-answer` |
| questions of several turns, whose results are not in the row | the row is rejected: `results` |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finetune.converters.calls import Calls, tools_or_unset
from finetune.converters.functions import Names, check_depth, read_functions
from finetune.converters.openai import add_messages
from finetune.converters.reading import (
    ConvertError,
    Detection,
    as_object,
    decoded,
    text_at,
    type_name,
)
from finetune.converters.toolace import parse_calls
from finetune.records import AssistantMessage, ChatRecord, Message, Record, UserMessage

FIELDS = ("question", "function", "ground_truth")


def recognise(rows: Sequence[Any], columns: Mapping[str, str]) -> Detection | None:
    """Return how `rows` are read, when they are BFCL's."""
    source = Detection("bfcl", "chat", dict(columns), "keys `question` and `function`")
    needed = {source.column("question"), source.column("function")}
    fitting = sum(isinstance(row, dict) and needed <= row.keys() for row in rows)
    return source if 2 * fitting >= len(rows) else None


def convert(value: Any, source: Detection) -> list[Record]:
    """Return the conversation of one row.

    Raises:
        ConvertError: It has no answer, or one that is not certain.
    """
    row = as_object(value)
    question, key = source.column("question"), source.column("function")
    messages = _question(row.get(question), question)
    functions = decoded(row.get(key), key, "tools-text")
    functions = functions if isinstance(functions, list) else [functions]
    names, calls = Names(), Calls()
    tools = read_functions(functions, names, key)
    declared = [text_at(item.get("function", item), "name") for item in functions]
    answers = source.column("ground_truth")
    made = [
        calls.call(names.new(name, answers), arguments)
        for name, arguments in _answers(row.get(answers), declared, answers)
    ]
    messages.append(AssistantMessage(tool_calls=made))
    return [ChatRecord(messages=messages, tools=tools_or_unset(tools))]


def _question(value: Any, path: str) -> list[Message]:
    value = value if isinstance(value, str) else decoded(value, path, "type")
    if isinstance(value, str):
        return [UserMessage(content=value)]
    if isinstance(value, list) and value and all(isinstance(turn, list) for turn in value):
        if len(value) > 1:
            fact = f"{len(value)} turns, without the results of their calls"
            raise ConvertError(fact, path=path, rule="results")
        value, path = value[0], f"{path}[0]"
    messages: list[Message] = []
    add_messages(messages, value, Calls(), path)
    return messages


def _answers(value: Any, declared: list[str], path: str) -> list[tuple[str, dict[str, Any]]]:
    value = decoded(value, path, "call-text")
    if value is not None and not isinstance(value, list):
        raise ConvertError(f"expected a list, got {type_name(value)}", path=path, rule="type")
    found: list[tuple[str, dict[str, Any]]] = []
    for number, item in enumerate(value or ()):
        place = f"{path}[{number}]"
        if isinstance(item, str):
            found += parse_calls(f"[{item}]", declared, place)
            continue
        for name, options in as_object(item, place).items():
            found.append((name, _choose(as_object(options, f"{place}.{{}}"))))
    if not found:
        raise ConvertError("no calls", path=path, rule="no-answer")
    return found


def _choose(options: dict[str, Any], depth: int = 1) -> dict[str, Any]:
    """Return the first of the values that are right for each argument."""
    chosen = {}
    for name, values in options.items():
        first = values[0] if isinstance(values, list) and values else values
        if first not in ("", []):
            chosen[name] = _inside(first, depth)
    return chosen


def _inside(value: Any, depth: int) -> Any:
    deeper = check_depth(depth)
    if isinstance(value, dict):
        return _choose(value, deeper)
    return [_inside(item, deeper) for item in value] if isinstance(value, list) else value
