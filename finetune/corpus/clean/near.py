"""Near duplicates: MinHash signatures, banded so that only records which may be near meet.

How near two records are is the Jaccard index of their sequences of words. It is estimated from
signatures that `sign` makes wherever the record is; only they are kept.

Sources: A. Broder, On the resemblance and containment of documents (1997); rensa 0.5 (2026-08).
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from finetune.corpus.clean.words import (
    FACTOR,
    fold_record,
    hash_sequences,
    hash_words,
    mix,
    salt_of,
)
from finetune.errors import MissingExtra
from finetune.records import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SLOTS = 128
SIGNATURE_BYTES = 2 * SLOTS  # 16 bits of each slot: two differ with the odds of 1 : 65,536
WORDS = 3  # of a sequence
_SEED = 1
_BLOCK = 128  # records signed at once: what they need fits in the processor's cache
_BLANKS = b" \xff" * WORDS + b" "  # no letter of UTF-8
_FOUND = 0.98  # of the pairs at the threshold are to meet in a band
_CROWD = 64  # records of one bucket that are compared with
_FEW = 16  # records that are compared one by one faster than at once


def sign(records: Sequence[Record]) -> list[bytes]:
    """Return the signature of each record, the same in every process.

    Args:
        records: Any number; many at once cost less than one by one.

    Returns:
        `SIGNATURE_BYTES` bytes a record.

    Raises:
        MissingExtra: rensa is not installed.
    """
    blocks = (records[at : at + _BLOCK] for at in range(0, len(records), _BLOCK))
    return [signature for block in blocks for signature in _sign(block)]


def _sign(records: Sequence[Record]) -> Iterator[bytes]:
    try:
        from rensa import RMinHash
    except ImportError:
        raise MissingExtra("clean", "rensa") from None
    import numpy as np

    # Blanks make one sequence of the shortest text; of longer ones they are no part.
    texts = [fold_record(record) + _BLANKS for record in records]
    words, starts = hash_words(b"".join(texts))
    ends = np.searchsorted(starts, np.cumsum([len(text) for text in texts]))
    begins = np.concatenate([[0], ends[:-1]])
    sizes = np.maximum(1, ends - begins - 2 * WORDS + 1)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    places = np.arange(offsets[-1]) + np.repeat(begins - offsets[:-1], sizes)
    sequences = hash_sequences(words, WORDS)[places]
    for number, record in enumerate(records):
        if salt := salt_of(record):
            sequences[offsets[number] : offsets[number + 1]] ^= np.uint64(salt)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(
        mix(sequences), offsets.astype(np.uint64), SLOTS, _SEED
    )
    rows = b"".join(array("I", row) for row in matrix.to_rows())
    data = np.frombuffer(rows, np.uint32).astype("<u2").tobytes()
    for at in range(0, len(data), SIGNATURE_BYTES):
        yield data[at : at + SIGNATURE_BYTES]


class Near(NamedTuple):
    """What `find_near` found.

    Attributes:
        kept: Record → the record that it nearly equals and that stays.
        crowded: Records that were not compared with all that they may be near to.
    """

    kept: dict[int, int]
    crowded: int


def find_near(
    signatures: NDArray[np.uint16],
    order: NDArray[np.int64],
    near: float,
    sides: NDArray[np.uint8],
    labels: NDArray[np.int32],
) -> Near:
    """Find the records that nearly equal one that stays.

    Records are gone through in `order`. Each is compared with those that stayed so far: it stays
    where it is near none, so no chain of small changes removes a record that is far from what is
    kept. On one side, records of different labels are never near.

    Args:
        signatures: Shape (records, SLOTS).
        order: Numbers of the records, those that have precedence first.
        near: The least Jaccard index.
        sides: Of each record; the higher is held out.
        labels: Of each record, a number for each different value.
    """
    import numpy as np

    # From here on a record is its place in `order`: the lower has precedence.
    sides, labels = sides[order], labels[order]
    needed = math.ceil(near * SLOTS - 1e-9)
    buckets = _bucket(signatures, order, near)
    members: dict[int, list[int]] = {}
    kept: dict[int, int] = {}
    crowded = 0
    for place in np.flatnonzero((buckets >= 0).any(axis=1)).tolist():
        own = [bucket for bucket in buckets[place].tolist() if bucket >= 0]
        met = sorted({other for bucket in own for other in members.get(bucket, ())})
        comparable = [n for n in met if sides[n] > sides[place] or labels[n] == labels[place]]
        twin = _find_first(signatures, order[place], order[comparable], needed)
        if twin is not None:
            kept[int(order[place])] = twin
            continue
        full = False
        for bucket in own:
            there = members.setdefault(bucket, [])
            if len(there) < _CROWD:
                there.append(place)
            else:
                full = True
        crowded += full
    return Near(kept, crowded)


def _find_first(
    signatures: NDArray[np.uint16], record: int, others: NDArray[np.int64], needed: int
) -> int | None:
    """Return the first of `others` that has as many slots as needed in common with a record."""
    import numpy as np

    own = signatures[record]
    if len(others) <= _FEW:
        for other in others.tolist():
            if np.count_nonzero(signatures[other] == own) >= needed:
                return int(other)
        return None
    near = (signatures[others] == own).sum(axis=1) >= needed
    return int(others[near.argmax()]) if near.any() else None


def _bucket(
    signatures: NDArray[np.uint16], order: NDArray[np.int64], near: float
) -> NDArray[np.int32]:
    """Return the bucket of each record in each band, −1 where it is alone in it.

    Returns:
        Shape (records in `order`, bands); the numbers of two bands are different.
    """
    import numpy as np

    bands, rows = choose_bands(near)
    buckets = np.full((len(order), bands), -1, np.int32)
    used = 0
    for band in range(bands):
        columns = signatures[:, band * rows : (band + 1) * rows][order].astype(np.uint64)
        keys = columns[:, 0]
        for column in columns.T[1:]:
            keys = keys * np.uint64(FACTOR) + column
        _, number, count = np.unique(keys, return_inverse=True, return_counts=True)
        shared = count > 1
        names = np.where(shared, used + np.cumsum(shared) - 1, -1)
        buckets[:, band] = names[number]
        used += int(shared.sum())
    return buckets


def choose_bands(near: float) -> tuple[int, int]:
    """Return the number of bands and of slots in each.

    The most slots a band with which 98 % of the pairs at the threshold share one: the fewest
    pairs below it are compared in vain.

    Example:
        >>> choose_bands(0.8)
        (18, 7)
    """
    for rows in range(SLOTS, 1, -1):
        bands = SLOTS // rows
        if 1 - (1 - near**rows) ** bands >= _FOUND:
            return bands, rows
    return SLOTS, 1
