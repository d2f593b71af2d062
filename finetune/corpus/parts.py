"""Parts: the files of a dataset while they are written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from finetune.corpus.split import Side
from finetune.files import AtomicFile

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Part:
    """One JSONL file of a dataset.

    Args:
        path: Where it is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records = 0
        self._file = AtomicFile(path)

    @contextlib.contextmanager
    def open(self) -> Iterator[Part]:
        """Let it be written."""
        with self._file:
            yield self

    def write(self, lines: list[bytes]) -> None:
        """Append records."""
        self.records += len(lines)
        self._file.write(b"\n".join([*lines, b""]))

    def facts(self) -> dict[str, Any]:
        """Return what the manifest says about the file."""
        return {"records": self.records, "bytes": self._file.size, "sha256": self._file.sha256}

    def drop(self, sizes: NDArray[Any], keep: NDArray[Any]) -> None:
        """Write the file again without some of its records.

        Args:
            sizes: Bytes of each line; shape [records].
            keep: Which of them stay, true or false; shape [records].
        """
        old = self.path.rename(self.path.with_name(f".old-{self.path.name}"))
        self._file = AtomicFile(self.path)
        with self._file, open(old, "rb") as lines:
            for size, stays in zip(sizes.tolist(), keep.tolist(), strict=True):
                line = lines.read(size)
                if stays:
                    self._file.write(line)
        self.records = int(keep.sum())
        old.unlink()


class Parts(contextlib.ExitStack):
    """All parts of a dataset.

    Args:
        folder: Where they are written.
        train: Names of the training files, in order.
    """

    def __init__(self, folder: Path, train: list[str]) -> None:
        super().__init__()
        self._train = len(train)
        names = [*train, "validation.jsonl", "evaluation.jsonl"]
        self.all = [Part(folder / name) for name in names]

    def __enter__(self) -> Self:
        super().__enter__()
        with contextlib.ExitStack() as opened:
            for part in self.all:
                opened.enter_context(part.open())
            self.push(opened.pop_all())
        return self

    def number(self, side: Side, train: int) -> int:
        """Return the number of the part for a side, given that of its source's training file."""
        return train if side is Side.TRAIN else self._train + side - 1

    def is_train(self, number: int) -> bool:
        """Tell whether a part holds training records."""
        return number < self._train
