"""Containers: what holds rows, told by its content, read in bounded memory.

CONTAINERS is the whole list. A new container is one module with a `read`, one line here and a
line in `_sniff`.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from finetune.checks.report import Fault
from finetune.corpus.containers import array, lines, table
from finetune.corpus.containers.row import Raw, Row, parse
from finetune.errors import DataError, UsageError

__all__ = ["CONTAINERS", "Container", "Raw", "Row", "is_data_file", "open_container"]

CONTAINERS: dict[str, Callable[[io.BufferedReader], Iterator[Row | Raw]]] = {
    "JSON Lines": lines.read,
    "a JSON list": array.read_array,
    "a JSON document": array.read_object,
    "CSV": table.read,
}
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt")
COMPRESSIONS = (".gz", ".bz2", ".xz")

_HEAD = 2**20
_COMPRESSED: tuple[tuple[bytes, Callable[[Any], Any]], ...] = (
    (b"\x1f\x8b", lambda file: gzip.GzipFile(fileobj=file)),
    (b"BZh", bz2.BZ2File),
    (b"\xfd7zXZ\x00", lzma.LZMAFile),
)
_OTHERS = (
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a zip archive or an office document"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed data"),
    (b"SQLite format 3", "an SQLite database"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"<", "a markup document"),
    (codecs.BOM_UTF32_LE, "UTF-32 text"),
    (codecs.BOM_UTF16_LE, "UTF-16 text"),
    (codecs.BOM_UTF16_BE, "UTF-16 text"),
)


class Container(NamedTuple):
    """An opened file.

    Attributes:
        name: Its line in CONTAINERS.
        items: What it holds, JSON texts as they were read; a fault stands where a row cannot be
            read.
        has_bom: It begins with a byte order mark, which is no part of its rows.
    """

    name: str
    items: Iterator[Row | Raw]
    has_bom: bool

    @property
    def rows(self) -> Iterator[Row]:
        """The same, parsed."""
        return (item.parse() if isinstance(item, Raw) else item for item in self.items)


def open_container(file: io.BufferedIOBase, place: str) -> Container:
    """Return the rows of an open file, whatever holds them.

    Args:
        file: A binary stream, also one that cannot seek.
        place: Its name for messages; its suffix decides where the content leaves a choice.

    Raises:
        DataError: It is empty.
        UsageError: It is of no known format.
    """
    source = _decompress(_Source(file))
    stream: io.BufferedReader[Any] = io.BufferedReader(source, _HEAD)
    head = stream.peek(_HEAD)
    has_bom = head.startswith(codecs.BOM_UTF8)
    if has_bom:
        stream.read(len(codecs.BOM_UTF8))
        head = stream.peek(_HEAD)
    if not head.strip():
        raise DataError("the file is empty", file=place, rule="empty-file")
    name = _sniff(head, place)
    return Container(name, _check_end(CONTAINERS[name](stream), source), has_bom)


def is_data_file(path: Path) -> bool:
    """Tell by its name whether a file of a folder is taken for data."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return bool(suffixes) and suffixes[-1] in SUFFIXES


class _Source(io.RawIOBase):
    """A file read in whole pieces, also a slow pipe; closing it is left to whoever opened it.

    Compressed data that are damaged end there, and `broken` says so.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self.broken = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = 0
        try:
            while size < len(buffer) and (data := self._file.read1(len(buffer) - size)):
                buffer[size : size + len(data)] = data
                size += len(data)
        except (EOFError, zlib.error, lzma.LZMAError):
            self.broken = True
        except OSError as error:
            if error.errno is not None:  # the disk, not the data
                raise
            self.broken = True
        return size


def _decompress(plain: _Source) -> _Source:
    stream = io.BufferedReader(plain, _HEAD)
    head = stream.peek(6)
    for magic, opener in _COMPRESSED:
        if head.startswith(magic):
            return _Source(opener(stream))
    return _Source(stream)


def _check_end(items: Iterator[Row | Raw], source: _Source) -> Iterator[Row | Raw]:
    line = 0
    for item in items:
        line = item.line
        yield item
    if source.broken:
        message = "the compressed data end too early or are damaged"
        yield Row(line + 1, None, Fault("truncated", "", message))


def _sniff(head: bytes, place: str) -> str:
    suffixes = [suffix.lower() for suffix in Path(place).suffixes]
    text = head.lstrip()
    first, _, rest = text.partition(b"\n")
    if seen := next((what for magic, what in _OTHERS if head.startswith(magic)), None):
        raise _unknown(place, seen)
    if ".jsonl" in suffixes or ".ndjson" in suffixes:
        name = "JSON Lines"
    elif b"\0" in head:
        raise _unknown(place, "binary data")
    elif text.startswith(b"["):
        name = "a JSON list"
    elif text.startswith(b"{"):
        # A first line may be broken where the others are whole.
        lined = any(_is_object(line) for line in (first, *rest.split(b"\n", 20)[:20]))
        name = "JSON Lines" if lined and not array.find_rows(text) else "a JSON document"
    elif {".csv", ".tsv"} & set(suffixes) or table.find_delimiter(head):
        name = "CSV"
    else:
        raise _unknown(place, "text without columns")
    return name


def _is_object(line: bytes) -> bool:
    return line.startswith(b"{") and parse(1, line).fault is None


def _unknown(place: str, seen: str) -> UsageError:
    return UsageError(
        f"{place}: unknown format: it looks like {seen}",
        hint="known are JSON Lines, JSON, CSV and TSV in UTF-8, also compressed (gz, bz2, xz)",
    )
