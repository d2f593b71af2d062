"""Archives: the data files inside a `.zip` or `.tar`, by the list of its members.

Members are read where they stand, never extracted. An archive that names a place outside itself,
or holds data behind a link, a password or another archive, is refused by the member's name.
"""

from __future__ import annotations

import contextlib
import errno
import stat
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, NamedTuple

from finetune.errors import DataError
from finetune.files import COMPRESSIONS, Pieces, Stream, digest, open_bytes

_TARS = (".tar", ".tgz", ".tbz2", ".txz", ".tzst")
_PIECE = 2**14  # bytes
# What the libraries raise where an archive is damaged.
_DAMAGES = (
    zipfile.BadZipFile,
    tarfile.TarError,
    struct.error,
    EOFError,
    IndexError,
    RuntimeError,
    ValueError,
)
_CUT = "the archive ends too early or is damaged"


def is_archive(path: PurePath) -> bool:
    """Tell by its name whether a file is an archive."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes = [suffix for suffix in suffixes[:-1] if suffix == ".tar"]
    return bool(suffixes) and suffixes[-1] in (".zip", *_TARS)


class Member(NamedTuple):
    """A file in an archive.

    Attributes:
        name: Its path inside.
        fault: Why it cannot be read, else None.
        entry: What the library calls it.
    """

    name: str
    fault: str | None
    entry: Any


class Archive:
    """A `.zip` or `.tar`, also a compressed one. Members are best opened in the order listed.

    Args:
        path: Where it lies.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        self._tar: Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]] = iter(())
        self._last: str | None = None  # where a damaged archive ends
        self._digest: tuple[tuple[int, int, int], str] | None = None

    def list_members(self) -> list[Member]:
        """Return its files.

        Raises:
            DataError: It is damaged, or names a place outside itself.
        """
        try:
            if zipfile.is_zipfile(self.path):
                members = [_check_zipped(entry) for entry in self._open_zip().infolist()]
            else:
                members = [_check_tarred(entry) for _, entry in self._walk(note_end=True)]
        except _DAMAGES:
            raise self._refuse(None, _CUT, "truncated") from None
        members = [member for member in members if member.name]
        for member in members:
            name = PurePosixPath(member.name.replace("\\", "/"))
            if name.is_absolute() or ".." in name.parts or member.name[1:3] in {":\\", ":/"}:
                raise self._refuse(member.name, "names a place outside the archive")
        names = [member.name for member in members]
        if len(set(names)) < len(names):
            raise self._refuse(None, "two members have one name")
        return members

    def open(self, member: Member) -> Stream:
        """Open a member for reading.

        Raises:
            DataError: It is packed in a way that is not known.
        """
        if member.fault:
            raise self._refuse(member.name, member.fault)
        if isinstance(member.entry, zipfile.ZipInfo):
            try:
                file = self._open_zip().open(member.entry)
            except _DAMAGES:
                raise self._refuse(member.name, "cannot be unpacked") from None
            except OSError as error:
                if error.errno != errno.EINVAL:  # a place before the file's beginning
                    raise
                raise self._refuse(member.name, _CUT, "truncated") from None
            return Stream(
                Pieces(file, _Size(member.entry.compress_size), most=_PIECE), member.name, file
            )
        for again in (False, True):  # it may stand before what was read last
            if again:
                self._tar = self._walk()
            for tar, entry in self._tar:
                if entry.name == member.name and (found := tar.extractfile(entry)):
                    end = ("truncated", _CUT) if member.name == self._last else None
                    return Stream(Pieces(found, end=end, most=_PIECE), member.name, found)
        raise self._refuse(member.name, "changed while it was read", "truncated")

    def digest(self) -> str:
        """Return its SHA-256 as hex, taken again when the file has changed."""
        status = self.path.stat()
        state = (status.st_ino, status.st_size, status.st_mtime_ns)
        if self._digest is None or self._digest[0] != state:
            self._digest = (state, digest(self.path))
        return self._digest[1]

    def _open_zip(self) -> zipfile.ZipFile:
        if self._zip is None:
            self._zip = zipfile.ZipFile(self.path)
        return self._zip

    def _walk(self, *, note_end: bool = False) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
        name = None
        with open_bytes(self.path) as file:
            try:
                with tarfile.open(fileobj=file, mode="r|") as tar:
                    for entry in tar:
                        name = entry.name
                        yield tar, entry
            except (tarfile.TarError, EOFError):
                if name is None:
                    raise
                self._last = name if note_end else self._last
            if note_end and file.damage:
                self._last = name

    def _refuse(self, name: str | None, fact: str, rule: str = "archive-member") -> DataError:
        place = f"{self.path.name}/{name}" if name else self.path.name
        return DataError(fact, file=place, rule=rule, hint="unpack it yourself, and name the files")

    def __reduce__(self) -> tuple[type[Archive], tuple[Path]]:
        return Archive, (self.path,)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            if self._zip:
                self._zip.close()


class _Size(NamedTuple):
    """How many bytes a member takes in its archive."""

    size: int


def _check_zipped(entry: zipfile.ZipInfo) -> Member:
    fault = None
    if entry.flag_bits & 1:
        fault = "is encrypted"
    elif stat.S_ISLNK(entry.external_attr >> 16):
        fault = "is a link"
    elif is_archive(PurePosixPath(entry.filename)):
        fault = "is an archive in an archive"
    return Member("" if entry.is_dir() else entry.filename, fault, entry)


def _check_tarred(entry: tarfile.TarInfo) -> Member:
    fault = None
    if entry.issym() or entry.islnk():
        fault = "is a link"
    elif not (entry.isfile() or entry.isdir()):
        fault = "is no plain file"
    elif is_archive(PurePosixPath(entry.name)):
        fault = "is an archive in an archive"
    return Member("" if entry.isdir() else entry.name, fault, entry)
