"""Rules that only the records of a file together show."""

from __future__ import annotations

from collections import Counter

from msgspec import UNSET

from finetune.checks.report import Fault
from finetune.records import ClassifierRecord
from finetune.text import plural

MAX_TARGETS = 100  # remembered
MAX_CLASSES = 10_000  # remembered of each target
RARE = 5  # records that a class has at least
_MANY = 100  # records of a target from which a rare class can be told
_SPREAD = 100  # times the median, from which an answer's length is an outlier
_ENOUGH = 20  # answers from which a median means something


class LabelRules:
    """What only the labels of all records together show."""

    def __init__(self) -> None:
        self._kinds: dict[str, type] = {}
        self._classes: dict[str, Counter[str]] = {}
        self._inputs: set[str] = set()

    def check(self, record: ClassifierRecord) -> list[Fault]:
        """Take note of a record; return what contradicts the records before it."""
        faults = []
        source = "text" if record.text is not UNSET else "messages"
        if self._inputs and source not in self._inputs and len(self._inputs) == 1:
            faults.append(Fault("mixed-inputs", source, f"`{source}`, unlike the records before"))
        self._inputs.add(source)
        for name, value in record.labels.items():
            kind = self._kinds.setdefault(name, type(value))
            if kind is not type(value):
                found, before = ("a list", "one value") if kind is str else ("one value", "lists")
                faults.append(Fault("label-kind", "labels.*", f"{found}, {before} before"))
            if name not in self._classes and len(self._classes) >= MAX_TARGETS:
                continue
            classes = self._classes.setdefault(name, Counter())
            for label in value if isinstance(value, list) else [value]:
                if label in classes or len(classes) < MAX_CLASSES:
                    classes[label] += 1
        return faults

    def finish(self) -> list[Fault]:
        """Return what the file as a whole shows. Classes are counted, not named: they are data."""
        single = [classes for classes in self._classes.values() if len(classes) == 1]
        rare = near = joined = 0
        for classes in self._classes.values():
            if sum(classes.values()) >= _MANY:
                rare += sum(count < RARE for count in classes.values())
            near += len(classes) - len({_plain(label) for label in classes})
            joined += sum(_is_joined(label, classes) for label in classes)
        faults = []
        if single:
            fact = f"{plural(len(single), 'target')} with one class"
            faults.append(Fault("one-class", "labels.*", fact))
        if rare:
            fact = f"{plural(rare, 'class', 'classes')} with fewer than {RARE} records"
            faults.append(Fault("rare-class", "labels.*", fact))
        if near:
            fact = f"{plural(near, 'class', 'classes')} named almost like another"
            faults.append(Fault("near-labels", "labels.*", fact))
        if joined:
            fact = f"{plural(joined, 'class', 'classes')} made of others"
            faults.append(Fault("joined-labels", "labels.*", fact))
        return faults


def _plain(label: str) -> str:
    """Return a class without case, spaces and punctuation; itself where nothing else is in it."""
    return "".join(filter(str.isalnum, label.casefold())) or label


def _is_joined(label: str, classes: Counter[str]) -> bool:
    """Tell whether a class is others in one text: all of them known, or one where `;` is sure."""
    for mark, enough in ((";", any), ("|", any), (",", all)):
        parts = [part.strip() for part in label.split(mark) if part.strip()]
        if len(parts) > 1 and enough(part in classes for part in parts):
            return True
    return False


class RatingRules:
    """How often answers were rated good, and how often not."""

    def __init__(self) -> None:
        self._counts: Counter[bool] = Counter()

    def add(self, *, good: bool) -> None:
        """Take note of a rating."""
        self._counts[good] += 1

    def finish(self) -> list[Fault]:
        """Return that all ratings are the same, where there are several."""
        if len(self._counts) != 1 or self._counts.total() == 1:
            return []
        rating = "good" if self._counts[True] else "not good"
        return [Fault("one-rating", "label", f"all answers are rated {rating}")]


class LengthRules:
    """The lengths of a file's answers, in powers of two: exact enough for a factor of a hundred."""

    def __init__(self) -> None:
        self._counts = [0] * 64
        self._longest = self._line = 0

    def add(self, characters: int, number: int) -> None:
        """Take note of a record with so many characters of answers, on this line."""
        self._counts[characters.bit_length()] += 1
        if characters > self._longest:
            self._longest, self._line = characters, number

    def finish(self) -> list[tuple[int, Fault]]:
        """Return the line of an answer that is far longer than the others, and the fault."""
        counts = self._counts[1:]  # without those that have no answer
        half, bits = (sum(counts) + 1) // 2, 0
        if sum(counts) < _ENOUGH:
            return []
        while half > 0:
            half -= counts[bits]
            bits += 1
        if self._longest < _SPREAD * 2**bits:
            return []
        fact = f"answers of {self._longest:,} characters, over {_SPREAD} times the median"
        return [(self._line, Fault("unequal-lengths", "", fact))]
