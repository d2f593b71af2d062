"""Streams: files read from beginning to end in bounded memory, decompressed on the way.

Compression is told by the first bytes, whatever the name says. What is wrong with a compressed
file (it was cut off, it is damaged, it expands without end) shows where its readable part ends:
all that stands before is given, then `Damaged` is raised.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from finetune.errors import DataError, UsageError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAX_LINE_BYTES = 16 * 2**20  # a record of 16 MiB is far beyond any model's context
MAX_EXPANSION = 200  # text is compressed by a factor of 3 to 30
MAX_EXPANDED_BYTES = 10**9  # what a file may expand to, however well it was compressed

_BLOCK = 2**16  # stays in the processor's cache on its way to lines
_WINDOW_LOG = 27  # zstd: decoders need not take windows above 128 MiB, says RFC 8878
_DICTIONARY_BYTES = 2**28  # xz: `xz -9` needs 65 MiB


class Damaged(DataError):
    """A stream that ends before it should; what stands before its end was given."""


class _Counted:
    """A binary file that counts what is read from it."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.size = 0

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._file.read(size)
        self.size += len(data)
        return data


class _Members:
    """Compressed data as one stream, also several that stand one behind the other.

    Args:
        file: The compressed data.
        new: Gives a decompressor with the interface of `bz2.BZ2Decompressor`.
    """

    def __init__(self, file: _Counted, new: Callable[[], Any]) -> None:
        self._file = file
        self._new = new
        self._decoder = new()

    def read1(self, size: int) -> bytes:
        while True:
            data = b""
            if self._decoder.eof:
                data = self._decoder.unused_data or self._file.read(_BLOCK)
                while data and not (rest := data.lstrip(b"\0")):  # padding between members
                    data = self._file.read(_BLOCK)
                if not data:
                    return b""
                data, self._decoder = rest, self._new()
            elif self._decoder.needs_input:
                data = self._file.read(_BLOCK)
                if not data:
                    raise EOFError
            if out := self._decoder.decompress(data, size):
                return bytes(out)


def _new_zstd() -> Any:
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG})


def _new_xz() -> Any:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_DICTIONARY_BYTES)


_DECODERS: tuple[tuple[bytes, Callable[[_Counted], Any]], ...] = (
    (b"\x1f\x8b", lambda file: gzip.GzipFile(fileobj=file)),  # type: ignore[call-overload]
    *(
        (b"BZh%d" % level + block, lambda file: _Members(file, bz2.BZ2Decompressor))
        for level in range(1, 10)
        for block in (b"1AY&SY", b"\x17rE8P\x90")  # with data, without
    ),
    (b"\xfd7zXZ\x00", lambda file: _Members(file, _new_xz)),
    (b"\x28\xb5\x2f\xfd", lambda file: _Members(file, _new_zstd)),
    # a frame to be skipped, with which parallel compressors begin
    *(
        (bytes([first]) + b"\x2a\x4d\x18", lambda file: _Members(file, _new_zstd))
        for first in range(0x50, 0x60)
    ),
)
_MAGICS = tuple(magic for magic, _ in _DECODERS)
_MAGIC = 10  # bytes that are enough to see one
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")  # of compressed files
_CUT = ("truncated", "the compressed data end too early or are damaged")
_UNREADABLE = (
    EOFError,
    zlib.error,
    lzma.LZMAError,
    zstd.ZstdError,
    zipfile.BadZipFile,
    tarfile.TarError,
)
_TOO_MUCH = (
    "bomb",
    f"expands more than {MAX_EXPANSION}-fold, to more than {MAX_EXPANDED_BYTES:,} bytes",
)


class Pieces(io.RawIOBase):
    """What a file or decompressor gives, in whole pieces, also from a slow pipe.

    Args:
        source: Has `read1`; a stream's damage is this one's.
        packed: Its `size` tells how many bytes `source` was decompressed from so far.
        end: Rule and fact of what is wrong with the file behind `source`.
        most: Bytes asked for at once; what a damaged piece holds is lost.

    Attributes:
        packed: As it was given.
        damage: Rule and fact, once reading has met the end of what can be read.
    """

    def __init__(
        self,
        source: Any,
        packed: Any = None,
        *,
        end: tuple[str, str] | None = None,
        most: int = _BLOCK,
    ) -> None:
        self._most = most
        self._source = source
        self.packed = packed
        self._end = end
        self._given = 0
        self.damage: tuple[str, str] | None = None

    def readable(self) -> bool:
        """Return that it is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as there are data."""
        size = 0
        while not self.damage and size < len(buffer):
            data = self._read(min(len(buffer) - size, self._most))
            if not data:
                self.damage = self.damage or getattr(self._source, "damage", None) or self._end
                break
            buffer[size : size + len(data)] = data
            size += len(data)
            self._given += len(data)
            most = MAX_EXPANSION * self.packed.size if self.packed else None
            if most is not None and self._given > max(most, MAX_EXPANDED_BYTES):
                self.damage = _TOO_MUCH
        return size

    def _read(self, size: int) -> bytes:
        try:
            data: bytes = self._source.read1(size)
        except _UNREADABLE:
            self.damage = _CUT
        except OSError as error:
            if error.errno is not None:  # the disk, not the data
                raise
            self.damage = _CUT
        else:
            return data
        return b""


