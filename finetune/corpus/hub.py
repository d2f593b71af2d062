"""Datasets of the Hugging Face hub, row by row as they are downloaded: `hub:ID[@REVISION]`.

Only data are read: a dataset's own code is never run.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from finetune.corpus.containers.columnar import Rows
from finetune.errors import MissingExtra, PlatformError, UsageError
from finetune.text import safe

_NAME = re.compile(r"hub:([A-Za-z0-9][\w.-]*(?:/[\w.-]+)?)(?:@([\w./-]+))?")


def is_on_hub(path: Path) -> bool:
    """Tell whether a source is a dataset of the hub."""
    return str(path).startswith("hub:")


def find_commit(path: Path) -> str:
    """Return the commit that the dataset stands at, which identifies its content.

    Raises:
        MissingExtra: The libraries are not installed.
        UsageError: There is no such dataset.
        PlatformError: The hub cannot be reached.
    """
    name, revision = _parse(path)
    if revision and re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    _import_datasets()
    import huggingface_hub

    try:
        commit = huggingface_hub.HfApi().dataset_info(name, revision=revision).sha
    except Exception as error:  # noqa: BLE001 (its HTTP client's, its own, the system's)
        raise _explain(path, error) from None
    return str(commit)


def open_dataset(path: Path, split: str | None) -> io.BufferedReader:
    """Return the rows of a dataset as JSON Lines.

    Args:
        path: `hub:ID`, with `@REVISION` where it is to be another than the newest.
        split: One of its splits; all of them, one after another, where it is None.

    Raises:
        MissingExtra: The libraries are not installed.
        UsageError: There is no such dataset or split.
        PlatformError: The hub cannot be reached.
    """
    name, revision = _parse(path)
    datasets = _import_datasets()
    try:
        found = datasets.load_dataset(name, split=split, revision=revision, streaming=True)
    except Exception as error:  # noqa: BLE001 (as above)
        raise _explain(path, error) from None
    parts = list(found.values()) if split is None else [found]
    return io.BufferedReader(_Lines(path, encode_rows(parts)), 2**20)


def encode_rows(parts: list[Any]) -> Iterator[bytes]:
    """Yield the rows of iterable datasets as JSON Lines, labels by their names."""
    for part in parts:
        rows = Rows(part.features.to_dict() if part.features else {})
        raw = part.decode(enable=False) if part.features else part
        for number, value in enumerate(raw, 1):
            yield msgspec.json.encode(rows.make(number, value).value) + b"\n"


class _Lines(io.RawIOBase):
    """An iterator of lines as a file."""

    def __init__(self, path: Path, lines: Iterator[bytes]) -> None:
        self._path = path
        self._lines = lines
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            self._ready = self._ready or next(self._lines, b"")
        except Exception as error:  # noqa: BLE001 (as above)
            raise _explain(self._path, error) from None
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size


def digest_of(path: Path, split: str | None) -> str:
    """Return what stands for a dataset's content in the place of a file's SHA-256."""
    return hashlib.sha256(f"{_parse(path)[0]}@{find_commit(path)}:{split}".encode()).hexdigest()


def _parse(path: Path) -> tuple[str, str | None]:
    match = _NAME.fullmatch(str(path))
    if not match:
        hint = "it is `hub:OWNER/NAME`, or `hub:OWNER/NAME@REVISION`"
        raise UsageError(f"{safe(str(path))}: no name of a dataset", hint=hint)
    return match[1], match[2]


def _import_datasets() -> Any:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    try:
        import datasets
    except ImportError:
        raise MissingExtra("data", "datasets") from None
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    return datasets


def _explain(path: Path, error: Exception) -> Exception:
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"DatasetNotFoundError", "RepositoryNotFoundError", "RevisionNotFoundError"}:
        return UsageError(f"{path}: no such dataset, or it is not open to you")
    if isinstance(error, ValueError) and "split" in str(error):
        return UsageError(f"{path}: no such split")
    if names & {"ConnectionError", "TransportError", "HTTPError", "OfflineModeIsEnabled"}:
        hint = "download it where the hub can be reached, and name the folder"
        return PlatformError(f"{path}: the hub cannot be reached", hint=hint)
    return UsageError(f"{path}: cannot be read as a dataset ({type(error).__name__})")
