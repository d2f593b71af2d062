r"""TRL's dataset formats, of which a prompt and a completion as messages are its own.

| row                                             | record                                      |
| ----------------------------------------------- | -----------------------------------         |
| `{"prompt": [user], "completion": [assistant]}` | chat                                        |
| answers in the prompt                           | `weight` 0: TRL trains the completion alone |
| `{"messages": […], "tools": […]}`               | chat, as the format `openai` reads it       |
| `"arguments": {"a": 1}`                         | `"arguments": "{\"a\":1}"`                  |
| `{"text": "T"}`                                 | text                                        |
| `{"prompt", "chosen", "rejected"}`              | preference                                  |
| `{"prompt", "completion", "label": true}`       | rating                                      |

Source: TRL, "Dataset formats and types", as of 2026-11.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finetune.converters import openai, preference, rating
from finetune.converters.answers import converse, read_part
from finetune.converters.reading import Detection, as_object, list_at, text_at
from finetune.records import AssistantMessage, Record, TextRecord

FIELDS = ("prompt", "completion", "tools")


def recognise(rows: Sequence[Any], columns: Mapping[str, str]) -> Detection | None:
    """Return how `rows` are read, when they are prompts and completions of messages."""
    source = Detection("trl", "chat", dict(columns))
    names = [source.column("prompt"), source.column("completion")]
    if 2 * sum(_fits(row, names) for row in rows) < len(rows):
        return None
    return source._replace(reason=f"`{names[0]}` and `{names[1]}` as messages")


def _fits(row: Any, names: list[str]) -> bool:
    if not isinstance(row, dict) or isinstance(row.get("label"), bool):
        return False
    values = [row.get(name) for name in names]
    return all(
        isinstance(value, list) and value and isinstance(value[0], dict) and "role" in value[0]
        for value in values
    )


def convert(value: Any, source: Detection) -> list[Record]:
    """Return the record of one row.

    Raises:
        ConvertError: It is none of the table.
    """
    row = as_object(value)
    if source.kind == "preference":
        return preference.convert(row, source)
    if source.kind == "rating":
        return rating.convert(row, source)
    if source.kind == "text":
        return [TextRecord(text=text_at(row, "text"))]
    if "messages" in row:
        return openai.convert(row, source)
    parts = []
    for name in ("prompt", "completion"):
        column = source.column(name)
        parts.append(read_part(list_at(row, column), "user", column))
    record = converse(parts, row.get(source.column("tools")))
    for message in record.messages[: len(parts[0].turns)]:
        if isinstance(message, AssistantMessage):
            message.weight = 0.0
    return [record]
