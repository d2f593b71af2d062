"""CSV and TSV: one row a line or several, the first line names the columns."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Iterator

from finetune.checks.report import Fault
from finetune.corpus.containers.row import Row, too_long
from finetune.errors import DataError
from finetune.files import MAX_LINE_BYTES, Stream
from finetune.text import plural, safe

DELIMITERS = ",;\t|^~\x1f\x01"
MAX_COLUMNS = 16_384  # as many as a spreadsheet has
MAX_LINES = 100_000  # of one row

_HEAD = 2**16  # bytes that are enough to tell the delimiter
_FIRST = 10  # rows that are held against the header
_SAMPLE = 100  # lines looked at to tell rows from the text of a cell
_SEPARATOR = re.compile(rb"sep=([,;\t|^~])\r?\n")


def find_delimiter(head: bytes) -> str | None:
    """Return the character that parts the cells of the first lines, else None.

    It is the one that gives the most columns among those that give another of the first rows as
    many cells: a row that has more or fewer is a fault of its own.
    """
    text = head[:_HEAD].decode("utf-8", "ignore")
    best, columns = None, 1
    for delimiter in DELIMITERS:
        try:
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
            rows = [row for row in itertools.islice(reader, _FIRST) if row]
        except csv.Error:
            continue
        header = len(rows[0]) if rows else 0
        # An only row behind the header may be cut by the end of the head.
        if header > columns and (len(rows) < 3 or header in map(len, rows[1:])):
            best, columns = delimiter, header
    return best


def is_table(head: bytes) -> bool:
    """Tell whether a text is a table by its first rows: each has the cells of the header.

    Prose has commas too, but not as many in each line.
    """
    delimiter = find_delimiter(head)
    if delimiter is None:
        return False
    text = head[:_HEAD].decode("utf-8", "ignore")
    try:
        rows = list(filter(None, csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)))
    except csv.Error:
        return False
    if len(head) >= _HEAD:
        rows.pop()  # the end of the head may cut it
    return len(rows) > 1 and len({len(row) for row in rows}) == 1


def read(stream: Stream) -> Iterator[Row]:
    """Yield the rows of a stream in bounded memory, each an object column → text.

    A quote that nobody closed costs its own row: where the lines behind it are rows by themselves,
    they are read as such.

    Raises:
        DataError: The header cannot be read, or two columns have one name.
    """
    lines = _Lines(stream)
    delimiter = _begin(lines, stream.peek(_HEAD))
    # The library's bound is a setting of the process; ours is the same for every reader.
    csv.field_size_limit(MAX_LINE_BYTES)
    # strict: a quote in the wrong place is a fault, not a guess.
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        header = name_columns(next(filter(None, reader), []))
    except (csv.Error, _TooLong):
        raise DataError("the header cannot be read", line=1, rule="table") from None
    while True:
        lines.start()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except (csv.Error, _TooLong) as error:
            yield _broken(lines, error, delimiter, len(header))
        else:
            if cells:
                yield _row(lines.first, header, cells)


def _begin(lines: _Lines, head: bytes) -> str:
    """Return the delimiter."""
    if b"\r" in head and b"\n" not in head:
        hint = "save it again with LF or CR LF line ends"
        raise DataError("its lines end in CR alone", line=1, rule="table", hint=hint)
    if said := _SEPARATOR.match(head):  # Excel's way to name it
        next(lines)
        return said[1].decode("latin-1")
    return find_delimiter(head) or "\x1f"  # nothing parts the cells of an only column


def _broken(lines: _Lines, error: Exception, delimiter: str, width: int) -> Row:
    if lines.read_again(delimiter, width):
        fault = Fault("table", "", "a quoted cell begins here and does not end")
    elif isinstance(error, _TooLong):
        return too_long(lines.first, lines.skip_cell(delimiter, width), MAX_LINE_BYTES)
    else:
        fault = Fault("table", "", "a cell that does not end, or a stray quote or line end")
    return Row(lines.first, None, fault)


def _row(line: int, header: list[str], cells: list[str]) -> Row:
    if len(cells) != len(header):
        message = f"{plural(len(cells), 'cell')}, the header has {len(header)}"
        return Row(line, None, Fault("ragged-row", "", message))
    if fault := _encoding_fault(cells):
        return Row(line, None, fault)
    return Row(line, dict(zip(header, cells, strict=True)))


def name_columns(cells: list[str]) -> list[str]:
    """Return the cells of a header, each its own name.

    Raises:
        DataError: Two are the same, or they are too many.
    """
    if len(cells) > MAX_COLUMNS:
        fact = f"{plural(len(cells), 'column')}, the limit is {MAX_COLUMNS:,}"
        raise DataError(fact, line=1, rule="table")
    if fault := _encoding_fault(cells):
        raise DataError(fault.message, line=1, rule=fault.rule)
    twice = sorted(cell for cell, count in Counter(cells).items() if count > 1)
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


class _TooLong(Exception):
    """The lines of a row are more than are kept."""


class _Lines:
    """The lines of a stream as text, with their ends, for the csv module.

    Bytes that are not UTF-8 become lone surrogates, so that only their row is rejected. The lines
    of the row that is being read are kept, for reading them again one by one.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._number = 0
        self._row: list[bytes] = []
        self._size = 0
        self._quotes = 0  # in lines of the row that were too long to keep
        self._again: list[bytes] = []  # in reverse order
        self.first = 1

    def start(self) -> None:
        """Begin a new row."""
        self.first = self._number + 1
        self._row.clear()
        self._size = self._quotes = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        data = self._again.pop() if self._again else self._stream.readline(MAX_LINE_BYTES)
        if not data.endswith(b"\n"):
            if len(data) == MAX_LINE_BYTES:
                self._skip_line(data)
                raise _TooLong
            self._stream.check_end(self._number + 1)
            if not data:
                raise StopIteration
        self._number += 1
        self._row.append(data)
        self._size += len(data)
        if self._size > MAX_LINE_BYTES or len(self._row) > MAX_LINES:
            raise _TooLong
        return data.decode("utf-8", "surrogateescape")

    def _skip_line(self, data: bytes) -> None:
        self._number += 1
        while data:
            self._size += len(data)
            self._quotes += data.count(b'"')
            data = b"" if data.endswith(b"\n") else self._stream.readline(2**20)

    def read_again(self, delimiter: str, width: int) -> bool:
        """Go back behind the row's first line if what follows are rows by themselves; tell so."""
        rest = self._row[1:]
        if not _are_rows(rest, delimiter, width):
            return False
        self._again += reversed(rest)
        self._number -= len(rest)
        return True

    def skip_cell(self, delimiter: str, width: int) -> int:
        """Skip the rest of a row that is too long, and return the size of it all."""
        quotes = self._quotes + sum(line.count(b'"') for line in self._row)
        size, ahead = self._size, list[bytes]()
        while quotes % 2 and (data := self._stream.readline(2**20)):
            if len(ahead) < _SAMPLE:
                ahead.append(data)
                if len(ahead) == _SAMPLE and _are_rows(ahead, delimiter, width):
                    self._again += reversed(ahead)
                    return size
            quotes += data.count(b'"')
            self._number += data.endswith(b"\n")
            size += len(data)
        return size


def _are_rows(lines: list[bytes], delimiter: str, width: int) -> bool:
    """Tell whether lines, one by one, are rows of a table rather than the text of a cell."""
    sample = [line for line in lines[:_SAMPLE] if line.strip()]
    if width < 2 or not sample:
        return False
    whole = 0
    for line in sample:
        text = line.decode("utf-8", "surrogateescape")
        with contextlib.suppress(csv.Error):
            cells = next(csv.reader([text], delimiter=delimiter, strict=True))
            whole += len(cells) == width and text.count('"') % 2 == 0
    return whole >= 0.8 * len(sample)
