"""Classification: a text or a conversation with the label of one target or several.

| row                                                | record                                      |
| -------------------------------------------------- | -----------------------------------         |
| `{"text": "T", "label": "spam"}`                   | `T`, `"labels": {"label": "spam"}`          |
| `{"messages": […], "intent": "refund"}`            | `"labels": {"intent": "refund"}`            |
| `columns: {text: body, labels: topic}` | `"labels": {"topic": …}`: named by the column |
| `columns: {text: body, labels.topic: category, …}` | `"labels": {"topic": …, …}`                 |
| `{"text": "T", "labels": {"urgent": true}}`        | `"labels": {"urgent": "yes"}`               |
| `["a", "b"]`, or a text that is one in JSON, Python or NumPy | a list: several labels |
| `a; b` with `columns: {labels: "topic split by ;"}` | a list, also of `a` alone              |
| `true`, `false` | `"yes"`, `"no"`, as La Plateforme writes them |
| `3`                                                | `"3"`                                       |
| `label` beside `label_text`                        | the text                                    |
| an empty label, null                               | rejected: `empty-label`                     |
| `4.5`, an object                                   | rejected: `type`                            |

Without `split by` a text such as `a;b` is one label: which character parts labels is not guessed.
Where its parts are labels too, the rule `joined-labels` warns.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from finetune.converters import openai
from finetune.converters.answers import value_at
from finetune.converters.reading import (
    ConvertError,
    Detection,
    as_object,
    columns_of,
    list_at,
    mark_of,
    type_name,
)
from finetune.records import ClassifierRecord, Record

FIELDS = ("text", "messages", "labels", "labels.*")
_TEXTS = ("text", "sentence", "utterance", "messages")
_LABELS = ("label_text", "label_name", "labels", "label", "intent", "sentiment")
_PART = "labels."
# Lists of texts as Python and NumPy print them: `['a', 'b']`, `['a' 'b']`.
_QUOTED = re.compile(r"""'([^'\\]*)'|"([^"\\]*)["]""")
_PRINTED = re.compile(rf"\[\s*(?:(?:{_QUOTED.pattern})(?:\s*,\s*|\s+|(?=\])))+\]")


def recognise(rows: Sequence[Any], columns: Mapping[str, str]) -> Detection | None:
    """Return how `rows` are read, when they have labels and are not yet La Plateforme's."""
    row = next((row for row in rows if isinstance(row, dict)), {})
    found = dict(columns)
    if not {"text", "messages"} & found.keys():
        there = [name for name in _TEXTS if name in row]
        if len(there) != 1:
            return None
        found["messages" if there[0] == "messages" else "text"] = there[0]
    if "labels" not in found and not any(part.startswith(_PART) for part in found):
        if not (there := [name for name in _LABELS if name in row]):
            return None
        found["labels"] = there[0]
    source = Detection("classification", "classifier", found)
    objects = [row for row in rows if isinstance(row, dict)]
    fitting = [row for row in objects if _fits(row, source)]
    if 2 * len(fitting) < len(rows) or (not columns and all(_is_record(row) for row in fitting)):
        return None
    names = " and ".join(f"`{name}`" for name, _ in _targets(source).values())
    text = source.column("messages" if "messages" in found else "text")
    return source._replace(reason=f"`{text}` with {names}")


def _fits(row: dict[str, Any], source: Detection) -> bool:
    """Tell whether a row has a text and labels that can be some."""
    wanted = list if "messages" in source.columns else str
    content = value_at(row, source, "messages" if wanted is list else "text")
    labels = [row.get(column) for column, _ in _targets(source).values()]
    if any(isinstance(label, float) for label in labels):
        return False
    return isinstance(content, wanted) and any(label is not None for label in labels)


def _is_record(row: dict[str, Any]) -> bool:
    """Tell whether a row is La Plateforme's already."""
    labels = row.get("labels")
    return (
        row.keys() <= {"text", "messages", "labels"}
        and isinstance(labels, dict)
        and not any(isinstance(label, bool | int | float) for label in labels.values())
        and (
            not isinstance(messages := row.get("messages"), list)
            or openai.find_sign(messages) is None
        )
    )


def _targets(source: Detection) -> dict[str, tuple[str, str | None]]:
    """Return target → its column, and what parts the labels in it."""
    said = {
        part.removeprefix(_PART): column
        for part, column in source.columns.items()
        if part.startswith(_PART)
    }
    said = said or {source.keys("labels")[0]: source.column("labels")}
    return {target: (columns_of(column)[0], mark_of(column)) for target, column in said.items()}


def convert(value: Any, source: Detection) -> list[Record]:
    """Return the labelled text of one row.

    Raises:
        ConvertError: There is no text, or a label is none.
    """
    row = as_object(value)
    labels: dict[str, str | list[str]] = {}
    for target, (column, mark) in _targets(source).items():
        found = row.get(column)
        if isinstance(found, dict) and target == column:
            labels |= {name: _label(item, f"{column}.{name}", mark) for name, item in found.items()}
        else:
            labels[target] = _label(found, column, mark)
    if "messages" in source.columns or ("text" not in source.columns and "messages" in row):
        column = source.column("messages")
        (record,) = openai.convert(
            {"messages": list_at(row, column)}, Detection("openai", roles=source.roles)
        )
        return [ClassifierRecord(messages=record.messages, labels=labels)]  # type: ignore[union-attr]
    return [ClassifierRecord(text=source.text(row, "text"), labels=labels)]


def _label(value: Any, path: str, mark: str | None) -> str | list[str]:
    """Return the label of one target, or its list of labels: always one where they are parted."""
    if isinstance(value, str) and value.startswith("["):
        value = _listed(value)
    if mark and isinstance(value, str):
        value = [part.strip() for part in value.split(mark) if part.strip()] or ""
    if isinstance(value, list):
        return [_one(item, f"{path}[{number}]") for number, item in enumerate(value)]
    return [_one(value, path)] if mark else _one(value, path)


def _listed(value: str) -> Any:
    """Return the list that a text writes, or the text where it writes none."""
    with contextlib.suppress(msgspec.DecodeError, RecursionError):
        return msgspec.json.decode(value, type=list[Any])
    if _PRINTED.fullmatch(value):
        return ["".join(label) for label in _QUOTED.findall(value)]
    return value


def _one(value: Any, path: str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise ConvertError("no label", path=path, rule="empty-label")
    if isinstance(value, str):
        return value
    raise ConvertError(f"expected a label, got {type_name(value)}", path=path, rule="type")
