"""Containers: what holds rows, told by its content, read in bounded memory.

CONTAINERS is the whole list. A new container is one module with a `read`, one line here and a
line in `_sniff`.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from finetune.checks.report import Fault
from finetune.corpus.containers import array, columnar, document, lines, table, workbook
from finetune.corpus.containers.encoding import Transcoded, find_encoding
from finetune.corpus.containers.row import Raw, Row, parse
from finetune.errors import DataError, UsageError
from finetune.files import COMPRESSIONS, Damaged, Stream, open_stream

__all__ = [
    "CONTAINERS",
    "Container",
    "Raw",
    "Row",
    "is_data_file",
    "is_text_file",
    "open_container",
    "open_source",
]

# `read` gets a stream; the formats that need to jump in a file get one that can seek.
CONTAINERS: dict[str, Callable[[Any], Iterator[Row | Raw]]] = {
    "JSON Lines": lines.read,
    "a JSON list": array.read_array,
    "a JSON document": array.read_object,
    "CSV": table.read,
    "a text": document.read,
    "Parquet": columnar.read_parquet,
    "Arrow": columnar.read_arrow,
    "an Arrow stream": columnar.read_arrow_stream,
    "an Excel workbook": workbook.read,
}
TEXTS = (".txt", ".md")
_SEEKING = ("Parquet", "Arrow", "an Excel workbook")
SUFFIXES = (
    ".jsonl",
    ".ndjson",
    ".json",
    ".csv",
    ".tsv",
    ".txt",
    ".md",
    ".parquet",
    ".arrow",
    ".feather",
    ".xlsx",
)

_HEAD = 2**20
_OTHERS = (
    (b"%PDF", "a PDF document"),
    (b"FEA1", "a Feather file of the first version"),
    (b"SQLite format 3", "an SQLite database"),
    (b"\xd0\xcf\x11\xe0", "an office document of the old kind"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x04\x22\x4d\x18", "LZ4-compressed data"),
    (b"\x80\x04\x95", "a pickle, which is never opened"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"<", "a markup document"),
)
_DOCUMENTS = (
    "a PDF document",
    "a Word document",
    "an OpenDocument file",
    "an office document",
    "an office document of the old kind",
    "an e-book",
    "a markup document",
)


class Container(NamedTuple):
    """An opened file.

    Attributes:
        name: Its line in CONTAINERS.
        items: What it holds, JSON texts as they were read; a fault stands where a row cannot be
            read.
        has_bom: It begins with a byte order mark, which is no part of its rows.
        encoding: What its text was decoded from, such as `utf-8`, `utf-16-le` or `cp1252`.
    """

    name: str
    items: Iterator[Row | Raw]
    has_bom: bool = False
    encoding: str = "utf-8"

    @property
    def rows(self) -> Iterator[Row]:
        """The same, parsed."""
        return (item.parse() if isinstance(item, Raw) else item for item in self.items)


def open_container(file: io.BufferedIOBase, place: str, *, document: bool = False) -> Container:
    """Return the rows of an open file, whatever holds them.

    Args:
        file: A binary stream, also one that cannot seek; it stays open.
        place: Its name for messages; its suffix decides where the content leaves a choice.
        document: A text file is one document, whatever it looks like.

    Raises:
        DataError: It is empty.
        UsageError: It is of no known format.
    """
    stream = open_stream(file, place)
    if name := _sniff_binary(stream.peek(_HEAD)):
        return Container(name, _name_end(_read_binary(name, file, stream, place)))
    encoding, mark = find_encoding(stream.peek(_HEAD))
    stream.read(mark)
    if encoding != "utf-8":
        stream = Stream(Transcoded(stream, encoding), place)
    head = stream.peek(_HEAD)
    if not head.strip():
        stream.check_end(1)
        raise DataError("the file is empty", file=place, rule="empty-file")
    name = "a text" if document and is_text_file(Path(place)) else _sniff(head, place)
    return Container(name, _name_end(CONTAINERS[name](stream)), mark > 0, encoding)


def _sniff_binary(head: bytes) -> str | None:
    if head.startswith(b"PAR1"):
        return "Parquet"
    if head.startswith(b"ARROW1\0\0"):
        return "Arrow"
    # An Arrow message: its mark, its length, then a table of offsets.
    if head.startswith(b"\xff\xff\xff\xff") and head[7:8] == b"\0" and head[10:12] == b"\0\0":
        return "an Arrow stream"
    return "an Excel workbook" if head.startswith(b"PK\x03\x04") else None


def _read_binary(
    name: str, file: io.BufferedIOBase, stream: Stream, place: str
) -> Iterator[Row | Raw]:
    if name not in _SEEKING:
        yield from CONTAINERS[name](stream)
    elif not stream.packed and file.seekable():
        file.seek(0)
        yield from _read_seekable(name, file, place)
    else:
        with tempfile.TemporaryFile() as whole:
            shutil.copyfileobj(stream, whole, _HEAD)
            stream.check_end(1)
            whole.seek(0)
            yield from _read_seekable(name, whole, place)


def _read_seekable(name: str, file: Any, place: str) -> Iterator[Row | Raw]:
    if name == "an Excel workbook" and (seen := _name_zip(file)):
        raise _unknown(place, seen)
    yield from CONTAINERS[name](file)


def _name_zip(file: Any) -> str | None:
    """Return what a zip archive is, or None where it is a workbook or damaged."""
    with contextlib.suppress(zipfile.BadZipFile, OSError, ValueError, IndexError, RuntimeError):
        archive = zipfile.ZipFile(file)
        names = set(archive.namelist())
        if "xl/workbook.xml" in names:
            return None
        if "word/document.xml" in names:
            return "a Word document"
        if "mimetype" in names and archive.getinfo("mimetype").file_size < 100:
            kind = archive.read("mimetype").decode("latin-1")
            return "an e-book" if "epub" in kind else "an OpenDocument file"
        return "an office document" if "[Content_Types].xml" in names else "a zip archive"
    return None


def open_source(file: io.BufferedIOBase, place: str) -> Container:
    """Return the one row of a file of a source tree: its `path` and `text`."""
    return Container("a source file", document.read_source(file, place))


def is_text_file(path: PurePath) -> bool:
    """Tell by its name whether a file is a document, which a folder of data may have beside it."""
    return path.suffix.lower() in TEXTS


def is_data_file(path: PurePath) -> bool:
    """Tell by its name whether a file of a folder is taken for data."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return bool(suffixes) and suffixes[-1] in SUFFIXES


