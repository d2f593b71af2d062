"""Pairs: one question and one answer a row, as tables and simple JSON have them.

| row                                                     | record                                 |
| ------------------------------------------------------- | -----------------------------------    |
| `{"question": "Q", "answer": "A"}`                      | user `Q`, assistant `A`                |
| `{"Frage": "Q", "Antwort": "A"}`, also in FR ES IT PT NL PL | user `Q`, assistant `A`            |
| `{"ticket": "Q", "reply": "A"}` with `columns:`         | user `Q`, assistant `A`                |
| `columns: {user: "{subject}: {body}", …}`               | user: both, with the text between them |
| … of which all are empty or null                        | the empty text                         |
| a number or a boolean in a template | its JSON text; else the row is rejected |
| `{"system": "S", "prompt": "Q", "completion": "A"}`     | system `S`, user `Q`, assistant `A`    |
| `{"instruction": "Q", "context": "T", "response": "A"}` | user `Q`⏎⏎`T`, assistant `A`           |
| `{"question": "Q", "context": "", "answer": "A"}`       | user `Q`, assistant `A`                |
| two answers of known names: `answer` beside `response`  | asks which: `columns:`                 |
| an empty or absent system prompt                        | no system message                      |
| other columns                                           | not used, and counted as such          |
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

FIELDS = ("user", "context", "assistant", "system")
KEYS = ("user", "assistant", "system")  # a context is used where it was found or said
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
    *(("frage", "antwort"), ("question", "réponse"), ("question", "reponse")),
    *(("pregunta", "respuesta"), ("domanda", "risposta"), ("pergunta", "resposta")),
    *(("vraag", "antwoord"), ("pytanie", "odpowiedź"), ("pytanie", "odpowiedz")),
)
_OTHERS = {"system": ("system", "system_prompt"), "context": ("context", "input")}


def recognise(rows: Sequence[Any], columns: Mapping[str, str]) -> Detection | None:
    """Return how `rows` are read, when they are pairs."""
    row = next((row for row in rows if isinstance(row, dict)), {})
    if "user" in columns and "assistant" in columns:
        return Detection("pairs", "chat", dict(columns), "`columns` says what holds what")
    keys = {key.strip().lower(): key for key in row}
    fitting = [
        names
        for names in _NAMES
        if set(names) <= keys.keys()
        and _hold_text(rows, keys, names)
        and not (names[0] == "input" and "instruction" in keys)  # then it is a context
    ]
    if len(fitting) != 1:
        return None  # none, or more than one: which it is has to be said
    found = dict(zip(("user", "assistant"), (keys[name] for name in fitting[0]), strict=True))
    for part, names in _OTHERS.items():
        there = [keys[name] for name in names if name in keys and name not in fitting[0]]
        if there:
            found[part] = there[0]
    found |= columns
    reason = f"columns `{found['user']}` and `{found['assistant']}`"
    return Detection("pairs", "chat", found, reason)


def _hold_text(rows: Sequence[Any], keys: Mapping[str, str], names: Sequence[str]) -> bool:
    return any(
        isinstance(row, dict) and all(isinstance(row.get(keys[name]), str) for name in names)
        for row in rows
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
    question = source.text(row, "user")
    extra = source.optional_text(row, "context") if "context" in source.columns else ""
    if extra.strip():
        question = f"{question}\n\n{extra}"
    messages.append(UserMessage(content=question))
    messages.append(AssistantMessage(content=source.text(row, "assistant")))
    return [ChatRecord(messages=messages)]
