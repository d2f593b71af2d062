"""Images that lie beside the data: read into their records, as data URLs."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path, PurePosixPath
from typing import IO, Any

from finetune.converters import ConvertError
from finetune.converters.images import PLACE, data_url
from finetune.files import MAX_LINE_BYTES, digest
from finetune.records import ChatRecord, ImageChunk, Record
from finetune.text import size

MAX_BYTES = 10**7
"""The largest image file: in base64 it still fits in a line of a record."""

_HEAD = 2**20  # bytes in which data with images name one
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif")
_REMOTE = re.compile(r"(?i)https?://|data:")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")


def load_images(record: Record, folder: Path | None) -> None:
    """Replace the paths of a record's images by their content, in place.

    Addresses on the net and data URLs stay as they are; nothing is fetched.

    Args:
        record: Only conversations have images.
        folder: Where paths begin, and what they do not leave; None where there are no files.

    Raises:
        ConvertError: A file is not there or no image, or its path leads out of the folder.
    """
    if not isinstance(record, ChatRecord):
        return
    total = 0
    for number, message in enumerate(record.messages):
        if type(message.content) is not list:
            continue
        for place, chunk in enumerate(message.content):
            if isinstance(chunk, ImageChunk):
                path = f"messages[{number}].content[{place}].image_url"
                _load(chunk, folder, path)
                total += len(_address(chunk))
                if total > MAX_LINE_BYTES:
                    fact = f"the images of a record have more than {size(MAX_LINE_BYTES)}"
                    raise ConvertError(fact, path=path, rule="image-too-large")


def digest_images(file: IO[bytes], folder: Path) -> str | None:
    """Return the SHA-256 of all images below a folder, None where the data beside speak of none.

    Args:
        file: The data, from their beginning.
        folder: Where they lie.
    """
    if b"image" not in file.read(_HEAD):
        return None
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in _SUFFIXES and path.is_file() and not path.is_symlink()
    )
    lines = (f"{path.relative_to(folder).as_posix()} {digest(path)}\n" for path in found)
    return hashlib.sha256("".join(lines).encode()).hexdigest() if found else None


def _address(chunk: ImageChunk) -> str:
    value: Any = chunk.image_url
    return value if isinstance(value, str) else str(value.get("url", ""))


def _load(chunk: ImageChunk, folder: Path | None, path: str) -> None:
    address = _address(chunk)
    if _REMOTE.match(address):
        return
    if address == PLACE:
        raise ConvertError("a place for an image, and no image", path=path, rule="image-count")
    file = _find(address, folder, path)
    if file.stat().st_size > MAX_BYTES:
        fact = f"{size(file.stat().st_size)}, the limit is {size(MAX_BYTES)}"
        raise ConvertError(fact, path=path, rule="image-too-large")
    chunk.image_url = data_url(file.read_bytes(), path)


def _find(address: str, folder: Path | None, path: str) -> Path:
    inside = PurePosixPath(address)
    if folder is None or inside.is_absolute() or ".." in inside.parts or _SCHEME.match(address):
        raise _outside(path)
    file = folder / inside
    # The folder itself may be reached by links; below it there are none.
    if "\0" in address or os.path.realpath(file) != str(folder.resolve() / inside):
        raise _outside(path)
    if not file.is_file():
        raise ConvertError("no such image file", path=path, rule="image-missing")
    return file


def _outside(path: str) -> ConvertError:
    return ConvertError(
        "not a path inside the folder of the data, without `..` and links",
        path=path,
        rule="image-path",
    )
