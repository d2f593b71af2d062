r"""Alpaca: an instruction, perhaps an input, and an output.

| row                                                         | record                            |
|-------------------------------------------------------------|-----------------------------------|
| `{"instruction": "I", "input": "", "output": "O"}`          | user `I`, assistant `O`           |
| `{"instruction": "I", "input": "T", "output": "O"}`         | user `I`⏎⏎`T`, assistant `O`      |
| `{"instruction": "", "input": "T", "output": "O"}`          | user `T`, assistant `O`           |
| `"input": "<noinput>"`, `No input`, `N/A`, `Not applicable` | as an empty input                 |
| `"output": ["O", "P"]`                                      | a record each, with `O` and `P`   |
| `{"system": "S", …}`                                        | system `S` first                  |
| `{"history": [["Q", "A"]], …}`                              | user `Q`, assistant `A` before it |
| `{"tools": "[{\"name\": …}]", …}`                           | `tools`                           |
| `{"text": "### Instruction: …", …}` (the rendered prompt)   | not used, and counted as such     |
| neither instruction nor input                               | the row is rejected: `no-prompt`  |
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

from finetune.converters.calls import read_tools, tools_or_unset
from finetune.converters.reading import (
    ConvertError,
    Detection,
    as_object,
    list_at,
    type_name,
)
from finetune.records import (
    AssistantMessage,
    ChatRecord,
    Message,
    Record,
    SystemMessage,
    UserMessage,
)

FIELDS = ("instruction", "input", "output", "system", "history", "tools")
# How Alpaca's makers and those after them wrote that there is no input. A bare "None" is not
# among them: it can be the value that an instruction is about.
_NO_INPUT = re.compile(
    r"\W*(?:no[\s_-]?input(?:\s+(?:needed|required|necessary|provided|given))?"
    r"|n/a|not\s+applicable)\W*",
    re.IGNORECASE,
)


def recognise(rows: Sequence[Any], columns: Mapping[str, str]) -> Detection | None:
    """Return how `rows` are read, when they are Alpaca's."""
    source = Detection("alpaca", "chat", dict(columns), "keys `instruction` and `output`")
    needed = {*source.keys("instruction"), *source.keys("output")}
    fitting = sum(isinstance(row, dict) and needed <= row.keys() for row in rows)
    return source if 2 * fitting >= len(rows) else None


def convert(value: Any, source: Detection) -> list[Record]:
    """Return the conversation of one row, or one for each of its outputs.

    Raises:
        ConvertError: A key is missing or holds no text.
    """
    row = as_object(value)
    messages: list[Message] = []
    if system := source.optional_text(row, "system"):
        messages.append(SystemMessage(content=system))
    history = source.column("history")
    if row.get(history) is not None:
        for number, turn in enumerate(list_at(row, history)):
            question, answer = _turn(turn, f"{history}[{number}]")
            messages += [UserMessage(content=question), AssistantMessage(content=answer)]
    messages.append(UserMessage(content=_prompt(row, source)))
    tools = row.get(source.column("tools"))
    declared = tools_or_unset(read_tools(tools, source.column("tools")))
    records: list[Record] = []
    for output in _outputs(row, source):
        # Each record has messages of its own: later steps change them in place.
        before = copy.deepcopy(messages) if records else messages
        whole = [*before, AssistantMessage(content=output)]
        records.append(ChatRecord(messages=whole, tools=declared))
    return records


def _prompt(row: dict[str, Any], source: Detection) -> str:
    parts = [source.text(row, "instruction")]
    extra = source.optional_text(row, "input")
    if not _NO_INPUT.fullmatch(extra):
        parts.append(extra)
    said = [part for part in parts if part.strip()]
    if not said:
        path = source.column("instruction")
        raise ConvertError("neither an instruction nor an input", path=path, rule="no-prompt")
    return "\n\n".join(said)


def _outputs(row: dict[str, Any], source: Detection) -> list[str]:
    key = source.column("output")
    outputs: Any = row.get(key)
    if not isinstance(outputs, list):
        return [source.text(row, "output")]
    for number, output in enumerate(outputs):
        if not isinstance(output, str):
            fact = f"expected text, got {type_name(output)}"
            raise ConvertError(fact, path=f"{key}[{number}]", rule="type")
    if not outputs:
        raise ConvertError("an empty list", path=key, rule="no-answer")
    return outputs


def _turn(value: Any, path: str) -> tuple[str, str]:
    match value:
        case [str(question), str(answer)]:
            return question, answer
    raise ConvertError("expected a question and an answer", path=path, rule="type")
