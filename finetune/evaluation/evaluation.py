"""Base beside tuned: the loss of held-out records, and what generated answers are worth."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune.backends.local.base import check_adapter
from finetune.backends.local.model import is_adapter, load_model, load_tuned, resolve_model
from finetune.backends.local.vision import check_vision
from finetune.backends.platform.api import Client
from finetune.corpus import Dataset
from finetune.errors import PlatformError, RunError
from finetune.evaluation.cases import choose_cases, read_cases
from finetune.evaluation.classification import BASELINE, evaluate_classifier
from finetune.evaluation.exam import Exam, Outcome
from finetune.evaluation.general import read_general
from finetune.evaluation.judge import NAME, Bench, judge, open_judge
from finetune.evaluation.measures import list_missing
from finetune.evaluation.remote import (
    NO_LOSSES,
    find_tokenizer,
    hear,
    hear_both,
    open_elsewhere,
    read_elsewhere,
)
from finetune.evaluation.rival import Rival, find_rival
from finetune.files import AtomicFile, to_json, write_atomic
from finetune.methods import METHODS
from finetune.progress import Progress, silent
from finetune.recipe import Recipe
from finetune.runs import Run
from finetune.text import plural
from finetune.tokens import load_tokenizer

_ON_VALIDATION = "measured on rows that also chose the checkpoint"

Outcomes = dict[str, Outcome]


def evaluate(
    run: Run,
    *,
    against: str | None = None,
    judge_key: str | None = None,
    service: Client | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure a run's model beside its base and write `evaluation.json` into the run's folder.

    `predictions.jsonl` beside it holds every answer with its reference.

    Args:
        run: A run that has a model.
        against: Another run, adapter or model to measure beside them, or a served `MODEL@URL`.
        judge_key: The key of the judge or of that service, where it is not Mistral's own.
        service: Where the run's model is, if it is on the platform.
        progress: Told about the work.

    Returns:
        `{"records", "split", "note", "too_long", "base": {MEASURE: {"value", "low", "high"}},
        "tuned": {…}}`, with `against` where one was named: `records` were asked for an answer
        (all, where none is asked for one); losses (nats a trained token) are measured on every
        record; intervals are 95 % bootstrap ones.

    Raises:
        RunError: The run has no model yet, or nothing was held out.
        UsageError: `against` means nothing, or an adapter is another base's.
        RecipeError: The recipe's judge may not see these data.
        PlatformError: The judge does not answer; all other measures are written.
    """
    if service is None:
        _require_model(run)
    recipe, dataset = run.recipe, Dataset.load(run.dataset)
    if recipe.method == "classifier":
        return _evaluate_classifier(run, dataset, against, service, progress)
    split, path = _held_out(dataset)
    bench = open_judge(recipe, dataset.manifest, key=judge_key)
    elsewhere, rival = read_elsewhere(against), None
    if against and elsewhere is None:
        rival = find_rival(against, recipe, run.folder.parent, progress=progress)
    folder = None if service else resolve_model(recipe.model, progress=progress)
    exam, too_long = _set_exam(path, folder, recipe, progress, images=not (service or elsewhere))
    outcomes: Outcomes = hear_both(run, exam, service, progress) if service else {}
    outcomes |= _examine(run, folder, exam, rival)
    if elsewhere is not None:
        with open_elsewhere(elsewhere, recipe, dataset, judge_key, service) as speaker:
            outcomes["against"] = hear(exam, speaker, "against", progress)
    document: dict[str, Any] = {
        "records": len(exam.asked) or len(exam.cases),
        "split": split,
        "note": _note(split, exam, remote=bool(service)),
        "too_long": too_long,
        **({"against_name": rival.name if rival else against} if against else {}),
        **_grade(exam, outcomes),
    }
    _write(run, document, exam, outcomes, {})
    if bench is not None:
        _judge(run, document, exam, outcomes, bench, progress)
    return document


def _require_model(run: Run) -> None:
    if not run.tuned.is_dir():
        raise RunError(f"{run.folder}: has no tuned model", hint=run.find_remedy())
    check_adapter(run.tuned, run.recipe.model)


def _evaluate_classifier(
    run: Run, dataset: Dataset, against: str | None, service: Client | None, progress: Progress
) -> dict[str, Any]:
    split, path = _held_out(dataset)
    note = "; ".join([*([] if split == "evaluation" else [_ON_VALIDATION]), BASELINE])
    facts = {"split": split, "note": note}
    return evaluate_classifier(
        run, dataset, path, facts=facts, against=against, service=service, progress=progress
    )


def _grade(exam: Exam, outcomes: Outcomes) -> dict[str, Any]:
    base = outcomes.get("base")
    graded = {
        name: exam.grade(outcome, None if name == "base" else base)
        for name, outcome in outcomes.items()
    }
    return {"base": {}, **graded}


