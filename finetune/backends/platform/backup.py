"""Backup: everything that a service still tells, saved in a folder."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from finetune.backends.platform.api import Client
from finetune.backends.platform.replies import File, Remote
from finetune.errors import PlatformError
from finetune.files import slug, sync_file, sync_folder, to_json, write_atomic
from finetune.progress import Progress, silent


class Backup(msgspec.Struct):
    """What was saved.

    Attributes:
        folder: Where.
        jobs, models, files: How many of each.
        size_bytes: Of the files' contents.
        failures: What did not answer, and why.
    """

    folder: str
    jobs: int = 0
    models: int = 0
    files: int = 0
    size_bytes: int = 0
    failures: list[str] = []


def save(client: Client, folder: Path, *, progress: Progress = silent) -> Backup:
    """Save jobs with events and metrics, model cards, and files with their content.

    What is there already and has the declared size is not fetched again. Weights cannot be
    fetched: the API has no call for them.

    Raises:
        PlatformError: The key is refused, or nobody answers.
    """
    saved = Backup(str(folder), failures=[])
    cards = client.list_models()  # a key that is refused fails here

    def each(what: str, rows: Sequence[Remote], keep: Callable[[Any], None]) -> int:
        count = 0
        for number, row in enumerate(rows):
            progress(what, number, len(rows))
            try:
                keep(row)
            except PlatformError as error:
                saved.failures.append(f"{what} {row.id}: {error.message}")
            else:
                count += 1
        progress(what, len(rows), len(rows))
        return count

    def keep_file(file: File) -> None:
        name = f"{_name(file.id)}-{slug(file.filename or 'file')}"
        saved.size_bytes += fetch(client, file, folder / "files" / name)
        _write(folder / "files", file)

    saved.models = each("models", cards, lambda card: _write(folder / "models", card))
    jobs = _list(client.list_jobs, "jobs", saved)
    saved.jobs = each("jobs", jobs, lambda job: _write(folder / "jobs", client.get_job(job.id)))
    saved.files = each("files", _list(client.list_files, "files", saved), keep_file)
    return saved


def fetch(client: Client, file: File, path: Path) -> int:
    """Download a file's content, unless it is there with the declared size; return its bytes."""
    if path.is_file() and file.bytes == path.stat().st_size:
        return file.bytes
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        with open(part, "wb") as sink:
            count = client.download(file.id, sink, file.bytes)
        sync_file(part)
        part.replace(path)
        sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    return count


def _list(ask: Callable[[], Sequence[Remote]], what: str, saved: Backup) -> Sequence[Remote]:
    try:
        return ask()
    except PlatformError as error:
        saved.failures.append(f"{what}: {error.message}")
        return []


def _write(folder: Path, row: Remote) -> None:
    write_atomic(folder / f"{_name(row.id)}.json", to_json(row.raw, indent=True))


def _name(identifier: str) -> str:
    """Return a file name for an id: its own where that is one."""
    name = slug(identifier)
    if name == identifier:
        return name
    return f"{name[:48]}-{hashlib.sha256(identifier.encode()).hexdigest()[:8]}"
