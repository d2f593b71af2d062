"""A classifier on held-out records, beside what the labels' frequencies alone would say."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from msgspec import to_builtins

from finetune.backends.local.classifier import Classifier, Scores
from finetune.backends.platform.api import Client
from finetune.corpus import Dataset
from finetune.corpus.labels import (
    count_labels,
    fill_targets,
    labels_of,
    read_labelled_records,
)
from finetune.errors import DataError, PlatformError, RunError, UsageError
from finetune.evaluation.labels import TargetFigures, grade
from finetune.files import AtomicFile, to_json, write_atomic
from finetune.progress import Progress, silent
from finetune.recipe.tree import ClassifierTarget
from finetune.records import ClassifierRecord
from finetune.runs import Run, find_run

BASELINE = "base: how often each label stands in the training data, whatever the text says"
_AT_ONCE = 16  # records of one request


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
    service: Client | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure a run's classifier and write `evaluation.json` and `predictions.jsonl`.

    Args:
        run: A run with a classifier.
        dataset: What it was trained on.
        path: The held-out records.
        facts: What the document says besides.
        against: Another run's classifier to measure beside it.
        service: Where the run's classifier is, if it is on the platform.
        progress: Told about the work.

    Returns:
        What `evaluation.evaluate` returns, with `targets`: figures of each label, the confusion
        matrix and the calibration of each target.

    Raises:
        UsageError: `against` is no run with a classifier of the same targets.
        DataError: A record is longer than `training.seq_len`, and `data.too_long` is `error`.
        RunError: No record is left.
        PlatformError: The service does not answer, or not with scores of the run's labels.
    """
    recipe = fill_targets(run.recipe, dataset)
    targets = recipe.training.classifier_targets
    if service is None:
        questions, tuned, too_long = _ask_here(run, path, progress)
    else:
        questions, too_long = [Question(*row) for row in read_labelled_records(path)], 0
        tuned = _ask_there(service, str(run.model), targets, questions, progress)
    sides = {"base": [_frequencies(dataset, targets)] * len(questions), "tuned": tuned}
    named = {}
    if against is not None:
        named["against_name"], sides["against"] = _ask(run, against, targets, questions, progress)
    document = {"records": len(questions), **facts, "too_long": too_long, **named}
    document |= _grade(targets, questions, sides, run.recipe.seed)
    with AtomicFile(run.folder / "predictions.jsonl") as file:
        for line in _predictions(questions, sides):
            file.write(to_json(line) + b"\n")
    write_atomic(run.folder / "evaluation.json", to_json(document, indent=True))
    return document


def _ask_here(run: Run, path: Path, progress: Progress) -> tuple[list[Question], list[Scores], int]:
    """Return the records, what the run's classifier says of them, and how many are too long."""
    classifier = Classifier(run.recipe, run.adapter, progress=progress)
    questions, ids, too_long = [], [], 0
    for line, record in read_labelled_records(path):
        try:
            ids.append(classifier.encode(record))
        except DataError as error:
            if run.recipe.data.too_long == "error" or error.rule != "too-long":
                raise error.at(path.name, line) from None
            too_long += 1
        else:
            questions.append(Question(line, record))
    if not questions:
        raise RunError(f"{path}: holds no record to measure on")
    return questions, classifier.classify(ids, progress=progress), too_long


def _ask_there(
    service: Client,
    model: str,
    targets: Sequence[ClassifierTarget],
    questions: Sequence[Question],
    progress: Progress,
) -> list[Scores]:
    """Return what a classifier on the platform says, asked some records at a time."""
    scores: list[Scores] = []
    records = [question.record for question in questions]
    for chat, group in itertools.groupby(records, lambda one: not isinstance(one.text, str)):
        asked = [{"messages": to_builtins(one.messages)} if chat else one.text for one in group]
        for start in range(0, len(asked), _AT_ONCE):
            part = asked[start : start + _AT_ONCE]
            reply = service.classify({"model": model, "input": part}, chat=chat)
            found = _read_scores(reply, targets)
            if len(found) != len(part):
                raise PlatformError(f"{model}: gave no score for each label of each text")
            scores += found
            progress("ask tuned", len(scores), len(records))
    return scores


def _read_scores(reply: Mapping[str, Any], targets: Sequence[ClassifierTarget]) -> list[Scores]:
    """Return the scores of a reply, none where it has not one for each label."""
    try:
        return [
            {
                target.name: {
                    label: float(one[target.name]["scores"][label]) for label in target.labels
                }
                for target in targets
            }
            for one in reply["results"]
        ]
    except (KeyError, TypeError, ValueError):
        return []


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
