"""Written: where every record of a dataset stands, in columns of numbers.

About 55 bytes a record, so that what needs all records (duplicates, origins) fits in memory.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from finetune.corpus.clean import Facts, Removal, labels_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from finetune.corpus.chain import Made


class Written:
    """Records by number, from 0, in the order in which they were read.

    Attributes:
        facts: What cleaning looks at.
    """

    def __init__(self) -> None:
        self.facts = Facts()
        self._part = array("H")
        self._file = array("I")
        self._row = array("Q")
        self._size = array("I")
        self._prints = bytearray()

    def __len__(self) -> int:
        return len(self._row)

    def add(self, made: Made, *, part: int, file: int, source: int) -> None:
        """Take note of a record.

        Args:
            made: The record.
            part: The number of the file it was written to.
            file: The number of the file it was read from.
            source: The number of its source.
        """
        labels = labels_of(made.labels) if made.labels else None
        self.facts.add(made.side, made.position, source, labels, made.signature)
        self._part.append(part)
        self._file.append(file)
        self._row.append(made.row)
        self._size.append(len(made.line) + 1)
        self._prints += hashlib.blake2b(made.line, digest_size=16).digest()

    def column(self, name: str) -> NDArray[Any]:
        """Return a column: `part`, `file`, `row` or `size` (with the line end); shape [records]."""
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


def find_equal(written: Written, *, duplicates: bool) -> Iterator[Removal]:
    """Yield the records that equal another one, in order.

    Of equal records, one on the side that is held out most stays: no training record equals a
    validation or evaluation record.

    Args:
        written: All records.
        duplicates: Equal records on that side all stay.
    """
    import numpy as np

    prints, sides = written.fingerprints(), written.facts.sides
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
            removals.append(Removal(number, "held-out", kept))
        elif not duplicates:
            removals.append(Removal(number, "duplicate", kept))
    yield from sorted(removals)
