"""The split: which side a record belongs to, for ever.

The side follows from the hash of the row (or of its group) against fixed thresholds. It depends on
nothing else, so that rows added later move no row, and a held-out record stays held out.
"""

from __future__ import annotations

import hashlib
from enum import IntEnum
from typing import Any

import msgspec

_ENCODER = msgspec.json.Encoder(order="deterministic")


class Side(IntEnum):
    """Where a record goes; the higher wins where equal records meet."""

    TRAIN = 0
    VALIDATION = 1
    EVALUATION = 2


class Split:
    """Shares of the rows, by their hash.

    Args:
        validation: Share kept for validation.
        evaluation: Share kept from both splits.
        group: Key of a row whose value keeps rows together; rows without one stand alone.
        least: The side of the rows that are in no share.

    Example:
        >>> Split(validation=0.0, evaluation=1.0).side({"question": "Q"}).name
        'EVALUATION'
    """

    def __init__(
        self,
        *,
        validation: float,
        evaluation: float,
        group: str | None = None,
        least: Side = Side.TRAIN,
    ) -> None:
        self.group = group
        self._validation, self._evaluation, self._least = validation, evaluation, least
        # Of 64 bits; a share of 1 takes all.
        self._evaluated = round(evaluation * 2**64)
        self._held_out = self._evaluated + round(validation * 2**64)

    def by(self, group: str) -> Split:
        """Return the same shares, rows kept together by `group` where no other key was named."""
        if self.group is not None:
            return self
        return Split(
            validation=self._validation, evaluation=self._evaluation, group=group, least=self._least
        )

    def side(self, row: Any) -> Side:
        """Return the side of a row as it was read."""
        return self.side_at(self.position(row))

    def position(self, row: Any) -> int:
        """Return the hash of a row's group, else of the row: 64 bits that order rows for ever."""
        data = _ENCODER.encode(row) if self.group is None else self._key(row)
        return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")

    def side_at(self, position: int) -> Side:
        """Return the side of a row by its position."""
        if position < self._evaluated:
            return Side.EVALUATION
        return Side.VALIDATION if position < self._held_out else self._least

    def _key(self, row: Any) -> bytes:
        first = row[0] if isinstance(row, list) and row else row  # the rows of one conversation
        group = first.get(self.group) if isinstance(first, dict) else None
        if group is None or group == "":
            return _ENCODER.encode(row)
        # A number in one source and its digits in another are one group.
        return group.encode() if isinstance(group, str) else _ENCODER.encode(group)
