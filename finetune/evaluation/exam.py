"""The exam: the same questions for one model after the other, and what their answers score."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from finetune.backends.local.generate import generate
from finetune.backends.local.score import score
from finetune.evaluation import rewards
from finetune.evaluation.answers import Answer, read_answer
from finetune.evaluation.cases import Case, Gap
from finetune.evaluation.intervals import Score, bootstrap
from finetune.evaluation.measures import MEASURES, compare
from finetune.evaluation.rewards import Side
from finetune.progress import Progress, silent
from finetune.tokens import Sample, Tokenizer

_LARGEST_EXPONENT = 700.0  # e to more of a model gone astray is no number any more


class Outcome(NamedTuple):
    """What one model made of the exam.

    Attributes:
        losses: Summed loss (nats) and trained tokens, by weight, of every case; empty for a model
            that counts in other tokens.
        worse: The same of the answer that each case should not be given; zeros where it has none.
        general: The same of every general question.
        answers: The answer to each case that was asked.
    """

    losses: list[Side]
    worse: list[Side]
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
        beta: Scale of rewards.
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
        beta: float = 1.0,
        progress: Progress = silent,
    ) -> None:
        self.cases = cases
        self.asked = asked
        self.general = general
        self._tokenizer = tokenizer
        self._limit = limit
        self._seed = seed
        self._beta = beta
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
        losses: list[Side] = []
        worse: list[Side] = []
        general: list[tuple[float, float]] = []
        if tokenizer.sha256 == self._tokenizer.sha256:
            answers = [answer for case in self.cases for answer in (case.samples, case.worse)]
            samples = [sample for answer in answers for sample in answer]
            found = iter(score(model, [*samples, *self.general], progress=progress))
            sides = [_add_up(itertools.islice(found, len(answer))) for answer in answers]
            losses, worse, general = sides[::2], sides[1::2], list(found)
        asked = (case.question for case in self.asked)
        prompts = [question.encode(tokenizer) for question in asked if question is not None]
        generated = generate(
            model,
            [prompt.ids for prompt in prompts],
            images=[prompt.images for prompt in prompts],
            eos_id=tokenizer.eos_id,
            pad_id=tokenizer.pad_id,
            max_new_tokens=self._limit,
            progress=progress,
        )
        said = [
            _read(ids, case, tokenizer) for ids, case in zip(generated, self.asked, strict=True)
        ]
        return Outcome(losses, worse, general, said)

    def grade(self, outcome: Outcome, base: Outcome | None = None) -> dict[str, Score]:
        """Return every measure that applies to some record, the losses first.

        Args:
            outcome: What a model made of it.
            base: What the model made of it that training began with, where it is another.
        """
        scores: dict[str, Score] = {}
        if any(count for _, count in outcome.losses):
            scores["loss"] = self._mean(outcome.losses)
            if scores["loss"]["high"] < _LARGEST_EXPONENT:
                scores["perplexity"] = _exponential(scores["loss"])
        if outcome.general:
            scores["general_loss"] = self._mean(outcome.general)
        compared = self.compare(outcome)
        values = self._prefer(outcome, base) | {
            name: [one[name] for one in compared if name in one] for name in MEASURES
        }
        for name, found in values.items():
            if found:
                scores[name] = self._mean([(value, 1) for value in found])
        return scores

    def _prefer(self, outcome: Outcome, base: Outcome | None) -> dict[str, list[float]]:
        """Return what is measured of answers that are compared."""
        if not any(side.tokens for side in outcome.worse):
            return {}
        after = list(zip(outcome.losses, outcome.worse, strict=True))
        found = {"ranking_accuracy": rewards.rank(after)}
        if base is not None:
            before = list(zip(base.losses, base.worse, strict=True))
            names = ("reward_accuracy", "reward_margin")
            found |= zip(names, rewards.reward(before, after, self._beta), strict=True)
        return found

    def compare(self, outcome: Outcome) -> list[dict[str, float]]:
        """Return what each answer is worth."""
        pairs = zip(outcome.answers, self.asked, strict=True)
        return [compare(answer, case.reference) for answer, case in pairs]

    def _mean(self, pairs: Sequence[tuple[float, float]]) -> Score:
        totals, counts = zip(*pairs, strict=True)
        return bootstrap(totals, counts, seed=self._seed)


def _add_up(parts: Iterable[tuple[float, float]]) -> Side:
    losses, counts = zip(*parts, strict=True) if (parts := list(parts)) else ((), ())
    return Side(sum(losses), sum(counts))


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
