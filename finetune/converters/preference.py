r"""Preference pairs: a better and a worse answer, in the forms in which they are published.

| row                                                     | record                                 |
| ------------------------------------------------------- | -----------------------------------    |
| `{"prompt": "P", "chosen": "A", "rejected": "B"}`       | prompt: user `P`; answers `A`, `B`     |
| `{"system": "S", "question": "P", …}`                   | the same, system `S` first             |
| `{"instruction": "P", "input": "T", …}`                 | prompt: user `P`⏎⏎`T`                  |
| `"chosen": [user, assistant], "rejected": [user, …]`    | prompt: the turns that both begin with |
| … whose shared turns end with an answer                 | prompt: up to the user's last of them  |
| a `prompt` beside whole conversations | it has to be what they begin with, else `prompt-differs` |
| `"chosen": "\n\nHuman: P\n\nAssistant: A", …` (HH-RLHF) | the same, from the turns               |
| `"conversations": […], "chosen": {"from", "value"}, …`  | prompt: the conversation               |
| `{"input": {"messages", "tools"}, "preferred_output",`  | OpenAI's: prompt and tools of `input`  |
| `"non_preferred_output"}`                               |                                        |
| two conversations without a common beginning            | rejected: `no-shared-prompt`           |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finetune.converters import openai
from finetune.converters.answers import (
    Part,
    converse,
    find_prompt,
    is_transcript,
    read_part,
    read_prompt,
    shared_length,
    value_at,
)
from finetune.converters.reading import ConvertError, Detection, as_object
from finetune.records import PreferenceRecord, Record

FIELDS = ("prompt", "chosen", "rejected", "system", "context", "tools")
_OPENAI = ("input", "preferred_output", "non_preferred_output")


def recognise(rows: Sequence[Any], columns: Mapping[str, str]) -> Detection | None:
    """Return how `rows` are read, when they are pairs of answers and not yet La Plateforme's."""
    source = Detection("preference", "preference", dict(columns))
    objects = [row for row in rows if isinstance(row, dict)]
    if not columns and 2 * sum(set(_OPENAI) <= row.keys() for row in objects) >= len(rows):
        found = dict(zip(("prompt", "chosen", "rejected"), _OPENAI, strict=True))
        return source._replace(columns=found, reason="`preferred_output` of an `input`")
    answers = {source.column("chosen"), source.column("rejected")}
    fitting = [row for row in objects if answers <= row.keys()]
    if not fitting or 2 * len(fitting) < len(rows):
        return None
    chosen = fitting[0][source.column("chosen")]
    found_columns = find_prompt(fitting[0], columns)
    if found_columns is None or (not columns and all(_is_record(row) for row in fitting)):
        return None
    form = "transcripts" if is_transcript(chosen) else _FORMS.get(type(chosen), "turns")
    names = " and ".join(f"`{source.column(name)}`" for name in ("chosen", "rejected"))
    return source._replace(columns=found_columns, reason=f"{names} as {form}")


_FORMS: dict[Any, str] = {str: "text", list: "messages"}


def _is_record(row: dict[str, Any]) -> bool:
    """Tell whether a row is La Plateforme's already."""
    if not row.keys() <= {"prompt", "chosen", "rejected", "tools"}:
        return False
    prompt, answers = row.get("prompt"), [row["chosen"], row["rejected"]]
    if not isinstance(prompt, list) or not all(isinstance(answer, list) for answer in answers):
        return False
    return not any(
        Part(answer, []).is_whole or openai.find_sign(prompt + answer) for answer in answers
    )


def convert(value: Any, source: Detection) -> list[Record]:
    """Return the pair of one row.

    Raises:
        ConvertError: A value is neither text nor messages, or the prompt is not certain.
    """
    row = as_object(value)
    if source.column("chosen") == "preferred_output":
        row, source = _open_input(row, source)
    before = read_prompt(row, source)
    answers = [_answer(row, source, name) for name in ("chosen", "rejected")]
    chosen, rejected = (before.with_answer(answer) for answer in answers)
    if answers[0].is_whole or answers[1].is_whole:
        length = shared_length(chosen.messages, rejected.messages)
        prompt = chosen.messages[:length]
        if not prompt:
            raise ConvertError(
                "the two conversations do not begin with the same turns",
                path=source.column("rejected"),
                rule="no-shared-prompt",
            )
        if before.prompt:
            said = converse(before.prompt, before.tools).messages
            if said != prompt[-len(said) :]:
                length = len(before.messages())
                if before.messages() != prompt[:length]:
                    raise _differs(source)
    else:
        if not before.prompt:
            raise ConvertError(
                "expected text or messages, got nothing",
                path=source.column("prompt"),
                rule="missing-key",
            )
        length = len(before.messages())
    return [
        PreferenceRecord(
            prompt=chosen.messages[:length],
            chosen=chosen.messages[length:],
            rejected=rejected.messages[length:],
            tools=chosen.tools,
        )
    ]


def _differs(source: Detection) -> ConvertError:
    return ConvertError(
        "is not what the two conversations begin with",
        path=source.column("prompt"),
        rule="prompt-differs",
    )


def _answer(row: dict[str, Any], source: Detection, name: str) -> Part:
    column = source.column(name)
    if row.get(column) is None and source.keys(name) == (column,):
        raise ConvertError(
            f"expected text or messages, got {'null' if column in row else 'nothing'}",
            path=column,
            rule="null" if column in row else "missing-key",
        )
    return read_part(value_at(row, source, name), "assistant", column)


def _open_input(row: dict[str, Any], source: Detection) -> tuple[dict[str, Any], Detection]:
    """Return OpenAI's row with the messages and tools of its `input` beside the answers."""
    inside = as_object(row.get("input"), "input")
    flat = {**row, "input.messages": inside.get("messages"), "input.tools": inside.get("tools")}
    columns = {**source.columns, "prompt": "input.messages", "tools": "input.tools"}
    return flat, source._replace(columns=columns)
