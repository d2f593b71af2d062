"""JSON Lines: one row a line; a blank line holds none."""

from __future__ import annotations

import io
from collections.abc import Iterator

from finetune.corpus.containers.row import Row, parse, too_long
from finetune.files import MAX_LINE_BYTES, read_lines


def read(stream: io.BufferedReader) -> Iterator[Row]:
    """Yield the rows of a stream in bounded memory."""
    broken: tuple[int, bytes] | None = None  # it waits: only the last line can be a cut one
    for number, data, size in read_lines(stream):
        if data is not None and (not data or data.isspace()):
            continue
        if broken:
            yield parse(*broken)
            broken = None
        row = too_long(number, size, MAX_LINE_BYTES) if data is None else parse(number, data)
        if data is not None and row.fault and row.fault.rule == "json":
            broken = (number, data)
        else:
            yield row
    if broken:
        yield parse(*broken, cut=True)