class Stream(io.BufferedReader):
    """A readable binary file, read once from its beginning to its end.

    Args:
        raw: What is read; its attribute `damage` tells what is wrong with it.
        place: What messages call it.
        opened: A file to be closed with the stream.
    """

    def __init__(self, raw: Any, place: str | None = None, opened: Any = None) -> None:
        super().__init__(raw, _BLOCK)
        self._place = place
        self._opened = opened

    @property
    def packed(self) -> bool:
        """Whether the file is compressed."""
        return getattr(self.raw, "packed", None) is not None

    @property
    def damage(self) -> tuple[str, str] | None:
        """Rule and fact, once reading has met the end of what can be read."""
        found: tuple[str, str] | None = self.raw.damage  # type: ignore[attr-defined]
        return found

    def check_end(self, line: int) -> None:
        """Make sure that the end of the stream is the end of the file.

        Args:
            line: The place behind what was read.

        Raises:
            Damaged: It is not.
        """
        if self.damage:
            rule, fact = self.damage
            raise Damaged(fact, file=self._place, line=line, rule=rule)

    def close(self) -> None:
        """Close it, and what it was opened with."""
        super().close()
        if self._opened:
            self._opened.close()


def open_stream(file: Any, place: str | None = None, *, close: bool = False) -> Stream:
    """Return an open binary file as a stream, decompressed where it is compressed.

    Args:
        file: Any binary file with `read1`, also one that cannot seek.
        place: What messages call it.
        close: Close the file with the stream; else that is left to whoever opened it.

    Raises:
        UsageError: It is compressed, and compressed again.
    """
    opened = file if close else None
    plain = Stream(Pieces(file), place, opened)
    head = plain.peek(_MAGIC)
    for magic, decode in _DECODERS:
        if head.startswith(magic):
            packed = _Counted(plain)
            stream = Stream(Pieces(decode(packed), packed), place, opened)
            if stream.peek(_MAGIC).startswith(_MAGICS):
                stream.close()
                raise UsageError(f"{place}: is compressed twice", hint="unpack it once")
            return stream
    return plain


def open_bytes(path: Path) -> Stream:
    """Open a file for reading, decompressed where it is compressed (gz, bz2, xz, zst).

    Raises:
        UsageError: It is not there or cannot be read.
    """
    try:
        file = open(path, "rb")  # noqa: SIM115 (closed with the stream)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UsageError(f"{path}: is a folder, not a file") from None
    except PermissionError:
        raise UsageError(f"{path}: permission denied") from None
    return open_stream(file, str(path), close=True)


class Line(NamedTuple):
    """One line of a file.

    `data` is without its line end, and None where the line is longer than the bound;
    `size` counts all its bytes, the line end too.
    """

    number: int
    data: bytes | None
    size: int


def read_lines(file: IO[bytes], *, limit: int = MAX_LINE_BYTES) -> Iterator[Line]:
    """Yield the lines of `file` in bounded memory, counting from 1.

    CRLF line ends are taken off. A byte order mark stays: it is a finding of the caller's.

    Raises:
        Damaged: A stream ends before it should. The line that it ends in is not given: nobody
            knows whether it is whole.
    """
    number = lost = size = 0  # bytes that were not kept, and were, of the line that goes on
    pieces: list[bytes] = []
    while block := file.read(_BLOCK):
        lines = block.split(b"\n")
        tail = lines.pop()
        if lines and (lost or pieces):
            pieces.append(lines[0])
            lines[0] = b"".join(pieces)
            pieces, size = [], 0
        for line in lines:
            number += 1
            data = line[:-1] if line.endswith(b"\r") else line
            kept = None if lost or len(data) > limit else data
            yield Line(number, kept, lost + len(line) + 1)
            lost = 0
        if tail:
            pieces.append(tail)
            size += len(tail)
        if lost or size > limit + 1:
            lost, size, pieces = lost + size, 0, []
    if isinstance(file, Stream):
        file.check_end(number + 1)
    if size or lost:
        line = b"".join(pieces)
        data = line.removesuffix(b"\r")
        yield Line(number + 1, None if lost or len(data) > limit else data, lost + len(line))