def _name_end(items: Iterator[Row | Raw]) -> Iterator[Row | Raw]:
    """Yield the items, and what is wrong with the file behind the last one that is whole."""
    line = 0
    try:
        for item in items:
            line = item.line
            yield item
    except Damaged as error:
        yield Row(max(line + 1, error.line or 0), None, Fault(str(error.rule), "", error.fact))


def _sniff(head: bytes, place: str) -> str:
    suffixes = [suffix.lower() for suffix in Path(place).suffixes]
    text = head.lstrip()
    first, _, rest = text.partition(b"\n")
    seen = next((what for magic, what in _OTHERS if head.startswith(magic)), None)
    if seen and not (seen == "a markup document" and ".md" in suffixes):
        raise _unknown(place, seen)
    if ".jsonl" in suffixes or ".ndjson" in suffixes:
        name = "JSON Lines"
    elif b"\0" in head:
        raise _unknown(place, "binary data")
    elif ".md" in suffixes:
        name = "a text"
    elif text.startswith(b"["):
        name = "a JSON list"
    elif text.startswith(b"{"):
        # A first line may be broken where the others are whole.
        lined = any(_is_object(line) for line in (first, *rest.split(b"\n", 20)[:20]))
        name = "JSON Lines" if lined and not array.find_rows(text) else "a JSON document"
    elif ".txt" in suffixes:
        name = "CSV" if table.is_table(head) else "a text"
    elif {".csv", ".tsv"} & set(suffixes) or table.find_delimiter(head):
        name = "CSV"
    else:
        raise _unknown(place, "text without columns")
    return name


def _is_object(line: bytes) -> bool:
    return line.startswith(b"{") and parse(1, line).fault is None


def _unknown(place: str, seen: str) -> UsageError:
    documents = (
        "a PDF document",
        "a Word document",
        "an OpenDocument file",
        "an e-book",
        "an office document",
        "a markup document",
    )
    if seen in documents:
        hint = "take its text out first, for example with pdftotext or pandoc: a layout is a guess"
    else:
        hint = (
            "known are JSON Lines, JSON, CSV, TSV, Parquet, Arrow, xlsx, text and Markdown, also"
            " compressed (gz, bz2, xz, zst)"
        )
    return UsageError(f"{place}: unknown format: it looks like {seen}", hint=hint)
