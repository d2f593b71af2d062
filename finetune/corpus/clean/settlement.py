"""Settlement: what is removed once all records are known, from small facts about each.

In this order, each step on what the one before it left: near duplicates, then the cap of each
source, then the balance of classes. Caps and balance only ever touch training records.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from finetune.corpus.clean.near import SLOTS, find_near
from finetune.corpus.split import Side
from finetune.errors import UsageError
from finetune.records import ClassifierRecord, Record
from finetune.text import plural, safe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from finetune.recipe.tree import Clean

_ENCODER = msgspec.json.Encoder(order="deterministic")
_NO_LABELS = -1
_NAMED = 5  # labels that a warning names
_MOST = 0.5  # share of the training records; if more are near duplicates, something is odd


def labels_of(record: Record) -> bytes | None:
    """Return the labels of a classifier's record as JSON, None for other kinds."""
    return _ENCODER.encode(record.labels) if isinstance(record, ClassifierRecord) else None


class Facts:
    """What is kept about every record that was written, in the order in which they came.

    A record is its ordinal from here on. Memory: 17 bytes a record, 273 with a signature.
    """

    def __init__(self) -> None:
        self._sides = bytearray()
        self._positions = array("Q")
        self._sources = array("i")
        self._labels = array("i")
        self._known: dict[bytes, int] = {}
        self._signatures = bytearray()

    def __len__(self) -> int:
        return len(self._sides)

    def add(
        self,
        side: Side,
        position: int,
        source: int,
        labels: bytes | None = None,
        signature: bytes | None = None,
    ) -> None:
        """Take note of a record.

        Args:
            side: Where it was written.
            position: Hash of its group or row (`Split.position`), 64 bits.
            source: Number of its source.
            labels: From `labels_of`.
            signature: From `sign`, for all records or for none.
        """
        self._sides.append(side)
        self._positions.append(position)
        self._sources.append(source)
        number = _NO_LABELS if labels is None else self._known.setdefault(labels, len(self._known))
        self._labels.append(number)
        if signature is not None:
            self._signatures += signature

    @property
    def sides(self) -> NDArray[np.uint8]:
        """The side of each record."""
        import numpy as np

        return np.frombuffer(self._sides, np.uint8)

    @property
    def positions(self) -> NDArray[np.uint64]:
        """The hash of each record's group or row."""
        import numpy as np

        return np.frombuffer(self._positions, np.uint64)

    @property
    def sources(self) -> NDArray[np.int32]:
        """The number of each record's source."""
        import numpy as np

        return np.frombuffer(self._sources, np.int32)

    @property
    def labels(self) -> NDArray[np.int32]:
        """A number for the labels of each record; −1 for none."""
        import numpy as np

        return np.frombuffer(self._labels, np.int32)

    @property
    def signatures(self) -> NDArray[np.uint16]:
        """The signature of each record; shape (records or 0, SLOTS)."""
        import numpy as np

        return np.frombuffer(self._signatures, "<u2").reshape(-1, SLOTS)

    def read_labels(self) -> list[dict[str, str | list[str]]]:
        """Return what the numbers of `labels` stand for."""
        return [msgspec.json.decode(labels) for labels in self._known]


class Removal(NamedTuple):
    """A record that is removed.

    Attributes:
        record: Its ordinal.
        rule: Why: `near-duplicate`, `near-duplicate-of-validation`, `max-records` or `balance`.
        kept: Ordinal of the record that it nearly equals, None for other rules.
    """

    record: int
    rule: str
    kept: int | None


class Warned(NamedTuple):
    """Something that people should know about the dataset.

    Attributes:
        rule: Its name.
        message: One line.
    """

    rule: str
    message: str


class Settlement(NamedTuple):
    """What `settle` decided.

    Attributes:
        removals: In the order of the records.
        warnings: Of the dataset as a whole.
    """

    removals: list[Removal]
    warnings: list[Warned]


