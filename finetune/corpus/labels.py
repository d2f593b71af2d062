"""The targets of a classifier: what the recipe says of them, and the records say for the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

from finetune.corpus.dataset import Dataset
from finetune.errors import DataError, RecipeError
from finetune.files import open_bytes, read_lines
from finetune.methods import METHODS
from finetune.recipe import Recipe
from finetune.recipe.tree import ClassifierTarget
from finetune.records import ClassifierRecord, decode
from finetune.text import did_you_mean

_KEY = "training.classifier_targets"


class _Place:
    """Where a label stands."""

    def __init__(self, path: Path, line: int, target: str) -> None:
        self._path, self._line, self._target = path, line, target

    def refuse(self, fact: str, *, rule: str | None = None, hint: str | None = None) -> DataError:
        """Return the error about it, which never quotes a label of the data."""
        place = f"labels.{self._target}"
        return DataError(
            fact, file=self._path.name, line=self._line, path=place, rule=rule, hint=hint
        )


class _Found:
    """What the records say of one target.

    Attributes:
        kind: `single_class` where the values are texts, `multi_class` where they are lists.
        trained: How many training records have a label.
        unseen: Where a label stands that no training record has.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.trained: Counter[str] = Counter()
        self.unseen: dict[str, _Place] = {}
        self._values: set[frozenset[str]] = set()

    def add(self, labels: list[str], place: _Place, *, trained: bool) -> None:
        """Take note of a record's labels."""
        if trained:
            self.trained.update(set(labels))
            if len(self._values) < 2:
                self._values.add(frozenset(labels))
        else:
            self.unseen |= {label: place for label in labels if label not in self.trained}

    @property
    def varies(self) -> bool:
        """Whether training records differ in it."""
        return len(self._values) > 1


def fill_targets(recipe: Recipe, dataset: Dataset) -> Recipe:
    """Return the recipe with every target of a classifier filled in from the records.

    Recipes of other methods are returned as they are. Labels that the recipe leaves open are
    those of the training data, sorted.

    Raises:
        DataError: A record has a target or a label that the recipe does not name, another kind of
            value than its target, a label that no training record has; or all training records
            have the same labels.
        RecipeError: The recipe names a target that no training record has.
    """
    if METHODS[recipe.method].record != "classifier":
        return recipe
    given = {target.name: target for target in recipe.training.classifier_targets}
    found = _read(dataset, given)
    targets = [_fill(given.get(name), name, found) for name in given or sorted(found)]
    training = recipe.training.model_copy(update={"classifier_targets": targets})
    return recipe.model_copy(update={"training": training})


def count_labels(dataset: Dataset, target: ClassifierTarget) -> tuple[list[int], int]:
    """Return how many training records have each label of a target, and how many have the target.

    Args:
        dataset: The dataset.
        target: A target that is filled in.
    """
    counts: Counter[str] = Counter()
    records = 0
    for file in dataset.train:
        for _, record in read_labelled_records(file.path):
            if target.name in record.labels:
                records += 1
                counts.update(set(labels_of(record, target.name)))
    return [counts[label] for label in target.labels], records


def labels_of(record: ClassifierRecord, target: str) -> list[str]:
    """Return a record's labels of a target that it has."""
    value = record.labels[target]
    return [value] if isinstance(value, str) else value


def _read(dataset: Dataset, given: dict[str, ClassifierTarget]) -> dict[str, _Found]:
    found: dict[str, _Found] = {}
    held_out = [path for path in (dataset.validation, dataset.evaluation) if path]
    for path in [*(file.path for file in dataset.train), *held_out]:
        for line, record in read_labelled_records(path):
            for name in record.labels:
                place = _Place(path, line, name)
                kind = "single_class" if isinstance(record.labels[name], str) else "multi_class"
                known = found.setdefault(name, _Found(kind))
                labels = labels_of(record, name)
                _check(given, name, kind, known.kind, labels, place)
                known.add(labels, place, trained=path not in held_out)
    return found


def _check(
    given: dict[str, ClassifierTarget],
    name: str,
    kind: str,
    before: str,
    labels: list[str],
    place: _Place,
) -> None:
    """Refuse what contradicts the recipe or the records before."""
    if given and name not in given:
        hint = did_you_mean(name, given) or f"it names {', '.join(f'`{one}`' for one in given)}"
        raise place.refuse(f"a target that `{_KEY}` does not name", hint=hint)
    target = given.get(name)
    wanted = target.loss_function if target else None
    if wanted == "single_class" and kind == "multi_class":
        raise place.refuse(
            "a list, where the target has one label a record",
            rule="label-kind",
            hint="set its `loss_function` to `multi_class`",
        )
    if wanted is None and kind != before:
        words = {"single_class": "one value", "multi_class": "a list"}
        raise place.refuse(f"{words[kind]}, {words[before]} before", rule="label-kind")
    for label in labels:
        if target and target.labels and label not in target.labels:
            raise place.refuse(
                f"a label that `{_KEY}` does not list", hint=did_you_mean(label, target.labels)
            )


def _fill(given: ClassifierTarget | None, name: str, found: dict[str, _Found]) -> ClassifierTarget:
    known = found.get(name)
    if known is None or not (known.trained or known.varies):
        raise RecipeError(
            f"{_KEY}: no training record has the target `{name}`",
            hint=did_you_mean(name, found),
        )
    listed = list(given.labels) if given else []
    never = [label for label in listed if label not in known.trained]
    if never:
        raise DataError(
            f"{_KEY}: no training record has the label `{never[0]}` of `{name}`",
            hint="leave it out, or add records that have it",
        )
    if known.unseen:
        raise next(iter(known.unseen.values())).refuse(
            "a label that no training record has",
            rule="unseen-label",
            hint="add training records that have it, or leave its records out",
        )
    if not known.varies:
        raise DataError(
            f"`{name}`: all training records have the same labels: nothing to tell apart",
            rule="one-class",
            hint="add records with other labels, or leave the target out of the records",
        )
    target = given or ClassifierTarget(name=name)
    return target.model_copy(
        update={
            "labels": listed or sorted(known.trained),
            "loss_function": target.loss_function or known.kind,
        }
    )


def read_labelled_records(path: Path) -> Iterator[tuple[int, ClassifierRecord]]:
    """Yield the records of a classifier's file with their lines.

    Raises:
        DataError: A line is no such record.
    """
    with open_bytes(path) as file:
        for line in read_lines(file):
            try:
                record = decode("classifier", line.data or b"")
            except msgspec.DecodeError:
                raise DataError(
                    "not a record of a classifier", file=path.name, line=line.number
                ) from None
            assert isinstance(record, ClassifierRecord)  # noqa: S101 (the kind that was asked for)
            yield line.number, record
