"""Facts: what is kept in memory about every record of a dataset, in columns of numbers.

About 50 bytes a record; near-duplicate signatures lie in a file. What can be decided only when all
records are known (duplicates, caps, balance) is decided on them.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from finetune.corpus.split import Side

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Removal(NamedTuple):
    """A record that is taken out again.

    Attributes:
        number: Its number among the facts.
        rule: Why.
        step: Of `account.STEPS`.
        kept: The number of the record that stays in its place, if there is one.
    """

    number: int
    rule: str
    step: str
    kept: int | None = None


class Facts:
    """Records by number, from 0, in the order in which they were read."""

    def __init__(self) -> None:
        self._part = array("H")
        self._file = array("I")
        self._row = array("Q")
        self._size = array("I")
        self._side = array("B")
        self._position = array("Q")
        self._prints = bytearray()

    def __len__(self) -> int:
        return len(self._row)

    def add(  # noqa: D417 (named as the columns are)
        self, line: bytes, *, part: int, file: int, row: int, side: Side, position: int
    ) -> None:
        """Take note of a record.

        Args:
            line: Its line in the part, with its end.
        """
        self._part.append(part)
        self._file.append(file)
        self._row.append(row)
        self._size.append(len(line))
        self._side.append(side)
        self._position.append(position)
        self._prints += hashlib.blake2b(line, digest_size=16).digest()

    def column(self, name: str) -> NDArray[Any]:
        """Return a column: `part`, `file`, `row`, `size`, `side` or `position`; shape [records]."""
        import numpy as np

        values: array[int] = getattr(self, f"_{name}")
        return np.frombuffer(values, dtype=values.typecode)

    def fingerprints(self) -> NDArray[Any]:
        """Return 128 bits that stand for each record; shape [records, 2]."""
        import numpy as np

        return np.frombuffer(self._prints, dtype="<u8").reshape(-1, 2)

    def place(self, number: int) -> tuple[int, int]:
        """Return file and row of a record."""
        return self._file[number], self._row[number]


def find_equal(facts: Facts, *, duplicates: bool) -> Iterator[Removal]:
    """Yield the records that equal another one, those of later steps of the split first.

    Of equal records, one on the side that is held out most stays: no training record equals a
    validation or evaluation record.

    Args:
        facts: All records.
        duplicates: Equal records on that side all stay.
    """
    import numpy as np

    prints, sides = facts.fingerprints(), facts.column("side")
    order = np.argsort(prints[:, 0], kind="stable")
    same = prints[order[1:], 0] == prints[order[:-1], 0]
    if not same.any():
        return
    some = np.zeros(len(order), dtype=bool)
    some[1:] |= same
    some[:-1] |= same
    numbers = np.sort(order[some])  # the few that may equal another
    # By fingerprint, then the highest side, then the first that was read.
    keys = (numbers, -sides[numbers].astype(np.int8), prints[numbers, 1], prints[numbers, 0])
    removals, kept = [], -1
    for number in numbers[np.lexsort(keys)].tolist():
        if kept < 0 or (prints[number] != prints[kept]).any():
            kept = number
        elif sides[number] < sides[kept]:
            removals.append(Removal(number, "held-out", "duplicate", kept))
        elif not duplicates:
            removals.append(Removal(number, "duplicate", "duplicate", kept))
    yield from sorted(removals)
