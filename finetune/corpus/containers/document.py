"""Plain text, Markdown and source files: the whole file is one row."""

from __future__ import annotations

import io
from collections.abc import Iterator

from finetune.checks.report import Fault
from finetune.converters.code.screening import MAX_BYTES
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


def read_source(file: io.BufferedIOBase, name: str) -> Iterator[Row]:
    """Yield one row with the `path` and `text` of a file as it lies there, never decompressed.

    Where it is not UTF-8 text, or longer than a source file may be, `bytes` tells its size instead.
    """
    data = file.read(MAX_BYTES + 1)
    size = len(data)
    while rest := file.read(2**20) if size > MAX_BYTES else b"":
        size += len(rest)
    if size <= MAX_BYTES and b"\0" not in data:
        try:
            yield Row(1, {"path": name, "text": data.decode("utf-8-sig")})
        except UnicodeDecodeError:
            pass
        else:
            return
    yield Row(1, {"path": name, "bytes": size})
