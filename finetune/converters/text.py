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

import re
from collections.abc import Mapping, Sequence
from typing import Any

from finetune.converters import alpaca, pairs
from finetune.converters.reading import Detection, as_object
from finetune.records import Record, TextRecord

FIELDS = ("text",)
# How a conversation begins that a template made a text of: Mistral's, ChatML, Llama's, Gemma's,
# Zephyr's, Alpaca's, and transcripts.
_RENDERED = re.compile(
    r"\s*(?:<s>|<bos>|<\|begin_of_text\|>)?\s*"
    r"(\[INST\]|<\|im_start\|>|<\|start_header_id\|>|<start_of_turn>|<\|(?:system|user)\|>"
    r"|### ?(?:System|Instruction|Human|User):|Below is an instruction that|Human:)"
)


def recognise(rows: Sequence[Any], columns: Mapping[str, str]) -> Detection | None:
    """Return how `rows` are read, when most hold a text beside other things, and no labels."""
    if "text" in columns:
        return Detection("text", "text", dict(columns), "`columns` says what holds the text")
    fitting = [row for row in rows if isinstance(row, dict) and isinstance(row.get("text"), str)]
    if 2 * len(fitting) < len(rows) or any("label" in row or "labels" in row for row in fitting):
        return None
    if all(len(row) == 1 for row in fitting):
        return None  # La Plateforme's
    if _render(fitting):
        return None
    return Detection("text", "text", {}, "a key `text`, and no other key that says what it is")


def _render(rows: Sequence[dict[str, Any]]) -> bool:
    """Tell whether the texts of most rows hold their questions and answers: those are the data."""
    for module, names in ((alpaca, ("instruction", "output")), (pairs, ("user", "assistant"))):
        if found := module.recognise(rows, {}):
            columns = [found.column(name) for name in names]
            held = sum(all(str(row.get(key)) in row["text"] for key in columns) for row in rows)
            return 2 * held >= len(rows)
    return False


def find_template(rows: Sequence[Any]) -> str | None:
    """Return the mark of a template with which most texts begin, such as `[INST]`."""
    texts = [row["text"] for row in rows if isinstance(row, dict) and "text" in row]
    marks = [
        match[1] for text in texts if isinstance(text, str) and (match := _RENDERED.match(text))
    ]
    return marks[0] if marks and 2 * len(marks) >= len(rows) else None


def convert(value: Any, source: Detection) -> list[Record]:
    """Return the document of one row.

    Raises:
        ConvertError: It holds no text.
    """
    return [TextRecord(text=source.text(as_object(value), "text"))]
