"""Base beside tuned: the loss of held-out records, and what generated answers are worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from finetune.backends.local.generate import generate
from finetune.backends.local.model import load_adapter, load_model, resolve_model
from finetune.backends.local.score import score
from finetune.corpus import Dataset
from finetune.errors import RunError
from finetune.evaluation.cases import Case, choose_cases, read_cases
from finetune.evaluation.intervals import Score, bootstrap
from finetune.evaluation.measures import MEASURES, answer_text, compare
from finetune.files import AtomicFile, to_json, write_atomic
from finetune.methods import METHODS
from finetune.progress import Progress, silent
from finetune.recipe import Recipe
from finetune.runs import Run
from finetune.tokens import Tokenizer, load_tokenizer

_ON_VALIDATION = "measured on rows that also chose the checkpoint"


class _Outcome(NamedTuple):
    """What one model made of the cases.

    Attributes:
        losses: Summed loss (nats) and trained tokens, by weight, of every case.
        answers: The answer to each case that was asked.
    """

    losses: list[tuple[float, float]]
    answers: list[str]


def evaluate(run: Run, *, progress: Progress = silent) -> dict[str, Any]:
    """Measure a run's model beside its base and write `evaluation.json`.

    `predictions.jsonl` beside it holds every answer with its reference; both stay in the run's
    folder.

    Args:
        run: A run that has an adapter.
        progress: Told about the work.

    Returns:
        `{"records", "split", "note", "too_long", "base": {MEASURE: {"value", "low", "high"}},
        "tuned": {…}}`: `records` were asked for an answer (all, where none is asked for one); the
        loss (nats a trained token) is measured on every record; intervals are 95 % bootstrap ones.

    Raises:
        RunError: The run has no adapter yet, or nothing was held out.
    """
    if not run.adapter.is_dir():
        raise RunError(f"{run.folder}: has no adapter to evaluate", hint="`finetune run` makes it")
    recipe = run.recipe
    split, path = _held_out(Dataset.load(run.dataset))
    folder = resolve_model(recipe.model, progress=progress)
    tokenizer = load_tokenizer(folder)
    held_out = read_cases(path, tokenizer, recipe)
    exam = _Exam(tokenizer, held_out.cases, recipe, progress)
    model = load_model(folder, dtype=recipe.local.dtype, quantize=recipe.local.quantize)
    model = load_adapter(model, run.adapter)
    with model.disable_adapter():
        base = exam.take("base", model)
    tuned = exam.take("tuned", model)
    document = {
        "records": len(exam.asked) or len(held_out.cases),
        "split": split,
        "note": None if split == "evaluation" else _ON_VALIDATION,
        "too_long": held_out.too_long,
        "base": _score(base, exam.asked, recipe.seed),
        "tuned": _score(tuned, exam.asked, recipe.seed),
    }
    with AtomicFile(run.folder / "predictions.jsonl") as file:
        for line in _predictions(exam.asked, base, tuned):
            file.write(to_json(line) + b"\n")
    write_atomic(run.folder / "evaluation.json", to_json(document, indent=True))
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


class _Exam:
    """The cases, for one model after the other."""

    def __init__(
        self, tokenizer: Tokenizer, cases: Sequence[Case], recipe: Recipe, progress: Progress
    ) -> None:
        self._tokenizer = tokenizer
        self._cases = cases
        self._limit = recipe.evaluation.max_new_tokens
        self._progress = progress
        self._is_document = METHODS[recipe.method].record == "text"
        self.asked = choose_cases(cases, recipe.evaluation.limit, recipe.seed)

    def take(self, name: str, model: Any) -> _Outcome:
        """Return what a model makes of it."""

        def progress(stage: str, done: int, total: int | None = None, **facts: float | str) -> None:
            self._progress(f"{stage} {name}", done, total, **facts)

        samples = [sample for case in self._cases for sample in case.samples]
        scored = iter(score(model, samples, progress=progress))
        losses = []
        for case in self._cases:
            parts = [next(scored) for _ in case.samples]
            losses.append((sum(loss for loss, _ in parts), sum(weight for _, weight in parts)))
        generated = generate(
            model,
            [case.prompt for case in self.asked if case.prompt is not None],
            eos_id=self._tokenizer.eos_id,
            pad_id=self._tokenizer.pad_id,
            max_new_tokens=self._limit,
            progress=progress,
        )
        return _Outcome(losses, [self._read(ids) for ids in generated])

    def _read(self, ids: Sequence[int]) -> str:
        """Return what was generated as text: code is not looked through for calls."""
        if self._is_document:
            return self._tokenizer.decode(ids)
        return answer_text(self._tokenizer.parse(ids))


def _score(outcome: _Outcome, asked: Sequence[Case], seed: int) -> dict[str, Score]:
    """Return every measure that applies to some record, the loss first."""
    totals, counts = zip(*outcome.losses, strict=True)
    scores = {"loss": bootstrap(totals, counts, seed=seed)}
    values = [
        compare(answer, case.reference) for answer, case in zip(outcome.answers, asked, strict=True)
    ]
    for name in MEASURES:
        found = [one[name] for one in values if name in one]
        if found:
            scores[name] = bootstrap(found, [1] * len(found), seed=seed)
    return scores


def _predictions(
    asked: Sequence[Case], base: _Outcome, tuned: _Outcome
) -> Iterator[dict[str, Any]]:
    for case, before, after in zip(asked, base.answers, tuned.answers, strict=True):
        yield {
            "record": case.number,
            "reference": case.reference,
            "base": {"answer": before, **compare(before, case.reference)},
            "tuned": {"answer": after, **compare(after, case.reference)},
        }
