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

from finetune.converters import openai
from finetune.converters.reading import Detection, as_object, to_record
from finetune.records import Record, kind_of

FIELDS = ()


def recognise(rows: Sequence[Any], columns: Mapping[str, str]) -> Detection | None:
    """Return how `rows` are read, when at least half of them are of one kind."""
    kinds = Counter(kind_of(row) for row in rows)
    kind, count = kinds.most_common(1)[0]
    if kind is None or columns or 2 * count < len(rows):
        return None
    if kind == "chat" and openai.recognise(rows, {}):
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
