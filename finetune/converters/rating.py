"""Rated answers: a prompt with one answer and whether it was good (KTO, thumbs up and down).

| row                                                       | record                             |
| --------------------------------------------------------- | ---------------------------------- |
| `{"prompt": "P", "completion": "A", "label": true}`       | prompt: user `P`; answer `A`, good |
| `"prompt": [user, …], "completion": [assistant]`          | the same, from messages            |
| `{"messages": [user, …, assistant], "label": false}`      | prompt: up to the last of the user |
| `{"conversations": [human, …, gpt], "kto_tag": true}`     | the same, from ShareGPT's turns    |
| `"kto_tag"`, `"thumbs"`, `"feedback"` for `label`         | the same                           |
| `true`, `1`, `"True"`, `"yes"`, `"up"`, `"good"`, `"👍"` … | good                               |
| `false`, `0`, `-1`, `"no"`, `"down"`, `"bad"`, `"👎"` …    | not good                           |
| `{"stars": 4, …}` with `columns: {label: "stars >= 4"}`   | good                               |
| any other value                                           | rejected: `rating-value`           |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finetune.converters import openai
from finetune.converters.answers import (
    Part,
    find_prompt,
    prompt_length,
    read_part,
    read_prompt,
    value_at,
)
from finetune.converters.reading import ConvertError, Detection, as_object, type_name
from finetune.records import RatingRecord, Record

FIELDS = ("prompt", "completion", "label", "system", "context", "tools")
_ANSWERS = ("completion", "response", "answer", "output")
_WHOLE = ("messages", "conversations")
_LABELS = ("label", "kto_tag", "thumbs", "feedback")
_GOOD = {"true", "1", "+1", "yes", "up", "thumbs_up", "thumbs up", "good", "like", "👍"}
_BAD = {"false", "0", "-1", "no", "down", "thumbs_down", "thumbs down", "bad", "dislike", "👎"}


def recognise(rows: Sequence[Any], columns: Mapping[str, str]) -> Detection | None:
    """Return how `rows` are read, when each is rated and they are not yet La Plateforme's."""
    row = next((row for row in rows if isinstance(row, dict)), {})
    found = dict(columns)
    for part, names in (("label", _LABELS), ("completion", (*_ANSWERS, *_WHOLE))):
        there = [name for name in names if name in row]
        if part not in found and there:
            found[part] = there[0]
    if "label" not in found or "completion" not in found:
        return None
    if found["completion"] not in _WHOLE:
        if (prompted := find_prompt(row, found)) is None or "prompt" not in prompted:
            return None
        found = prompted
    source = Detection("rating", "rating", found)
    objects = [row for row in rows if isinstance(row, dict)]
    fitting = [
        row for row in objects if source.keys("completion")[0] in row and _is_rated(row, source)
    ]
    if 2 * len(fitting) < len(rows) or (not columns and all(_is_record(row) for row in fitting)):
        return None
    read = [f"`{source.column(part)}`" for part in ("prompt", "completion") if part in found]
    return source._replace(reason=f"{' and '.join(read)} rated by `{source.column('label')}`")


def _is_rated(row: dict[str, Any], source: Detection) -> bool:
    try:
        _read_label(row, source)
    except ConvertError:
        return False
    return True


def _is_record(row: dict[str, Any]) -> bool:
    """Tell whether a row is La Plateforme's already."""
    prompt, answer = row.get("prompt"), row.get("completion")
    return (
        row.keys() <= {"prompt", "completion", "label", "tools"}
        and isinstance(row.get("label"), bool)
        and isinstance(prompt, list)
        and isinstance(answer, list)
        and not Part(answer, []).is_whole
        and openai.find_sign(prompt + answer) is None
    )


def convert(value: Any, source: Detection) -> list[Record]:
    """Return the rated answer of one row.

    Raises:
        ConvertError: A value is neither text nor messages, or the rating is none.
    """
    row = as_object(value)
    label = _read_label(row, source)
    before = read_prompt(row, source)
    answer = read_part(
        value_at(row, source, "completion"), "assistant", source.column("completion")
    )
    whole = before.with_answer(answer)
    if answer.is_whole or not before.prompt:
        length = prompt_length(whole.messages)
        said = before.messages()
        if before.prompt and whole.messages[: len(said)] != said:
            raise ConvertError(
                "is not what the conversation begins with",
                path=source.column("prompt"),
                rule="prompt-differs",
            )
    else:
        length = len(before.messages())
    return [
        RatingRecord(
            prompt=whole.messages[:length],
            completion=whole.messages[length:],
            label=label,
            tools=whole.tools,
        )
    ]


def _read_label(row: dict[str, Any], source: Detection) -> bool:
    column, threshold = source.column("label"), None
    if column not in row and " >= " in column:
        column, _, threshold = column.rpartition(" >= ")
    value = row.get(column)
    if threshold is not None:
        try:
            return float(value) >= float(threshold)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise _no_rating(value, column, "a number") from None
    text = str(value).strip().lower() if isinstance(value, str | int) else ""
    if text in _GOOD or text in _BAD:
        return text in _GOOD
    raise _no_rating(value, column, "true or false")


def _no_rating(value: Any, column: str, wanted: str) -> ConvertError:
    got = "another text" if isinstance(value, str) else type_name(value)
    rule = "missing-key" if value is None else "rating-value"
    return ConvertError(f"expected {wanted}, got {got}", path=column, rule=rule)