def _held_out(dataset: Dataset) -> tuple[str, Path]:
    if dataset.evaluation is not None:
        return "evaluation", dataset.evaluation
    if dataset.validation is not None:
        return "validation", dataset.validation
    raise RunError(
        f"{dataset.folder}: no record was held out to measure on",
        hint="set `evaluation.data` or `data.validation`, such as 0.1",
    )


def _set_exam(
    path: Path, folder: Path | None, recipe: Recipe, progress: Progress, *, images: bool
) -> tuple[Exam, int]:
    """Return the exam, and how many records are too long for it.

    Without `images` none of those records is asked that hold some: a service may take none, and
    all models answer the same questions.
    """
    tokenizer = load_tokenizer(folder) if folder else find_tokenizer(recipe.model)
    cases, too_long = read_cases(path, tokenizer, recipe)
    kind = METHODS[recipe.method].record
    exam = Exam(
        cases,
        choose_cases(cases, recipe.evaluation.limit, recipe.seed, images=images),
        read_general(tokenizer, kind) if recipe.evaluation.forgetting else [],
        tokenizer=tokenizer,
        limit=recipe.evaluation.max_new_tokens,
        seed=recipe.seed,
        beta=recipe.local.beta,
        progress=progress,
    )
    return exam, too_long


def _examine(run: Run, folder: Path | None, exam: Exam, rival: Rival | None) -> Outcomes:
    """Return what base, tuned and rival made of the exam; one model is held at a time."""
    outcomes: Outcomes = {}
    if folder is not None:
        local, adapted = run.recipe.local, is_adapter(run.tuned)
        if not adapted:
            outcomes["base"] = exam.take("base", load_model(folder, dtype=local.dtype))
        model = load_tuned(folder, run.tuned, dtype=local.dtype, quantize=local.quantize)
        if adapted:
            with model.disable_adapter():
                outcomes["base"] = exam.take("base", model)
        outcomes["tuned"] = exam.take("tuned", model)
        del model
    if rival is not None:
        tokenizer = load_tokenizer(rival.folder)
        if any(case.has_images for case in exam.asked):
            check_vision(rival.folder, tokenizer)
        what = rival.tuned or rival.folder
        other = load_tuned(rival.folder, what, dtype=rival.dtype, quantize=rival.quantize)
        outcomes["against"] = exam.take("against", other, tokenizer)
    return outcomes


def _judge(
    run: Run,
    document: dict[str, Any],
    exam: Exam,
    outcomes: Outcomes,
    bench: Bench,
    progress: Progress,
) -> None:
    """Let the judge compare, and write what it found, or why it did not."""
    if "base" not in outcomes:
        raise PlatformError("judge: the service does not serve the base: nothing to compare")
    pair = outcomes["base"], outcomes["tuned"]
    verdicts = {}
    try:
        found = judge(bench, exam.asked, pair, seed=run.recipe.seed, progress=progress)
    except PlatformError as error:
        document["judge"] = {"error": error.message}
        raise
    else:
        document["judge"], verdicts = found.facts, found.verdicts
        if found.base is not None and found.tuned is not None:
            document["base"][NAME], document["tuned"][NAME] = found.base, found.tuned
    finally:
        _write(run, document, exam, outcomes, verdicts)


def _note(split: str, exam: Exam, *, remote: bool) -> str | None:
    """Return what to bear in mind when reading the measures."""
    notes = [] if split == "evaluation" else [_ON_VALIDATION]
    if remote:
        notes.append(NO_LOSSES)
    elif exam.general:
        notes.append(f"general loss: on {plural(len(exam.general), 'question')} of no dataset")
    missing = list_missing(case.reference for case in exam.asked)
    if missing:
        notes.append(f"not measured without the extra `evaluate`: {', '.join(missing)}")
    return "; ".join(notes) or None


def _write(
    run: Run, document: dict[str, Any], exam: Exam, outcomes: Outcomes, verdicts: dict[int, Any]
) -> None:
    with AtomicFile(run.folder / "predictions.jsonl") as file:
        for line in _predictions(exam, outcomes, verdicts):
            file.write(to_json(line) + b"\n")
    write_atomic(run.folder / "evaluation.json", to_json(document, indent=True))


def _predictions(
    exam: Exam, outcomes: Outcomes, verdicts: dict[int, Any]
) -> Iterator[dict[str, Any]]:
    worth = {name: exam.compare(outcome) for name, outcome in outcomes.items()}
    for place, case in enumerate(exam.asked):
        line: dict[str, Any] = {"record": case.number, "reference": case.reference.answer.text}
        for name, outcome in outcomes.items():
            line[name] = {"answer": outcome.answers[place].text, **worth[name][place]}
        if case.number in verdicts:
            line["judge"] = verdicts[case.number]
        yield line
