"""CSV and TSV: one row a line or several, the first line names the columns."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator

from finetune.checks.report import Fault
from finetune.corpus.containers.row import Row, too_long
from finetune.errors import DataError
from finetune.files import MAX_LINE_BYTES
from finetune.text import plural, safe

DELIMITERS = ",;\t|^~\x1f\x01"
_HEAD = 2**16  # bytes that are enough to tell the delimiter


def find_delimiter(head: bytes) -> str | None:
    """Return the character that parts the cells of the first lines, else None.

    It is the one that gives the most columns among those that give the second row as many cells.
    """
    text = head[:_HEAD].decode("utf-8", "ignore")
    best, columns = None, 1
    for delimiter in DELIMITERS:
        try:
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
            rows = [row for row in itertools.islice(reader, 3) if row]
        except csv.Error:
            continue
        header = len(rows[0]) if rows else 0
        # The last row may be cut by the end of the head.
        if header > columns and all(len(row) == header for row in rows[1:-1][:1]):
            best, columns = delimiter, header
    return best


def read(stream: io.BufferedReader) -> Iterator[Row]:
    """Yield the rows of a stream in bounded memory, each an object column → text.

    Raises:
        DataError: Two columns have one name.
    """
    delimiter = find_delimiter(stream.peek(_HEAD)) or "\x1f"  # one column: nothing parts its cells
    # The library's bound is a setting of the process; ours is the same for every reader.
    csv.field_size_limit(MAX_LINE_BYTES)
    lines = _Lines(stream)
    # strict: a quote in the wrong place is a fault, not a guess.
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        header = _header(next(filter(None, reader), []))
    except csv.Error:
        raise DataError("the header cannot be read", line=1, rule="table") from None
    width = len(header)
    while True:
        lines.start()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield Row(
                lines.first,
                None,
                Fault("table", "", "a cell that does not end, or a stray line end"),
            )
            continue
        if lines.oversize:
            yield too_long(lines.first, lines.oversize, MAX_LINE_BYTES)
        elif not cells:
            continue
        elif len(cells) != width:
            message = f"{plural(len(cells), 'cell')}, the header has {width}"
            yield Row(lines.first, None, Fault("ragged-row", "", message))
        elif fault := _encoding_fault(cells):
            yield Row(lines.first, None, fault)
        else:
            yield Row(lines.first, dict(zip(header, cells, strict=True)))


def _header(cells: list[str]) -> list[str]:
    twice = sorted({cell for cell in cells if cells.count(cell) > 1})
    if twice:
        shown = ", ".join(f"`{safe(cell, 40)}`" for cell in twice[:5])
        raise DataError(
            f"two columns have one name: {shown}",
            line=1,
            rule="duplicate-column",
            hint="give each column its own name",
        )
    return cells


def _encoding_fault(cells: list[str]) -> Fault | None:
    text = "".join(cells)
    if text.isascii():
        return None
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        offset = len(text[: error.start].encode("utf-8")) + 1
        return Fault("utf-8", "", f"not UTF-8 at byte {offset} of its cells")
    return None


class _Lines:
    """The lines of a stream as text, with their ends, for the csv module.

    Bytes that are not UTF-8 become lone surrogates, so that only their row is rejected.
    """

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream
        self._number = 0
        self.first = 1
        self.oversize = 0

    def start(self) -> None:
        """Begin a new row."""
        self.first = self._number + 1
        self.oversize = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        data = self._stream.readline(MAX_LINE_BYTES)
        if not data:
            raise StopIteration
        self._number += 1
        if len(data) == MAX_LINE_BYTES and not data.endswith(b"\n"):
            self.oversize = len(data)
            while (more := self._stream.readline(2**20)) and not more.endswith(b"\n"):
                self.oversize += len(more)
            self.oversize += len(more)
            return "\n"
        return data.decode("utf-8", "surrogateescape")
