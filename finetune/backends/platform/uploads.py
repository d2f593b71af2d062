"""Uploads: the files of a job, named by what is in them, sent at most once and taken back.

A file's name is `ft-<16 hex of its SHA-256>-train.jsonl`, so that what an earlier try has sent is
found again, whatever became of the reply to it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from finetune.backends.platform.api import Client
from finetune.backends.platform.replies import File
from finetune.backends.platform.retry import Refused, Unclear, back_off
from finetune.catalog import LIMITS
from finetune.corpus import Dataset
from finetune.corpus.prefix import read_prefix
from finetune.errors import DataError
from finetune.runs import Run

MOST_BYTES = int(LIMITS["training_file"].value or 0)
_BLOCK = 2**20


class Part(NamedTuple):
    """What is uploaded as one file: a stretch of a dataset's file.

    Attributes:
        path: The dataset's file.
        start: Its first byte there.
        size: In bytes.
        line: The line of its first record, from 1.
        sha256: Of its content.
        weight: Of its records; None for validation data.
        lines: For validation data: the numbers of the lines taken, where not all are.
    """

    path: Path
    start: int
    size: int
    line: int
    sha256: str
    weight: float | None
    lines: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Its name at the service."""
        split = "validation" if self.weight is None else "train"
        return f"ft-{self.sha256[:16]}-{split}.jsonl"

    def open(self) -> IO[bytes]:
        """Open it at its beginning."""
        if self.lines:
            return io.BytesIO(b"".join(_take(self.path, self.lines)))
        return io.BufferedReader(_Stretch(self.path, self.start, self.size))

    def find_line(self, number: int) -> int | None:
        """Return the line of the dataset's file that line `number` of the upload is."""
        if self.lines:
            return self.lines[number - 1] if 0 < number <= len(self.lines) else None
        return self.line + number - 1


class _Stretch(io.RawIOBase):
    """A part of a file, as a file."""

    def __init__(self, path: Path, start: int, size: int) -> None:
        self._file = open(path, "rb")  # noqa: SIM115 (closed with this)
        self._start, self._size, self._place = start, size, 0
        self._file.seek(start)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        left = min(len(buffer), self._size - self._place)
        data = self._file.read(left)
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, base + offset)
        self._file.seek(self._start + self._place)
        return self._place

    def tell(self) -> int:
        return self._place

    def close(self) -> None:
        self._file.close()
        super().close()


def list_parts(dataset: Dataset, most: int = MOST_BYTES) -> list[Part]:
    """Return what a dataset is uploaded as; evaluation records never leave.

    Args:
        dataset: The dataset.
        most: Bytes of a training file; a larger one becomes several.

    Raises:
        DataError: One record alone is larger than a file may be.
    """
    parts = [part for file in dataset.train for part in _cut(file.path, file.weight, most)]
    if dataset.validation is not None:
        part = _limit(dataset.validation, sum(part.size for part in parts))
        parts += [part] if part.size else []
    return parts


def validation_limit(trained: int) -> int:
    """Return the bytes that validation data may have, given those of the training data."""
    share = (LIMITS["validation_share"].value or 0) * trained
    return int(min(LIMITS["validation_bytes"].value or 0, share))


def _cut(path: Path, weight: float, most: int) -> Iterator[Part]:
    start = size = 0
    first = number = 1
    sha256 = hashlib.sha256()
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if len(line) > most:
                raise DataError(
                    f"{len(line):,} bytes, more than a file may have: {most:,}",
                    file=str(path),
                    line=number,
                )
            if size + len(line) > most:
                yield Part(path, start, size, first, sha256.hexdigest(), weight)
                start, size, first, sha256 = start + size, 0, number, hashlib.sha256()
            sha256.update(line)
            size += len(line)
    if size:
        yield Part(path, start, size, first, sha256.hexdigest(), weight)


def _limit(path: Path, trained: int) -> Part:
    limit = validation_limit(trained)
    lines = list(read_prefix(path, limit))
    size, sha256 = sum(map(len, lines)), hashlib.sha256(b"".join(lines)).hexdigest()
    numbers: tuple[int, ...] = ()
    if size < path.stat().st_size:
        left = iter(lines)
        wanted, found = next(left, None), []
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if line == wanted:
                    found.append(number)
                    wanted = next(left, None)
        numbers = tuple(found)
    return Part(path, 0, size, 1, sha256, None, numbers)