def settle(
    facts: Facts, clean: Clean, caps: Mapping[int, int] | None = None, gone: Collection[int] = ()
) -> Settlement:
    """Decide which records are removed.

    The outcome depends on the facts alone; settling what is left again removes nothing more.

    Args:
        facts: Of all records.
        clean: The recipe's section: `deduplicate`, `near` and `balance`.
        caps: Number of a source → most training records of it (`max_records`).
        gone: Ordinals that left already, such as a record whose exact twin is held out.

    Raises:
        UsageError: Classes cannot be balanced: a record has no label, or more than one.
    """
    import numpy as np

    left = np.ones(len(facts), bool)
    left[list(gone)] = False
    removals: list[Removal] = []
    warnings: list[Warned] = []
    if clean.deduplicate == "near" and len(facts):
        removals += _remove_near(facts, clean.near, left, warnings)
    for source, most in sorted((caps or {}).items()):
        of_source = left & (facts.sides == Side.TRAIN) & (facts.sources == source)
        removals += _cut(facts, of_source, most, left, "max-records")
    if clean.balance == "downsample":
        removals += _balance(facts, left)
    warnings += _find_unseen_labels(facts, left)
    return Settlement(sorted(removals), warnings)


def _remove_near(
    facts: Facts, near: float, left: NDArray[np.bool_], warnings: list[Warned]
) -> Iterator[Removal]:
    import numpy as np

    sides = facts.sides
    there = np.flatnonzero(left)
    order = there[np.argsort(-sides[there].astype(np.int8), kind="stable")]
    found = find_near(facts.signatures, order, near, sides, facts.labels)
    before = int((left & (sides == Side.TRAIN)).sum())
    for record, kept in found.kept.items():
        left[record] = False
        held_out = sides[kept] > sides[record]
        rule = "near-duplicate-of-validation" if held_out else "near-duplicate"
        yield Removal(record, rule, kept)
    lost = before - int((left & (sides == Side.TRAIN)).sum())
    if lost > _MOST * before:
        warnings.append(
            Warned(
                "mostly-near-duplicates",
                f"{plural(lost, 'training record')} of {before:,} nearly equal another: do they"
                " share a template? raise `data.clean.near`, or move it to the system prompt",
            )
        )
    if found.crowded:
        warnings.append(
            Warned(
                "crowded",
                f"{plural(found.crowded, 'record')} resemble so many others that not all were"
                " compared: near duplicates may be left among them",
            )
        )


def _cut(
    facts: Facts, those: NDArray[np.bool_], most: int, left: NDArray[np.bool_], rule: str
) -> Iterator[Removal]:
    """Remove all but the `most` of lowest hash; of one hash, those that came first stay."""
    import numpy as np

    records = np.flatnonzero(those)
    ranked = records[np.argsort(facts.positions[records], kind="stable")]
    for record in ranked[most:].tolist():
        left[record] = False
        yield Removal(record, rule, None)


def _balance(facts: Facts, left: NDArray[np.bool_]) -> Iterator[Removal]:
    import numpy as np

    trained = left & (facts.sides == Side.TRAIN)
    classes, counts = np.unique(facts.labels[trained], return_counts=True)
    known = facts.read_labels()
    for number in classes.tolist():
        labels = known[number] if number != _NO_LABELS else {}
        values = [v for value in labels.values() for v in _as_list(value)]
        if len(values) != 1:
            raise UsageError(
                f"data.clean.balance: a record has {plural(len(values), 'label')}: classes can"
                " be balanced only where each has one",
                hint="leave `balance` out, or keep one target in `columns`",
            )
    for number in classes.tolist():
        of_class = trained & (facts.labels == number)
        yield from _cut(facts, of_class, int(counts.min()), left, "balance")


def _find_unseen_labels(facts: Facts, left: NDArray[np.bool_]) -> Iterator[Warned]:
    """Yield a warning for each target with labels that are trained but never validated."""
    import numpy as np

    held_out = left & (facts.sides == Side.VALIDATION)
    if not held_out.any():
        return
    known = facts.read_labels()
    sides = []
    for those in (left & (facts.sides == Side.TRAIN), held_out):
        numbers = np.unique(facts.labels[those]).tolist()
        sides.append(
            {
                (target, value)
                for number in numbers
                if number != _NO_LABELS
                for target, values in known[number].items()
                for value in _as_list(values)
            }
        )
    missing: dict[str, list[str]] = {}
    for target, value in sorted(sides[0] - sides[1]):
        missing.setdefault(target, []).append(value)
    for target, values in missing.items():
        named = ", ".join(f"`{safe(value, 40)}`" for value in values[:_NAMED])
        more = f" and {len(values) - _NAMED:,} more" if len(values) > _NAMED else ""
        yield Warned(
            "label-not-validated",
            f"`{safe(target, 40)}`: no validation record has {named}{more}",
        )


def _as_list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else value
