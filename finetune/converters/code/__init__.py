r"""Code: a source file a row, for fill-in-the-middle and continued pretraining.

| row                                                      | record                               |
|----------------------------------------------------------|--------------------------------------|
| `{"path": "a/b.py", "text": "x = 1\n"}`                  | `# a/b.py⏎x = 1⏎`                    |
| in C, SQL, HTML, … (by suffix, name or `#!` line)        | the path in a comment of theirs      |
| a first line that must stay: `#!`, `<?php`, `<!doctype`  | the path in the second line          |
| a licence                                                | left out (`licence-file`), and noted |
| in `node_modules`, `vendor`, `dist`, `.venv`, …          | left out: `vendored-file`            |
| not text                                                 | left out: `binary-file`              |
| more than 1 MiB                                          | left out: `file-too-large`           |
| private keys, tokens, `.env`                             | left out: `secret-in-file`           |
| no known language                                        | left out: `not-code`                 |
| `@generated`, `DO NOT EDIT`, lock files                  | left out: `generated-file`           |
| a line of over 1,000 characters, or 100 on average       | left out: `minified-file`            |
| a byte order mark                                        | is no part of the text               |
| only white space                                         | left out: `empty-file`               |

What is left out is no fault of the corpus: it is counted by its reason, not against
`data.max_rejected`. The spans of fill-in-the-middle are cut later, in tokens.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from finetune.converters.code.languages import comment, find_language
from finetune.converters.code.screening import screen
from finetune.converters.reading import Detection, LeftOut, as_object, text_at
from finetune.records import Record, TextRecord

FIELDS = ("path", "text")
_FIRST = re.compile(r"(?i)#!|<\?|<!doctype")


def recognise(_: Sequence[Any], columns: Mapping[str, str]) -> Detection | None:
    """Return how `rows` are read, when it was said which column is path and which text."""
    if set(FIELDS) <= columns.keys():
        return Detection("code", "text", dict(columns), "`columns` says what holds what")
    return None


def convert(value: Any, source: Detection) -> list[Record]:
    """Return the document that a source file is.

    Raises:
        LeftOut: It is nothing to train on; the rule says why.
        ConvertError: The row is not a file.
    """
    row = as_object(value)
    path, column = text_at(row, source.column("path")), source.column("text")
    if row.get(column) is None and isinstance(row.get("bytes"), int):
        text, size = None, row["bytes"]  # what a reader could not take for text
    else:
        text = text_at(row, column)
        size = len(text)
    if reason := screen(path, text, size):
        raise LeftOut(reason[1], path=None, rule=reason[0])
    text = text or ""
    language = find_language(path, text)
    if language is None:
        raise LeftOut("in no known programming language", rule="not-code")
    return [TextRecord(text=_with_path(text, comment(language, path)))]


def _with_path(text: str, header: str | None) -> str:
    if header is None:
        return text
    end = "\r\n" if "\r\n" in text else "\n"
    if not _FIRST.match(text):
        return f"{header}{end}{text}"
    first, _, rest = text.partition("\n")
    return f"{first.removesuffix(chr(13))}{end}{header}{end}{rest}"
