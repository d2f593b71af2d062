"""The exam: the same questions for one model after the other, and what their answers score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from finetune.backends.local.generate import generate
from finetune.backends.local.score import score
from finetune.evaluation.answers import Answer, read_answer
from finetune.evaluation.cases import Case, Gap
from finetune.evaluation.intervals import Score, bootstrap
from finetune.evaluation.measures import MEASURES, compare
from finetune.progress import Progress, silent
from finetune.tokens import Sample, Tokenizer


class Outcome(NamedTuple):
    """What one model made of the exam.

    Attributes:
        losses: Summed loss (nats) and trained tokens, by weight, of every case; empty for a model
            that counts in other tokens.
        general: The same of every general question.
        answers: The answer to each case that was asked.
    """

    losses: list[tuple[float, float]]
    general: list[tuple[float, float]]
    answers: list[Answer]


class Exam:
    """The cases, for one model after the other.

    Args:
        cases: The loss is measured on all of them.
        asked: Those that an answer is generated for.
        general: Questions of no dataset, whose loss tells what was forgotten.
        tokenizer: What the samples were made with.
        limit: The longest answer, in tokens.
        seed: Of the intervals.
        progress: Told about the work.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        asked: Sequence[Case],
        general: Sequence[Sample],
        *,
        tokenizer: Tokenizer,
        limit: int,
        seed: int,
        progress: Progress = silent,
    ) -> None:
        self.cases = cases
        self.asked = asked
        self.general = general
        self._tokenizer = tokenizer
        self._limit = limit
        self._seed = seed
        self._progress = progress

    def take(self, name: str, model: Any, tokenizer: Tokenizer | None = None) -> Outcome:
        """Return what a model makes of it.

        Losses are taken of models alone that split the same text into the same tokens: a loss a
        token says nothing beside one of other tokens.

        Args:
            name: For the progress.
            model: A model with its adapter on or off.
            tokenizer: The model's own, where it is not the exam's.

        Raises:
            DataError: The model's own tokenizer cannot encode a question.
        """

        def progress(stage: str, done: int, total: int | None = None, **facts: float | str) -> None:
            self._progress(f"{stage} {name}", done, total, **facts)

        tokenizer = tokenizer or self._tokenizer
        losses: list[tuple[float, float]] = []
        general: list[tuple[float, float]] = []
        if tokenizer.sha256 == self._tokenizer.sha256:
            samples = [sample for case in self.cases for sample in case.samples]
            scored = score(model, [*samples, *self.general], progress=progress)
            found = iter(scored)
            for case in self.cases:
                parts = [next(found) for _ in case.samples]
                losses.append((sum(loss for loss, _ in parts), sum(count for _, count in parts)))
            general = list(found)
        generated = generate(
            model,
            [case.question.encode(tokenizer) for case in self.asked if case.question is not None],
            eos_id=tokenizer.eos_id,
            pad_id=tokenizer.pad_id,
            max_new_tokens=self._limit,
            progress=progress,
        )
        answers = [
            _read(ids, case, tokenizer) for ids, case in zip(generated, self.asked, strict=True)
        ]
        return Outcome(losses, general, answers)

    def grade(self, outcome: Outcome) -> dict[str, Score]:
        """Return every measure that applies to some record, the losses first."""
        scores: dict[str, Score] = {}
        if outcome.losses:
            scores["loss"] = self._mean(outcome.losses)
            scores["perplexity"] = _exponential(scores["loss"])
        if outcome.general:
            scores["general_loss"] = self._mean(outcome.general)
        values = self.compare(outcome)
        for name in MEASURES:
            found = [one[name] for one in values if name in one]
            if found:
                scores[name] = self._mean([(value, 1) for value in found])
        return scores

    def compare(self, outcome: Outcome) -> list[dict[str, float]]:
        """Return what each answer is worth."""
        pairs = zip(outcome.answers, self.asked, strict=True)
        return [compare(answer, case.reference) for answer, case in pairs]

    def _mean(self, pairs: Sequence[tuple[float, float]]) -> Score:
        totals, counts = zip(*pairs, strict=True)
        return bootstrap(totals, counts, seed=self._seed)


def _read(ids: Sequence[int], case: Case, tokenizer: Tokenizer) -> Answer:
    """Return what was generated: code is not looked through for calls."""
    if isinstance(case.question, Gap):
        return Answer(tokenizer.decode(ids))
    return read_answer(tokenizer.parse(ids))


def _exponential(loss: Score) -> Score:
    """Return the perplexity: e to the loss, and its interval, as e to the x only ever rises."""
    return {
        "value": math.exp(loss["value"]),
        "low": math.exp(loss["low"]),
        "high": math.exp(loss["high"]),
    }
