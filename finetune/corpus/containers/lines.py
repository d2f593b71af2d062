"""JSON Lines: one row a line; a blank line holds none."""

from __future__ import annotations

from collections.abc import Iterator

from finetune.corpus.containers.row import Raw, Row, too_long
from finetune.files import MAX_LINE_BYTES, Damaged, Stream, read_lines


def read(stream: Stream) -> Iterator[Row | Raw]:
    """Yield the rows of a stream in bounded memory."""
    last: Raw | None = None  # it waits: only the last line can be a cut one
    try:
        for number, data, size in read_lines(stream):
            if data is None:
                if last:
                    yield last
                    last = None
                yield too_long(number, size, MAX_LINE_BYTES)
            elif data and not data.isspace():
                if last:
                    yield last
                last = Raw(number, data)
    except Damaged:
        if last:
            yield last
        raise
    if last:
        yield last._replace(cut=True)