def _take(path: Path, numbers: tuple[int, ...]) -> Iterator[bytes]:
    wanted = set(numbers)
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if number in wanted:
                yield line


class Uploads:
    """The files of one run at the service, as its journal and the service know them.

    Args:
        run: Whose journal tells what was sent.
        client: The service.
        reach: Called with the name of each step, so that a test can stop there.
    """

    def __init__(self, run: Run, client: Client, reach: Callable[[str], None]) -> None:
        self._run, self._client, self._reach = run, client, reach

    def send(self, part: Part) -> str:
        """Return the id of a part's file, uploaded unless it is there already."""
        known = next((e for e in self._events("uploaded") if e["file"] == part.name), None)
        if known is not None and self._is_there(known["file_id"]):
            return str(known["file_id"])
        intended = any(e["file"] == part.name for e in self._events("upload"))
        found = self._find(part)
        if found is None:
            if not intended:
                self._run.event("upload", file=part.name, bytes=part.size, sha256=part.sha256)
            self._reach("upload: intended")
            found = self._upload(part)
            intended = True
            self._reach("upload: sent")
        self._run.event("uploaded", file=part.name, file_id=found.id, existed=not intended)
        self._reach("upload: noted")
        return found.id

    def delete(self, reason: str) -> list[dict[str, Any]]:
        """Delete the files that this run has uploaded, and return a receipt of each.

        Files that were there before, or that a live job uses, stay.
        """
        gone = {event["file_id"]: event["time"] for event in self._events("deleted")}
        own = {e["file_id"]: e for e in self._events("uploaded")}
        used = self._find_used() if own.keys() - gone.keys() else set()
        receipts: list[dict[str, Any]] = []
        for file_id, event in own.items():
            receipt = {"file_id": file_id, "file": event["file"], "reason": reason}
            if event["existed"] or file_id in used:
                kept = "it was there before" if event["existed"] else "another job uses it"
                receipts.append(receipt | {"deleted": False, "kept": kept})
                continue
            if file_id not in gone:
                self._reach("delete: intended")
                try:
                    self._client.delete_file(file_id)
                except Refused as error:
                    if error.status != 404:
                        raise
                self._run.event("deleted", file_id=file_id, reason=reason)
                gone[file_id] = self._events("deleted")[-1]["time"]
                self._reach("delete: noted")
            receipts.append(receipt | {"deleted": True, "time": gone[file_id]})
        return receipts

    def _events(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self._run.events() if event["event"] == name]

    def _is_there(self, file_id: object) -> bool:
        try:
            self._client.get_file(str(file_id))
        except Refused as error:
            if error.status == 404:
                return False
            raise
        return True

    def _find(self, part: Part) -> File | None:
        """Return the file of this name and size that the service has."""
        files = self._client.list_files(search=part.name, purpose="fine-tune")
        same = [one for one in files if one.filename == part.name]
        return next((one for one in same if one.bytes in (None, part.size)), None)

    def _upload(self, part: Part) -> File:
        """Send the file; after a try of unknown outcome, look for it first."""
        client = self._client
        for attempt in range(1, client.pace.tries + 1):
            with contextlib.closing(_Opened(part)) as opened:
                try:
                    return client.upload(part.name, part.size, opened)
                except Unclear as error:
                    fault = error
            client.sleep(back_off(attempt, client.dice) if fault.wait is None else fault.wait)
            found = self._find(part)
            if found is not None:
                return found
        raise fault

    def _find_used(self) -> set[str]:
        """Return the files of jobs that have not ended."""
        return {
            file_id for job in self._client.list_jobs() if not job.ended for file_id in job.files
        }


class _Opened:
    """Opens a part for each try, and closes them all."""

    def __init__(self, part: Part) -> None:
        self._part, self._files = part, contextlib.ExitStack()

    def __call__(self) -> IO[bytes]:
        return self._files.enter_context(self._part.open())

    def close(self) -> None:
        self._files.close()
