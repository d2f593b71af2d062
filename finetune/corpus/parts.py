"""Parts: the files of a dataset while they are written, each with the origin of its lines."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from finetune.corpus.split import Side
from finetune.files import AtomicFile, to_json


class Part:
    """One JSONL file of a dataset.

    Args:
        path: Where it is written.
        side: Which side of the split it is.
    """

    def __init__(self, path: Path, side: Side) -> None:
        self.path = path
        self.side = side
        self.records = 0
        self.origins = path.with_name(f".origins-{path.name}")
        self._prefix = f'{{"output":{to_json(path.name).decode()},"line":'
        self._file = AtomicFile(path)

    def __enter__(self) -> Self:
        self._origins = open(self.origins, "wb")
        self._file.__enter__()
        return self

    def write(self, line: bytes, origin: str) -> None:
        """Append a record and where it came from: the end of its line in origins.jsonl."""
        self.records += 1
        self._file.write(line + b"\n")
        self._origins.write(f"{self._prefix}{self.records},{origin}\n".encode())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._origins.close()
        finally:
            self._file.__exit__(kind, error, trace)

    def facts(self) -> dict[str, Any]:
        """Return what the manifest says about the file."""
        return {"records": self.records, "bytes": self._file.size, "sha256": self._file.sha256}

    def drop(self, moved: dict[bytes, Side], dropped: Callable[[dict[str, Any]], None]) -> None:
        """Write the file again without the records that are held out by now.

        Args:
            moved: Fingerprint → side of records that moved after they had been written.
            dropped: Told the origin of each record that is left out.
        """
        old, old_origins = (
            path.rename(path.with_name(f".old-{path.name}")) for path in (self.path, self.origins)
        )
        self._file, self.records = AtomicFile(self.path), 0
        with self, open(old, "rb") as lines, open(old_origins, "rb") as origins:
            for line, origin in zip(lines, origins, strict=True):
                data = line.removesuffix(b"\n")
                if moved.get(fingerprint(data), Side.TRAIN) > self.side:
                    dropped(msgspec.json.decode(origin))
                else:
                    # `"output": …, "line": n,` is written anew, the rest of the line is kept.
                    self.write(data, origin.decode().rstrip("\n").split(",", 2)[2])
        old.unlink()
        old_origins.unlink()


def fingerprint(line: bytes) -> bytes:
    """Return 128 bits that stand for a record."""
    return hashlib.blake2b(line, digest_size=16).digest()


class Parts(contextlib.ExitStack):
    """All parts of a dataset, and what is known about the records in them.

    Equal records are found by their fingerprint. Where they meet on different sides, the one that
    is held out stays: no training record equals a validation or evaluation record.

    Args:
        folder: Where they are written.
        train: Names of the training files, in order.
        duplicates: Equal records on one side all stay.
    """

    def __init__(self, folder: Path, train: list[str], *, duplicates: bool) -> None:
        super().__init__()
        self._folder = folder
        self._duplicates = duplicates
        self._train = {name: Part(folder / name, Side.TRAIN) for name in train}
        self._held_out = {
            side: Part(folder / f"{side.name.lower()}.jsonl", side)
            for side in (Side.VALIDATION, Side.EVALUATION)
        }
        self._seen: dict[bytes, Side] = {}
        self._moved: dict[bytes, Side] = {}

    @property
    def all(self) -> list[Part]:
        """Return training, then validation, then evaluation."""
        return [*self._train.values(), *self._held_out.values()]

    def __enter__(self) -> Self:
        super().__enter__()
        with contextlib.ExitStack() as opened:
            for part in self.all:
                opened.enter_context(part)
            self.push(opened.pop_all())
        return self

    def add(self, line: bytes, side: Side, train: str, origin: str) -> str | None:
        """Write a record to its side, or return the reason why it is left out.

        Args:
            line: The record.
            side: Where its row belongs.
            train: The training file of its source.
            origin: Where it came from.
        """
        key = fingerprint(line)
        known = self._seen.get(key)
        if known is not None and (known > side or (known == side and not self._duplicates)):
            return "duplicate" if known == side else "held-out"
        if known is not None and known < side:
            self._moved[key] = side
        self._seen[key] = side
        part = self._train[train] if side is Side.TRAIN else self._held_out[side]
        part.write(line, origin)
        return None

    def finish(self, dropped: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Settle what moved, write origins.jsonl, and return the facts of each file.

        Args:
            dropped: Told the origin of each record that left a file again.
        """
        files = {}
        with AtomicFile(self._folder / "origins.jsonl") as origins:
            for part in self.all:
                if self._moved and part.side < Side.EVALUATION:
                    part.drop(self._moved, dropped)
                with open(part.origins, "rb") as own:
                    shutil.copyfileobj(own, origins)
                part.origins.unlink()
                if part.side is Side.TRAIN or part.records:
                    files[part.path.name] = part.facts()
                else:
                    part.path.unlink()
        return files | {"origins.jsonl": {"bytes": origins.size, "sha256": origins.sha256}}
