r"""Text: a document a row.

| row                                                        | record                             |
|------------------------------------------------------------|------------------------------------|
| a file of plain text or Markdown, `{"text": "T", "path"}`  | `T`, as it stands in the file      |
| `{"text": "T", "url": …}`                                  | `T`, the others are not used       |
| `columns: {text: body}` or `{text: "{title}\n\n{body}"}`   | that column, or all of them        |
| an empty text                                              | stays, for the rule `empty-text`   |
| no text, a number, a list                                  | the row is rejected                |

How a document is cut into records (`chunks:` in a recipe) is decided behind the converter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finetune.converters.reading import Detection, as_object
from finetune.records import Record, TextRecord

FIELDS = ("text",)


def recognise(rows: Sequence[Any], columns: Mapping[str, str]) -> Detection | None:
    """Return how `rows` are read, when most hold a text beside other things, and no labels."""
    if "text" in columns:
        return Detection("text", "text", dict(columns), "`columns` says what holds the text")
    fitting = [row for row in rows if isinstance(row, dict) and isinstance(row.get("text"), str)]
    if 2 * len(fitting) < len(rows) or any("label" in row or "labels" in row for row in fitting):
        return None
    if all(len(row) == 1 for row in fitting):
        return None  # La Plateforme's
    return Detection("text", "text", {}, "a key `text`, and no other key that says what it is")


def convert(value: Any, source: Detection) -> list[Record]:
    """Return the document of one row.

    Raises:
        ConvertError: It holds no text.
    """
    return [TextRecord(text=source.text(as_object(value), "text"))]
