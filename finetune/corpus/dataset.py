"""Dataset: a prepared folder, whose manifest says all about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from finetune.checks.profile import Profile
from finetune.errors import UsageError
from finetune.files import digest, open_bytes, read_json, read_lines
from finetune.records import decoder

MANIFEST = "manifest.json"


class TrainFile(NamedTuple):
    """The training records of one source.

    Attributes:
        path: JSONL, a record a line.
        weight: How often a record of it is seen relative to one of weight 1.
        records: How many it holds.
    """

    path: Path
    weight: float
    records: int


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The outcome of `prepare`: a folder named by what went into it.

    Attributes:
        folder: `datasets/<name>-<digest>`.
        digest: Of the sources, the recipe's data section and the version of this tool.
        manifest: The account of every row and record, and the digest of every file.
        train: One file a source.
        validation: Records that the trainer watches, or None.
        evaluation: Records that training never sees, or None.
    """

    folder: Path
    digest: str
    manifest: dict[str, Any]
    train: list[TrainFile]
    validation: Path | None
    evaluation: Path | None

    @classmethod
    def load(cls, folder: str | Path) -> Dataset:
        """Open a dataset folder.

        Raises:
            UsageError: It is not one.
        """
        folder = Path(folder)
        manifest = read_json(folder / MANIFEST)
        try:
            files = manifest["files"]
            train = [
                TrainFile(
                    folder / source["train"], source["weight"], files[source["train"]]["records"]
                )
                for source in manifest["sources"]
                if source["train"]
            ]
            found = {name: folder / f"{name}.jsonl" for name in ("validation", "evaluation")}
            held_out = {k: path if path.name in files else None for k, path in found.items()}
            return cls(folder, manifest["digest"], manifest, train, **held_out)
        except (KeyError, TypeError):
            raise UsageError(f"{folder / MANIFEST}: not the manifest of a dataset") from None

    def is_whole(self) -> bool:
        """Tell whether every file is there and is what was written."""
        return all(
            (path := self.folder / name).is_file()
            and path.stat().st_size == facts["bytes"]
            and digest(path) == facts["sha256"]
            for name, facts in self.manifest["files"].items()
        )


def profile_files(paths: Iterable[Path], kind: str) -> dict[str, Any]:
    """Return the profile of the records in JSONL files, all of one kind."""
    profile, decode = Profile(), decoder(kind).decode
    for path in paths:
        with open_bytes(path) as file:
            for line in read_lines(file):
                if line.data:
                    profile.add(decode(line.data))
    return profile.to_dict()
