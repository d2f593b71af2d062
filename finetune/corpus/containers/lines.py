"""JSON Lines: one row a line; a blank line holds none."""

from __future__ import annotations

import io
from collections.abc import Iterator

from finetune.corpus.containers.row import Row, parse, too_long
from finetune.files import MAX_LINE_BYTES, read_lines


def read(stream: io.BufferedReader) -> Iterator[Row]:
    """Yield the rows of a stream in bounded memory."""
    for number, data, size in read_lines(stream):
        if data is None:
            yield too_long(number, size, MAX_LINE_BYTES)
        elif data and not data.isspace():
            row = parse(number, data)
            if row.fault and row.fault.rule == "json" and not stream.peek(1):
                row = parse(number, data, cut=True)
            yield row
