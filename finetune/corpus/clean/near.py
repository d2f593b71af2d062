"""Near duplicates: MinHash signatures, banded so that only records which may be near meet.

How near two records are is the Jaccard index of their sequences of words. It is estimated from
signatures that `sign` makes wherever the record is; only they are kept.

Sources: A. Broder, On the resemblance and containment of documents (1997); rensa 0.5 (2026-08).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from finetune.corpus.clean.words import PRIME, hash_sequences, hash_words, mix, salt_of, texts_of
from finetune.errors import MissingExtra
from finetune.records import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SLOTS = 256
SIGNATURE_BYTES = 2 * SLOTS  # 16 bits of each slot: two differ with the odds of 1 : 65,536
WORDS = 3  # of a sequence
_SEED = 1
_FOUND = 0.98  # of the pairs at the threshold are to meet in a band
_CROWD = 64  # records of one bucket that are compared with


def sign(records: Sequence[Record]) -> list[bytes]:
    """Return the signature of each record, the same in every process.

    Args:
        records: Any number; a few hundred at once cost the least.

    Returns:
        `SIGNATURE_BYTES` bytes a record.

    Raises:
        MissingExtra: rensa is not installed.
    """
    try:
        from rensa import RMinHash
    except ImportError:
        raise MissingExtra("clean", "rensa") from None
    import numpy as np

    if not records:
        return []
    sets = [_sequences(record) for record in records]
    offsets = np.array([0, *itertools.accumulate(map(len, sets))], np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(
        np.concatenate(sets), offsets, SLOTS, _SEED
    )
    signatures = np.array(matrix.to_rows(), np.uint32).astype("<u2")
    return [row.tobytes() for row in signatures]


def _sequences(record: Record) -> NDArray[np.uint64]:
    """Return the hashed sequences of a record: at least one, all its words where they are few."""
    import numpy as np

    words = hash_words(texts_of(record))
    if not len(words):
        words = np.zeros(1, np.uint64)
    found = hash_sequences(words, min(WORDS, len(words)))
    salt = salt_of(record)
    return mix(found ^ np.uint64(salt)) if salt else found


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

    needed = round(near * SLOTS + 0.499)
    buckets = _bucket(signatures, order, near)
    rank = np.empty(len(signatures), np.int64)
    rank[order] = np.arange(len(order))
    members: dict[int, list[int]] = {}
    kept: dict[int, int] = {}
    crowded = 0
    for place in np.flatnonzero((buckets >= 0).any(axis=1)).tolist():
        record = int(order[place])
        own = [bucket for bucket in buckets[place].tolist() if bucket >= 0]
        others = list(set().union(*(members.get(bucket, ()) for bucket in own)))
        if others:
            equal = (signatures[others] == signatures[record]).sum(axis=1) >= needed
            equal &= (sides[others] > sides[record]) | (labels[others] == labels[record])
            if equal.any():
                twins = np.array(others)[equal]
                kept[record] = int(twins[rank[twins].argmin()])
                continue
        full = False
        for bucket in own:
            there = members.setdefault(bucket, [])
            if len(there) < _CROWD:
                there.append(record)
            else:
                full = True
        crowded += full
    return Near(kept, crowded)


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
            keys = keys * np.uint64(PRIME) + column
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
        (28, 9)
    """
    for rows in range(SLOTS, 1, -1):
        bands = SLOTS // rows
        if 1 - (1 - near**rows) ** bands >= _FOUND:
            return bands, rows
    return SLOTS, 1
