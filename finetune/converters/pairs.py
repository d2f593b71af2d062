"""Pairs: one question and one answer a row, as tables and simple JSON have them.

| row                                                    | record                                  |
|--------------------------------------------------------|-----------------------------------------|
| `{"question": "Q", "answer": "A"}`                     | user `Q`, assistant `A`                 |
| `{"frage": "Q", "antwort": "A"}` with `columns:`       | user `Q`, assistant `A`                 |
| `columns: {user: "{subject}: {body}", …}`              | user: both, with the text between them  |
| … of which all are empty or null                       | the empty text                          |
| a number or a boolean in a template                    | its JSON text; else the row is rejected |
| `{"system": "S", "prompt": "Q", "completion": "A"}`    | system `S`, user `Q`, assistant `A`     |
| an empty or absent system prompt                       | no system message                       |
| other columns                                          | not used, and counted as such           |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finetune.converters.reading import Detection, as_object
from finetune.records import (
    AssistantMessage,
    ChatRecord,
    Message,
    Record,
    SystemMessage,
    UserMessage,
)

FIELDS = ("user", "assistant", "system")
_NAMES = (
    ("user", "assistant"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("prompt", "answer"),
    ("question", "answer"),
    ("question", "response"),
    ("query", "response"),
    ("query", "answer"),
    ("instruction", "response"),
    ("instruction", "answer"),
    ("input", "output"),
)
_SYSTEM = ("system", "system_prompt")


def recognise(rows: Sequence[Any], columns: Mapping[str, str]) -> Detection | None:
    """Return how `rows` are read, when they are pairs."""
    row = next((row for row in rows if isinstance(row, dict)), {})
    if "user" in columns and "assistant" in columns:
        return Detection("pairs", "chat", dict(columns), "`columns` says what holds what")
    keys = {key.strip().lower(): key for key in row}
    if {"instruction", "output"} <= keys.keys():
        return None  # Alpaca's
    for user, assistant in _NAMES:
        if user in keys and assistant in keys and _hold_text(rows, keys[user], keys[assistant]):
            found = {"user": keys[user], "assistant": keys[assistant]}
            if system := next((keys[name] for name in _SYSTEM if name in keys), None):
                found["system"] = system
            found |= columns
            reason = f"columns `{found['user']}` and `{found['assistant']}`"
            return Detection("pairs", "chat", found, reason)
    return None


def _hold_text(rows: Sequence[Any], *keys: str) -> bool:
    return any(
        isinstance(row, dict) and all(isinstance(row.get(key), str) for key in keys) for row in rows
    )


def convert(value: Any, source: Detection) -> list[Record]:
    """Return the conversation of one row.

    Raises:
        ConvertError: A column is missing or holds no text.
    """
    row = as_object(value)
    messages: list[Message] = []
    if system := source.optional_text(row, "system"):
        messages.append(SystemMessage(content=system))
    messages.append(UserMessage(content=source.text(row, "user")))
    messages.append(AssistantMessage(content=source.text(row, "assistant")))
    return [ChatRecord(messages=messages)]
