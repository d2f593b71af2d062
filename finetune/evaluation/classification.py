"""A classifier on held-out records, beside what the labels' frequencies alone would say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from finetune.backends.local.classifier import Classifier, Scores
from finetune.corpus import Dataset
from finetune.corpus.labels import count_labels, labels_of
from finetune.errors import DataError, RunError, UsageError
from finetune.evaluation.labels import TargetFigures, grade
from finetune.files import AtomicFile, open_bytes, read_lines, to_json, write_atomic
from finetune.progress import Progress, silent
from finetune.recipe.tree import ClassifierTarget
from finetune.records import ClassifierRecord, decode
from finetune.runs import Run, find_run

BASELINE = "base: how often each label stands in the training data, whatever the text says"


class Question(NamedTuple):
    """A held-out record and its line in the split's file, from 1."""

    number: int
    record: ClassifierRecord


def evaluate_classifier(
    run: Run,
    dataset: Dataset,
    path: Path,
    *,
    facts: Mapping[str, Any],
    against: str | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure a run's classifier and write `evaluation.json` and `predictions.jsonl`.

    Args:
        run: A run with a classifier.
        dataset: What it was trained on.
        path: The held-out records.
        facts: What the document says besides.
        against: Another run's classifier to measure beside it.
        progress: Told about the work.

    Returns:
        What `evaluation.evaluate` returns, with `targets`: figures of each label, the confusion
        matrix and the calibration of each target.

    Raises:
        UsageError: `against` is no run with a classifier of the same targets.
        DataError: A record is longer than `training.seq_len`, and `data.too_long` is `error`.
        RunError: No record is left.
    """
    classifier = Classifier(run.recipe, run.adapter, progress=progress)
    targets = classifier.head.targets
    strict = run.recipe.data.too_long == "error"
    questions, ids, too_long = _read(path, classifier, strict=strict)
    sides = {
        "base": [_frequencies(dataset, targets)] * len(questions),
        "tuned": classifier.classify(ids, progress=progress),
    }
    named = {}
    if against is not None:
        del classifier  # one model is held at a time
        named["against_name"], sides["against"] = _ask(run, against, targets, questions, progress)
    document = {"records": len(questions), **facts, "too_long": too_long, **named}
    document |= _grade(targets, questions, sides, run.recipe.seed)
    with AtomicFile(run.folder / "predictions.jsonl") as file:
        for line in _predictions(questions, sides):
            file.write(to_json(line) + b"\n")
    write_atomic(run.folder / "evaluation.json", to_json(document, indent=True))
    return document


def _read(
    path: Path, classifier: Classifier, *, strict: bool
) -> tuple[list[Question], list[list[int]], int]:
    """Return the records with their ids, and how many are too long."""
    questions, ids, too_long = [], [], 0
    with open_bytes(path) as file:
        for line in read_lines(file):
            record = decode("classifier", line.data or b"")
            assert isinstance(record, ClassifierRecord)  # noqa: S101 (the kind that was asked for)
            try:
                ids.append(classifier.encode(record))
            except DataError as error:
                if strict or error.rule != "too-long":
                    raise error.at(path.name, line.number) from None
                too_long += 1
            else:
                questions.append(Question(line.number, record))
    if not questions:
        raise RunError(f"{path}: holds no record to measure on")
    return questions, ids, too_long


def _frequencies(dataset: Dataset, targets: Sequence[ClassifierTarget]) -> Scores:
    """Return each label's share of the training records: what is known without reading a text."""
    shares: Scores = {}
    for target in targets:
        counts, records = count_labels(dataset, target)
        pairs = zip(target.labels, counts, strict=True)
        shares[target.name] = {label: count / records for label, count in pairs}
    return shares


def _ask(
    run: Run,
    against: str,
    targets: Sequence[ClassifierTarget],
    questions: Sequence[Question],
    progress: Progress,
) -> tuple[str, list[Scores]]:
    """Return another classifier's name and what it says."""
    rival = find_run(against, run.folder.parent)
    other = Classifier(rival.recipe, rival.adapter, progress=progress)
    wanted = {target.name: set(target.labels) for target in targets}
    if {target.name: set(target.labels) for target in other.head.targets} != wanted:
        raise UsageError(f"{against}: its targets or labels are not those of this run")
    ids = [other.encode(question.record) for question in questions]
    return rival.folder.name, other.classify(ids, progress=progress)


def _grade(
    targets: Sequence[ClassifierTarget],
    questions: Sequence[Question],
    sides: Mapping[str, Sequence[Scores]],
    seed: int,
) -> dict[str, Any]:
    """Return the measures of each side, and the figures of each target."""
    found: dict[str, dict[str, Any]] = {}
    document: dict[str, Any] = {}
    for side, scores in sides.items():
        figures = [_compare(target, questions, scores) for target in targets]
        document[side], each = grade(figures, seed=seed)
        for target, one, measures in zip(targets, figures, each, strict=True):
            facts = {"loss_function": target.loss_function, "records": one.records}
            known = found.setdefault(target.name, facts)
            known[side] = {"measures": measures, **one.describe()}
    return document | {"targets": found}


def _compare(
    target: ClassifierTarget, questions: Sequence[Question], scores: Sequence[Scores]
) -> TargetFigures:
    places = {label: place for place, label in enumerate(target.labels)}
    truth = [
        tuple(sorted({places[label] for label in labels_of(question.record, target.name)}))
        if target.name in question.record.labels
        else None
        for question in questions
    ]
    given = [[one[target.name][label] for label in target.labels] for one in scores]
    return TargetFigures(target, given, truth)


def _predictions(
    questions: Sequence[Question], sides: Mapping[str, Sequence[Scores]]
) -> Iterator[dict[str, Any]]:
    for place, question in enumerate(questions):
        yield {
            "record": question.number,
            "reference": question.record.labels,
            **{side: {"scores": scores[place]} for side, scores in sides.items()},
        }
