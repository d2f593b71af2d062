"""Alpaca: an instruction, perhaps an input, and an output.

| row                                                          | record                          |
|--------------------------------------------------------------|---------------------------------|
| `{"instruction": "I", "input": "", "output": "O"}`           | user `I`, assistant `O`         |
| `{"instruction": "I", "input": "T", "output": "O"}`          | user `I`⏎⏎`T`, assistant `O` |
| `{"system": "S", …}`                                         | system `S` first                |
| `{"history": [["Q", "A"]], …}`                               | user `Q`, assistant `A` before it |
| `{"text": "### Instruction: …", …}` (the rendered prompt)    | not used, and counted as such   |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finetune.converters.reading import (
    ConvertError,
    Detection,
    as_object,
    list_at,
)
from finetune.records import (
    AssistantMessage,
    ChatRecord,
    Message,
    Record,
    SystemMessage,
    UserMessage,
)

FIELDS = ("instruction", "input", "output", "system", "history")


def recognise(rows: Sequence[Any], columns: Mapping[str, str]) -> Detection | None:
    """Return how `rows` are read, when they are Alpaca's."""
    source = Detection("alpaca", "chat", dict(columns), "keys `instruction` and `output`")
    needed = {*source.keys("instruction"), *source.keys("output")}
    fitting = sum(isinstance(row, dict) and needed <= row.keys() for row in rows)
    return source if 2 * fitting >= len(rows) else None


def convert(value: Any, source: Detection) -> list[Record]:
    """Return the conversation of one row.

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
    instruction = source.text(row, "instruction")
    extra = source.optional_text(row, "input")
    messages.append(
        UserMessage(content=f"{instruction}\n\n{extra}" if extra.strip() else instruction)
    )
    messages.append(AssistantMessage(content=source.text(row, "output")))
    return [ChatRecord(messages=messages)]


def _turn(value: Any, path: str) -> tuple[str, str]:
    match value:
        case [str(question), str(answer)]:
            return question, answer
    raise ConvertError("expected a question and an answer", path=path, rule="type")
