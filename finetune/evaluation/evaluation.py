"""Base beside tuned: the loss of held-out records, and what generated answers are worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from finetune.backends.local.model import load_adapter, load_model, resolve_model
from finetune.corpus import Dataset
from finetune.errors import PlatformError, RunError
from finetune.evaluation.cases import Case, choose_cases, read_cases
from finetune.evaluation.exam import Exam, Outcome
from finetune.evaluation.general import read_general
from finetune.evaluation.judge import NAME, Bench, judge, open_judge
from finetune.evaluation.measures import list_missing
from finetune.evaluation.rival import Rival, find_rival
from finetune.files import AtomicFile, to_json, write_atomic
from finetune.methods import METHODS
from finetune.progress import Progress, silent
from finetune.recipe import Recipe
from finetune.runs import Run
from finetune.text import plural
from finetune.tokens import Tokenizer, load_tokenizer

_ON_VALIDATION = "measured on rows that also chose the checkpoint"

Outcomes = dict[str, Outcome]


def evaluate(
    run: Run,
    *,
    against: str | None = None,
    judge_key: str | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure a run's model beside its base and write `evaluation.json`.

    `predictions.jsonl` beside it holds every answer with its reference; both stay in the run's
    folder.

    Args:
        run: A run that has an adapter.
        against: Another run, adapter or model to measure beside them.
        judge_key: The key of the recipe's judge, where it is not Mistral's own.
        progress: Told about the work.

    Returns:
        `{"records", "split", "note", "too_long", "base": {MEASURE: {"value", "low", "high"}},
        "tuned": {…}}`, with `against` where one was named: `records` were asked for an answer
        (all, where none is asked for one); losses (nats a trained token) are measured on every
        record; intervals are 95 % bootstrap ones.

    Raises:
        RunError: The run has no adapter yet, or nothing was held out.
        UsageError: `against` means nothing.
        RecipeError: The recipe's judge may not see these data.
        PlatformError: The judge does not answer; all other measures are written.
    """
    if not run.adapter.is_dir():
        raise RunError(f"{run.folder}: has no adapter to evaluate", hint="`finetune run` makes it")
    recipe, dataset = run.recipe, Dataset.load(run.dataset)
    split, path = _held_out(dataset)
    bench = open_judge(recipe, dataset.manifest, key=judge_key)
    rival = find_rival(against, recipe, run.folder.parent, progress=progress) if against else None
    folder = resolve_model(recipe.model, progress=progress)
    tokenizer = load_tokenizer(folder)
    held_out = read_cases(path, tokenizer, recipe)
    exam = _set_exam(held_out.cases, tokenizer, recipe, progress)
    outcomes = _examine(run, folder, exam, rival)
    missing = list_missing(case.reference for case in exam.asked)
    document: dict[str, Any] = {
        "records": len(exam.asked) or len(held_out.cases),
        "split": split,
        "note": _note(split, len(exam.general), missing),
        "too_long": held_out.too_long,
        **({"against_name": rival.name} if rival else {}),
        **{
            name: exam.grade(outcome, None if name == "base" else outcomes["base"])
            for name, outcome in outcomes.items()
        },
    }
    _write(run, document, exam, outcomes, {})
    if bench is not None:
        _judge(run, document, exam, outcomes, bench, progress)
    return document


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
    cases: Sequence[Case], tokenizer: Tokenizer, recipe: Recipe, progress: Progress
) -> Exam:
    kind = METHODS[recipe.method].record
    return Exam(
        cases,
        choose_cases(cases, recipe.evaluation.limit, recipe.seed),
        read_general(tokenizer, kind) if recipe.evaluation.forgetting else [],
        tokenizer=tokenizer,
        limit=recipe.evaluation.max_new_tokens,
        seed=recipe.seed,
        beta=recipe.local.beta,
        progress=progress,
    )


def _examine(run: Run, folder: Path, exam: Exam, rival: Rival | None) -> Outcomes:
    """Return what base, tuned and rival made of the exam; one model is held at a time."""
    local = run.recipe.local
    model = load_model(folder, dtype=local.dtype, quantize=local.quantize)
    model = load_adapter(model, run.adapter)
    outcomes: Outcomes = {}
    with model.disable_adapter():
        outcomes["base"] = exam.take("base", model)
    outcomes["tuned"] = exam.take("tuned", model)
    if rival is not None:
        del model
        tokenizer = load_tokenizer(rival.folder)
        other = load_model(rival.folder, dtype=rival.dtype, quantize=rival.quantize)
        if rival.adapter is not None:
            other = load_adapter(other, rival.adapter)
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


def _note(split: str, general: int, missing: list[str]) -> str | None:
    """Return what to bear in mind when reading the measures."""
    notes = [] if split == "evaluation" else [_ON_VALIDATION]
    if general:
        notes.append(f"general loss: on {plural(general, 'question')} of no dataset")
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
