"""JSON documents: an array of rows, an object that holds the array, or one row after another.

The text is cut into values by its brackets and quotes, a piece at a time; each value is parsed on
its own. So memory is bounded, and a broken value costs only itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from finetune.checks.report import Fault
from finetune.corpus.containers.row import Raw, Row, parse, too_long
from finetune.files import MAX_LINE_BYTES, Stream
from finetune.text import safe

_CHUNK = 2**20
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{},"]', re.DOTALL)
_IN_TEXT = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_OBJECT = re.compile(rb"\s*\{")
_LIST = re.compile(rb":\s*\[\s*\{")
_QUOTE, _COMMA, _OPEN = ord('"'), ord(","), b"[{"
# Lists of objects that are part of a row, not the rows.
_ROW_KEYS = frozenset(
    b"messages conversations conversation tools functions prompt chosen rejected completion"
    b" history".split()
)


def find_rows(head: bytes) -> tuple[str, int] | None:
    """Return the key of the list that holds the rows of an object, and where its items begin.

    Args:
        head: The beginning of a document whose first character is `{`.
    """
    depth, key, end = 0, b"", 0
    for match in _TOKEN.finditer(head):
        token = head[match.start()]
        if token == _QUOTE:
            if depth == 1:
                key, end = match[0][1:-1], match.end()
        elif token in _OPEN:
            here = depth == 1 and token == ord("[") and head[end : match.start()].strip() == b":"
            if here and key not in _ROW_KEYS and _OBJECT.match(head, match.end()):
                return key.decode("utf-8", "replace"), match.end()
            depth += 1
        elif token != _COMMA:
            depth -= 1
            if depth == 0:
                return None
    return None


def read_array(stream: Stream) -> Iterator[Row | Raw]:
    """Yield the rows of `[…]`."""
    while stream.read(1) != b"[":
        pass
    values = _Values(stream, array=True)
    yield from values.rows()
    if values.rest().strip():
        message = "text behind the end of the list"
        yield Row(values.number + 1, None, Fault("json", "", message))


def read_object(stream: Stream) -> Iterator[Row | Raw]:
    """Yield the rows of `{"data": […], …}`, or the objects of a document themselves."""
    found = find_rows(stream.peek(_CHUNK))
    if found:
        stream.read(found[1])
    values = _Values(stream, array=bool(found))
    yield from values.rows()
    if found and _LIST.search(values.rest()):
        message = f"only the list `{safe(found[0], 40)}` was read, and another one follows"
        yield Row(values.number + 1, None, Fault("second-list", "", message))


class _Values:
    """The values of a JSON text, one at a time.

    Args:
        stream: Stands behind the `[`, or before the first value.
        array: Values are parted by commas and end with `]`, else each is an object.
    """

    def __init__(self, stream: Stream, *, array: bool, limit: int = MAX_LINE_BYTES) -> None:
        self._stream = stream
        self._array = array
        self._limit = limit
        self._buffer = b""
        self._start = 0  # of the value, in the buffer
        self._scanned = 0  # up to where the buffer is understood
        self._skipped = 0  # bytes of the value that were too many to keep
        self._in_text = False  # inside a text that was too long to keep
        self.number = 0

    def rest(self) -> bytes:
        """Return what follows the last value, up to the bound."""
        return self._buffer[self._scanned :] + self._stream.read(self._limit)

    def rows(self) -> Iterator[Row | Raw]:  # noqa: C901, PLR0912 (one state machine, read as a whole)
        """Yield each value as a row."""
        depth = 0
        while True:
            for match in _TOKEN.finditer(self._buffer, self._scanned):
                start, self._scanned = match.span()
                token = self._buffer[start]
                if token == _QUOTE:
                    if self._scanned - start == 1:  # the text goes on in the next piece
                        self._scanned = start
                        break
                elif token in _OPEN:
                    depth += 1
                elif token == _COMMA:
                    if depth == 0 and self._array:
                        yield self._row(start)
                else:
                    depth -= 1
                    if depth < 0:
                        # Nothing before the `]` is an empty list, or a comma too many.
                        if (
                            self.number
                            or self._skipped
                            or self._buffer[self._start : start].strip()
                        ):
                            yield self._row(start)
                        return
                    if depth == 0 and not self._array:
                        yield self._row(self._scanned)
            else:
                self._scanned = len(self._buffer)
            if not self._more():
                yield from self._cut()
                return

    def _row(self, end: int) -> Row | Raw:
        self.number += 1
        size = self._skipped + end - self._start
        data = self._buffer[self._start : end]
        self._start, self._skipped = self._scanned, 0
        if size > self._limit:
            return too_long(self.number, size, self._limit)
        if not data.strip():
            return Row(self.number, None, Fault("json", "", "a comma with no value beside it"))
        return Raw(self.number, data)

    def _cut(self) -> Iterator[Row | Raw]:
        self._stream.check_end(self.number + 1)
        data, self._buffer = self._buffer[self._start :], b""
        if self._skipped:
            yield too_long(self.number + 1, self._skipped + len(data), self._limit)
            return
        if data.strip():
            self.number += 1
            row = parse(self.number, data, cut=True)
            yield row
            if row.fault:
                return
        if self._array:
            message = "the file ends before the list does"
            yield Row(self.number + 1, None, Fault("truncated", "", message))

    def _more(self) -> bool:
        if len(self._buffer) - self._start > self._limit:
            self._forget()
        else:
            self._buffer = self._buffer[self._start :]
            self._scanned -= self._start
        self._start = 0
        # More at once where a long text is looked through again from its beginning.
        while chunk := self._stream.read(max(_CHUNK, len(self._buffer) // 4)):
            self._buffer += chunk
            if not self._in_text or self._leave_text():
                return True
        return False

    def _forget(self) -> None:
        """Keep only what is needed to find the end of a value that is too long."""
        self._skipped += self._scanned - self._start
        self._buffer, self._scanned = self._buffer[self._scanned :], 0
        if len(self._buffer) > self._limit:  # one text alone is too long
            self._in_text = True
            self._skipped += 1
            self._buffer = self._buffer[1:]
            self._leave_text()

    def _leave_text(self) -> bool:
        """Drop the text up to its closing quote; tell whether that was there."""
        match = _IN_TEXT.match(self._buffer)
        end = match.end() if match else 0
        self._in_text = self._buffer[end : end + 1] != b'"'
        end += not self._in_text
        self._skipped += end
        self._buffer = self._buffer[end:]
        return not self._in_text
