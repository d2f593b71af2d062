"""Plain text and Markdown: the whole file is one row."""

from __future__ import annotations

from collections.abc import Iterator

from finetune.checks.report import Fault
from finetune.corpus.containers.row import Row, too_long
from finetune.files import MAX_LINE_BYTES, Stream


def read(stream: Stream) -> Iterator[Row]:
    """Yield one row with the file's `text`."""
    data = stream.read(MAX_LINE_BYTES + 1)
    size = len(data)
    while rest := stream.read(2**20) if size > MAX_LINE_BYTES else b"":
        size += len(rest)
    stream.check_end(1)
    if size > MAX_LINE_BYTES:
        yield too_long(1, size, MAX_LINE_BYTES)
        return
    try:
        yield Row(1, {"text": data.decode("utf-8")})
    except UnicodeDecodeError as error:
        yield Row(1, None, Fault("utf-8", "", f"not UTF-8 at byte {error.start + 1}"))
