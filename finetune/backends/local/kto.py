"""Kahneman-Tversky optimization: answers that were rated, each by itself.

A good answer is to gain on what it was before training, one that is not good to lose, both seen
from how far the model has moved at large. That is estimated, as TRL does, by what answers gain
that belong to other prompts, here over the whole optimizer step, so that it does not depend on
micro-batches (Ethayarajh et al. 2024, equations 7 and 8; the `kto` loss of TRL).
"""

from __future__ import annotations

import random
from array import array
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from finetune import files
from finetune.backends.local.rewards import (
    Answer,
    collate_answers,
    measure_log_probs,
    read_answers,
    sum_log_probs,
)
from finetune.backends.local.samples import Packed, fit_records
from finetune.backends.local.sft import TASK as SFT
from finetune.backends.local.task import Task
from finetune.backends.local.training import tune
from finetune.errors import DataError
from finetune.progress import Progress, silent
from finetune.records import RatingRecord, decode

if TYPE_CHECKING:
    import torch

    from finetune.corpus import Dataset
    from finetune.recipe import Recipe
    from finetune.runs import Run
    from finetune.tokens import Tokenizer


class Rated(NamedTuple):
    """An answer with its rating.

    Attributes:
        answer: It, after its prompt.
        good: Its rating.
        other: Another record's answer after the same prompt.
        weight: Of its loss: good and bad ones weigh the same together.
        reference: Log-probability (nats) of the answer and of the other before training.
    """

    answer: Answer
    good: bool
    other: Answer | None = None
    weight: float = 1.0
    reference: tuple[float, float] = (0.0, 0.0)

    @property
    def tokens(self) -> int:
        """Tokens of the answer and its prompt; the other is only looked at."""
        return self.answer.tokens

    @property
    def items(self) -> float:
        """A rating is one item."""
        return 1.0


def train(run: Run, recipe: Recipe, dataset: Dataset, *, progress: Progress = silent) -> None:
    """Train on rated answers; see `training.tune`.

    Raises:
        DataError: All ratings are the same.
    """
    check_ratings(dataset)
    tune(make_task(recipe.local.beta), run, recipe, dataset, progress=progress)


def check_ratings(dataset: Dataset) -> None:
    """Refuse training data whose ratings are all the same: nothing can be learned from them.

    Raises:
        DataError: They are.
    """
    found = set()
    for source in dataset.train:
        with files.open_bytes(source.path) as file:
            for line in files.read_lines(file):
                record = decode("rating", line.data or b"")
                found.add(isinstance(record, RatingRecord) and record.label)
                if len(found) > 1:
                    return
    rating = "good" if found == {True} else "not good"
    raise DataError(
        f"all answers are rated {rating}",
        file=str(dataset.folder),
        rule="one-rating",
        hint="`kto` needs answers of both kinds; good ones alone train `method: sft` as chats",
    )


def make_task(beta: float) -> Task:
    """Return the method; `beta` is how strongly it holds to the model as it was."""
    return Task(
        read=read_ratings,
        collate=_collate,
        loss=partial(_loss, beta=beta),
        prepare=SFT.prepare,
        refer=refer,
        survey=survey,
    )


def read_ratings(path: Path, recipe: Recipe, tokenizer: Tokenizer, epoch: int = 0) -> list[Rated]:
    """Return the ratings of a file of records, no sample above `training.seq_len` tokens.

    Raises:
        DataError: A record can't be encoded, or is too long and the recipe says `error`.
    """
    return [
        Rated(read_answers(samples)[0], record.label)
        for record, samples in fit_records(path, recipe, tokenizer, epoch)
        if samples and isinstance(record, RatingRecord)
    ]


def refer(model: Any, items: Sequence[Rated], *, progress: Progress = silent) -> list[Rated]:
    """Return the ratings with an answer of another each, their weights, and the reference."""
    weights = _balance(items)
    progress("balance", 1, 1, good_weight=weights[True], bad_weight=weights[False])
    others = _mismatch(items)
    answers = [item.answer for item in items]
    found = measure_log_probs(model, [*answers, *others], progress=progress)
    both = zip(found[: len(items)], found[len(items) :], strict=True)
    return [
        item._replace(other=other, weight=weights[item.good], reference=reference)
        for item, other, reference in zip(items, others, both, strict=True)
    ]


def survey(model: Any, items: Sequence[Rated]) -> dict[str, Any]:
    """Return how far the model has moved, by the items of a step, and how many are good."""
    import torch

    others = [item.other for item in items if item.other is not None]
    now = measure_log_probs(model, others)
    before = [item.reference[1] for item in items]
    moved = sum(new - old for new, old in zip(now, before, strict=True)) / len(items)
    good = sum(item.good for item in items)
    return {"moved": torch.tensor(max(0.0, moved)), "ratings": (len(items) - good, good)}


def _balance(items: Sequence[Rated]) -> dict[bool, float]:
    counts = Counter(item.good for item in items)
    most = max(counts.values(), default=0)
    return {good: most / counts[good] if counts[good] else 1.0 for good in (True, False)}


def _mismatch(items: Sequence[Rated]) -> list[Answer]:
    """Return each prompt with the answer of another: of the one before it in a drawn circle."""
    order = list(range(len(items)))
    random.Random(0).shuffle(order)  # noqa: S311 (a circle, not a secret)
    before = dict(zip(order, [*order[-1:], *order[:-1]], strict=True))
    return [_exchange(item.answer, items[before[n]].answer) for n, item in enumerate(items)]


def _exchange(prompt: Answer, answer: Answer) -> Answer:
    """Return the prompt of one answer with the last message of another."""
    asked, said = prompt.samples[0], answer.samples[-1]
    start = len(said.rows) - 1
    while start and said.rows[start - 1] == said.rows[start] - 1:
        start -= 1
    before = asked.input_ids[: asked.rows[0] + 1]
    ids = before + said.targets[start:]
    rows = array("i", range(len(before) - 1, len(ids) - 1))
    return Answer((Packed(ids, rows, said.targets[start:], None),))


def _collate(items: Sequence[Rated]) -> dict[str, Any]:
    import torch

    return collate_answers([item.answer for item in items]) | {
        "reference": torch.tensor([item.reference[0] for item in items], dtype=torch.float32),
        "good": torch.tensor([item.good for item in items]),
        "item_weights": torch.tensor([item.weight for item in items], dtype=torch.float32),
    }


def _loss(
    model: Any, batch: dict[str, Any], *, beta: float
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    import torch

    from finetune.backends.local.loss import add_router_loss

    good, moved = batch["good"], batch["moved"].to(batch["reference"].device)
    found, router = sum_log_probs(model, batch)
    gains = found - batch["reference"]
    ahead = torch.where(good, gains - moved, moved - gains)
    losses = batch["item_weights"] * torch.sigmoid(-beta * ahead)
    figures = {"kl": moved * len(good)}
    bad_count, good_count = batch["ratings"]
    for name, chosen, count in (
        ("reward_chosen", good, good_count),
        ("reward_rejected", ~good, bad_count),
    ):
        if count:  # of these alone, though figures are divided by all
            share = (bad_count + good_count) / count
            figures[name] = beta * gains[chosen].sum() * share
    return add_router_loss(model, losses.sum(), figures, router, len(good))
