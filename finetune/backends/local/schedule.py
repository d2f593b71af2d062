"""Which samples are trained when: pure, seeded, and the same in `plan` as in the run.

Samples are shuffled each epoch and poured into optimizer steps of at most `batch_tokens`; a step
is split into balanced micro-batches. Nothing here needs the model, so the counts are exact
before anything is downloaded.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from finetune.errors import RecipeError
from finetune.recipe.tree import Recipe

DEFAULT_EPOCHS = 3.0
_MOST_PASSES = 50
# What a schedule may hold, far above what anybody trains: it is planned as a whole, in memory.
_MOST_STEPS = 1_000_000
_MOST_SAMPLES = 100_000_000


T = TypeVar("T")


class Step(NamedTuple):
    """One optimizer step.

    Attributes:
        micro_batches: Indices of the samples that are computed at once; one or a few for each rank.
        tokens: Tokens of all its samples.
        epoch: Passes over the data when the step is done.
    """

    micro_batches: list[list[int]]
    tokens: int
    epoch: float


def count_passes(recipe: Recipe, tokens: int) -> int:
    """Return how often a document is cut anew, given the tokens of one pass: once an epoch.

    At most 50 times, as all of it is held in memory; then the passes begin again. Without a middle
    to fill in, all passes are the same: 1.
    """
    if not recipe.training.fim_ratio:
        return 1
    epochs = recipe.training.epochs or DEFAULT_EPOCHS
    if recipe.training.steps is not None:
        epochs = recipe.training.steps * recipe.local.batch_tokens / tokens
    return math.ceil(min(_MOST_PASSES, epochs))


def plan_training(
    recipe: Recipe,
    lengths: Sequence[int],
    weights: Sequence[float] | None = None,
    passes: Sequence[range] | None = None,
    *,
    micro_batch_tokens: int | None = None,
) -> list[Step]:
    """Return the optimizer steps of a recipe, for samples of these lengths (see `plan_steps`)."""
    launch = recipe.local.launch
    return plan_steps(
        lengths,
        weights,
        passes,
        epochs=recipe.training.epochs,
        steps=recipe.training.steps,
        batch_tokens=recipe.local.batch_tokens,
        micro_batch_tokens=recipe.local.micro_batch_tokens or micro_batch_tokens,
        seed=recipe.seed,
        ranks=launch.processes * launch.nodes,
    )


def plan_steps(
    lengths: Sequence[int],
    weights: Sequence[float] | None = None,
    passes: Sequence[range] | None = None,
    *,
    epochs: float | None = None,
    steps: int | None = None,
    batch_tokens: int,
    micro_batch_tokens: int | None = None,
    seed: int = 0,
    ranks: int = 1,
) -> list[Step]:
    """Return the optimizer steps of a run.

    Args:
        lengths: Tokens of each sample.
        weights: How often each sample is seen in an epoch, 1 where absent. With 0.5 each is seen
            every other epoch, half of them in each.
        passes: Which samples make up the first epoch, the second, …; then they begin again. All
            samples in every epoch where absent.
        epochs: Passes over the data, fractions too; 3 where `steps` is absent as well.
        steps: Optimizer steps, instead of `epochs`; the data are repeated as often as it takes.
        batch_tokens: Most tokens of a step; a longer sample is a step of its own.
        micro_batch_tokens: Most tokens computed at once (a longer sample is computed alone);
            the whole step where absent.
        seed: Seed of the order.
        ranks: Processes that share the micro-batches of each step; which samples a step has does
            not depend on it.

    Raises:
        ValueError: There is no sample, or both `epochs` and `steps` are given.
        RecipeError: They are more steps or samples than can be planned, or none at all.
    """
    if steps is None:
        epochs = DEFAULT_EPOCHS if epochs is None else epochs
    _require_bounds(lengths, weights, len(passes or "1"), epochs, steps, batch_tokens)
    planned: list[Step] = []
    batch: list[int] = []
    tokens, epoch_done = 0, 0.0

    def close() -> None:
        groups = split(batch, lengths, micro_batch_tokens or batch_tokens, ranks)
        planned.append(Step(groups, tokens, epoch_done))

    for index, epoch_after in _stream(passes or [range(len(lengths))], weights, epochs, seed):
        if batch and tokens + lengths[index] > batch_tokens:
            close()
            if len(planned) == steps:
                return planned
            batch, tokens = [], 0
        batch.append(index)
        tokens += lengths[index]
        epoch_done = epoch_after
    if not batch:
        raise RecipeError(
            "data.train.weight: so small that no record is seen in any epoch",
            hint="weights are relative to 1: raise them all",
        )
    close()
    return planned


def _require_bounds(
    lengths: Sequence[int],
    weights: Sequence[float] | None,
    passes: int,
    epochs: float | None,
    steps: int | None,
    batch_tokens: int,
) -> None:
    """Refuse what cannot be planned, or would be for hours and until memory is full."""
    if not lengths or (weights is not None and not any(weights)):
        raise ValueError("no samples to train on")
    if epochs is not None and steps is not None:
        raise ValueError("either epochs or steps, not both")
    own = weights or itertools.repeat(1.0, len(lengths))
    full = sum(min(length, batch_tokens) * w for length, w in zip(lengths, own, strict=True))
    full /= passes * batch_tokens  # steps of an epoch, at least
    samples = max(sum(weights or ()), len(lengths)) / passes
    name = "epochs" if epochs is not None else "steps"
    epochs = (steps or 0) / full if epochs is None else epochs
    wanted = {"steps": steps or epochs * full, "samples": max(1.0, epochs) * samples}
    for what, most in (("steps", _MOST_STEPS), ("samples", _MOST_SAMPLES)):
        if wanted[what] > most:
            raise RecipeError(
                f"training.{name}: makes about {wanted[what]:.3g} {what}, at most {most:,} can be"
                " planned",
                hint="`training.steps`, `training.epochs`, `local.batch_tokens` and the sources'"
                " `weight` decide it",
            )


def _stream(
    passes: Sequence[range], weights: Sequence[float] | None, epochs: float | None, seed: int
) -> Iterator[tuple[int, float]]:
    """Yield sample indices in training order, each with the passes done once it is trained."""
    epoch = 0
    while epochs is None or epoch < epochs:
        members = passes[epoch % len(passes)]
        if weights is None:
            order = list(members)
        else:
            own = [weights[index] for index in members]
            order = [
                index
                for index, weight, phase in zip(members, own, _phases(own, seed), strict=True)
                for _ in range(
                    math.floor((epoch + 1) * weight + phase) - math.floor(epoch * weight + phase)
                )
            ]
        random.Random(f"{seed}/{epoch}").shuffle(order)  # noqa: S311 (an order, not a secret)
        kept = len(order)
        if epochs is not None and epochs < epoch + 1:
            kept = max(round((epochs - epoch) * len(order)), 0 if epoch else 1)
        for position, index in enumerate(order[:kept], 1):
            yield index, epoch + position / len(order)
        epoch += 1


def _phases(weights: Sequence[float], seed: int) -> list[float]:
    """Return when in its cycle each sample starts: evenly spread among those of one weight."""
    groups: dict[float, list[int]] = {}
    for index, weight in enumerate(weights):
        groups.setdefault(weight, []).append(index)
    phases = [0.0] * len(weights)
    for weight, members in groups.items():
        random.Random(f"{seed}/{weight}").shuffle(members)  # noqa: S311 (an order, not a secret)
        for rank, index in enumerate(members):
            phases[index] = rank / len(members)
    return phases


def share_step(groups: Sequence[list[T]], rank: int, ranks: int) -> list[tuple[list[T], bool]]:
    """Return the micro-batches that one rank computes in a step, and whether each counts.

    All ranks compute equally many, as gradients and shards of weights are exchanged in each. Where
    a step has too few, one is computed a second time and does not count.

    Example:
        >>> share_step([[4], [7], [1]], rank=1, ranks=2)
        [([7], True), ([4], False)]
    """
    last = math.ceil(len(groups) / ranks) * ranks
    return [(groups[i % len(groups)], i < len(groups)) for i in range(rank, last, ranks)]


def split_finer(step: Step, lengths: Sequence[int], limit: int) -> list[list[int]]:
    """Return a step's micro-batches, split again where one is above the limit.

    A step that was planned with this limit has the same ones.
    """
    sizes = [sum(lengths[index] for index in group) for group in step.micro_batches]
    if all(n <= limit or len(g) == 1 for n, g in zip(sizes, step.micro_batches, strict=True)):
        return step.micro_batches
    return split(itertools.chain(*step.micro_batches), lengths, limit)


def split(
    indices: Iterable[int], lengths: Sequence[int], limit: int, ranks: int = 1
) -> list[list[int]]:
    """Split a step's samples into as few micro-batches as fit, filled evenly.

    Args:
        indices: The samples, in any order: it changes nothing.
        lengths: Tokens of each sample.
        limit: Most tokens of a micro-batch; a longer sample is one by itself.
        ranks: Their number is a multiple of it where there are samples enough.
    """
    by_length = sorted(indices, key=lambda index: (-lengths[index], index))
    total = sum(lengths[index] for index in by_length)
    count = max(1, math.ceil(total / limit / ranks)) * ranks
    while True:
        groups: list[list[int]] = [[] for _ in range(min(count, len(by_length)))]
        sizes = [0] * len(groups)
        for index in by_length:
            smallest = sizes.index(min(sizes))
            groups[smallest].append(index)
            sizes[smallest] += lengths[index]
        if all(size <= limit or len(g) == 1 for size, g in zip(sizes, groups, strict=True)):
            return [sorted(group) for group in groups]
        count += ranks
