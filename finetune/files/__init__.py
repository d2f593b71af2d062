"""Files on disk: atomic writes, locks, bounded line reading, compression, JSON.

Whatever stands under its final name is whole: it was written beside it, synced and renamed.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import hashlib
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import msgspec

from finetune.errors import RunLocked, UsageError
from finetune.files.stream import (
    COMPRESSIONS,
    MAX_EXPANDED_BYTES,
    MAX_EXPANSION,
    MAX_LINE_BYTES,
    Damaged,
    Line,
    Pieces,
    Stream,
    open_bytes,
    open_stream,
    read_lines,
)
from finetune.text import safe

__all__ = [
    "COMPRESSIONS",
    "MAX_EXPANDED_BYTES",
    "MAX_EXPANSION",
    "MAX_LINE_BYTES",
    "AtomicFile",
    "Damaged",
    "Line",
    "Lock",
    "Pieces",
    "Stream",
    "append_line",
    "digest",
    "find_shipped",
    "open_bytes",
    "open_stream",
    "provide_folder",
    "read_journal",
    "read_json",
    "read_lines",
    "slug",
    "sync_file",
    "sync_folder",
    "to_json",
    "write_atomic",
]


def to_json(value: Any, *, indent: bool = False) -> bytes:
    """Return `value` as UTF-8 JSON; with `indent`, for people to read."""
    data = msgspec.json.encode(value)
    return msgspec.json.format(data, indent=2) + b"\n" if indent else data


def read_json(path: Path) -> Any:
    """Return the JSON document in `path`.

    Raises:
        UsageError: It is missing or is not JSON.
    """
    try:
        return msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except msgspec.DecodeError:
        raise UsageError(f"{path}: not a JSON document") from None


def find_shipped(name: str) -> Path:
    """Return the folder `recipes` or `data_schemas` that comes with the package.

    It stands at the root of a checkout, and inside the package in an installed wheel.
    """
    package = Path(__file__).resolve().parents[1]
    installed = package / "shipped" / name
    return installed if installed.is_dir() else package.parent / name


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a crash of the machine."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make what a library has written into `path` survive a crash of the machine."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


class AtomicFile:
    """A file that gets its name only when it is whole.

    Writes go to a hidden file beside `path`; leaving the block without an exception syncs and
    renames it, leaving it with one removes it. `sha256` and `size` describe what was written.
    A device or a pipe, such as `/dev/null`, is written to as it is: renaming would take its place.

    Args:
        path: The final name; its folder is made.

    Raises:
        UsageError: A folder has this name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._hash = hashlib.sha256()
        if path.is_dir():
            raise UsageError(f"{path}: is a folder", hint="name a file")
        self._is_file = not path.exists() or path.is_file()
        beside = path.with_name(f".{path.name}.tmp-{os.getpid()}")
        self._temporary = beside if self._is_file else path

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = open(self._temporary, "wb")
        return self

    def write(self, data: bytes) -> None:
        """Append `data`."""
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    @property
    def sha256(self) -> str:
        """Hex digest of what was written so far."""
        return self._hash.hexdigest()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        whole = False
        try:
            if kind is None:
                self._file.flush()
                if self._is_file:
                    os.fsync(self._file.fileno())
                whole = True
        finally:
            with contextlib.suppress(OSError):  # closing flushes again
                self._file.close()
            if not whole and self._is_file:
                self._temporary.unlink(missing_ok=True)
        if whole and self._is_file:
            self._temporary.replace(self.path)
            sync_folder(self.path.parent)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a whole file, or leave the old one untouched."""
    with AtomicFile(path) as file:
        file.write(data)


def append_line(path: Path, value: Any, *, sync: bool = True) -> None:
    """Append one JSON line, on the disk at once with `sync`; a torn tail is ended first."""
    line = to_json(value) + b"\n"
    with open(path, "ab") as file:
        if file.tell() and not _ends_with_newline(path):
            line = b"\n" + line
        file.write(line)
        file.flush()
        if sync:
            os.fsync(file.fileno())


def _ends_with_newline(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def read_journal(path: Path) -> list[Any]:
    """Return the values of a JSON-lines journal, leaving out lines that a crash tore."""
    values = []
    if path.exists():
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(msgspec.DecodeError):
                values.append(msgspec.json.decode(line))
    return values


def digest(path: Path) -> str:
    """Return the SHA-256 of a file as hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def provide_folder(folder: Path, build: Callable[[Path], None]) -> Path:
    """Return `folder` of a cache, built first where it is missing or damaged.

    It is built under another name and renamed when it is whole, with the digests of its files in
    `digests.json`. Of two processes that build at once, the first to end wins.

    Args:
        folder: The final name.
        build: Writes the files into the folder that it is given.
    """
    if _is_whole(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        build(temporary)
        digests = {path.name: digest(path) for path in sorted(temporary.iterdir())}
        write_atomic(temporary / "digests.json", to_json(digests, indent=True))
        if not _is_whole(folder):
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(FileExistsError, OSError):
                temporary.rename(folder)
        if not _is_whole(folder):
            raise UsageError(f"{folder}: could not be written")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _is_whole(folder: Path) -> bool:
    try:
        digests = read_json(folder / "digests.json")
        return all(digest(folder / name) == value for name, value in digests.items())
    except (UsageError, OSError):
        return False


class Lock:
    """An exclusive lock that the kernel frees when its holder dies.

    Args:
        path: The lock file; it names the holder (process, command, since when).
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "a+b")
        for wait in (0.02, 0.05, 0.1, None):  # a look by `held` lasts a moment only
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if wait is not None:
                    time.sleep(wait)
                    continue
                holder = self.holder()
                self._file.close()
                raise RunLocked(
                    f"{self.path.parent}: in use by {holder}", hint="wait for it to end, or stop it"
                ) from None
        command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
        since = dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} ({safe(command, 200)}) since {since}\n".encode())
        self._file.flush()
        return self

    def held(self) -> bool:
        """Tell whether somebody holds the lock now."""
        if not self.path.exists():
            return False
        with open(self.path, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def holder(self) -> str:
        """Return who holds the lock, as the holder wrote it."""
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            text = ""
        return safe(text) or "another process"

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._file.truncate(0)
        self._file.close()


def slug(name: str) -> str:
    """Return `name` as a folder or file name of `[A-Za-z0-9._-]`, at most 64 characters.

    Example:
        >>> slug("chats/été 2026")
        'chats-t-2026'
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:64].strip("-.") or "data"
