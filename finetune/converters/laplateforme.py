"""La Plateforme's own JSONL: the record as it is, of every kind.

| row                                          | record                 |
|----------------------------------------------|------------------------|
| `{"messages": […], "tools": […]}`            | chat                   |
| `{"text": "…"}`                              | text                   |
| `{"text" or "messages": …, "labels": {…}}`   | classifier             |
| `{"prompt", "chosen", "rejected"}`           | preference             |
| `{"prompt", "completion", "label"}`          | rating                 |
| an unknown key, a null                       | the row is rejected    |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from finetune.converters import (
    anthropic,
    classification,
    glaive,
    logs,
    openai,
    preference,
    rating,
)
from finetune.converters.reading import Detection, as_object, to_record
from finetune.records import KINDS, Record, kind_of

FIELDS = ()
_REQUIRED = {
    kind: {field.name for field in msgspec.structs.fields(struct) if field.required}
    for kind, struct in KINDS.items()
}
_REWRITERS = (anthropic, classification, glaive, logs, openai, preference, rating)


def recognise(rows: Sequence[Any], columns: Mapping[str, str]) -> Detection | None:
    """Return how `rows` are read, when at least half of them are of one kind."""
    kinds = Counter(
        kind for row in rows if (kind := kind_of(row)) and _REQUIRED[kind] <= row.keys()
    )
    if columns or not kinds:
        return None
    kind, count = kinds.most_common(1)[0]
    if 2 * count < len(rows):
        return None
    if any(module.recognise(rows, {}) for module in _REWRITERS):
        return None  # it needs rewriting first
    if kind == "text" and any(kind_of(row) == kind and len(row) > 1 for row in rows):
        return None  # a text beside other things
    return Detection("laplateforme", kind, {}, f"keys of a {kind} record")


def convert(value: Any, source: Detection) -> list[Record]:
    """Return the row as a record.

    Raises:
        ConvertError: It is none of this kind.
    """
    return [to_record(source.kind, as_object(value))]
