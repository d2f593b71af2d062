"""Whether a model prefers the better answers. Pure functions, no models, no I/O.

| measure          | asks                                                                  |
|------------------|-----------------------------------------------------------------------|
| ranking_accuracy | is the better answer the more likely one?                             |
| reward_accuracy  | did it gain more on what it was before training than the worse one?   |
| reward_margin    | by how much: `local.beta` times the difference in gain, in nats       |

A pair is compared within itself. Ratings are of different prompts: each good answer is compared
with all that are not good (the share it is above is the area under the ROC curve), by reward, and
for the ranking by log-probability a token.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import NamedTuple


class Side(NamedTuple):
    """What a model makes of an answer: its summed loss (nats), and its tokens; 0 where none is."""

    loss: float
    tokens: float


Sides = Sequence[tuple[Side, Side]]
"""The better and the worse answer of each case; one of them is empty where it is rated."""


def rank(sides: Sides) -> list[float]:
    """Return for each better answer whether, or over which share of the others, it is likelier."""
    if _are_pairs(sides):
        return [_above(worse.loss, better.loss) for better, worse in sides]
    means = [
        [-s.loss / s.tokens for s in column if s.tokens] for column in zip(*sides, strict=True)
    ]
    return _shares(*means)


def reward(before: Sides, after: Sides, beta: float) -> tuple[list[float], list[float]]:
    """Return the accuracy and the margin of each better answer.

    Args:
        before: What the model that training began with makes of the answers.
        after: What the tuned one makes of the same.
        beta: Scale of the reward.
    """
    gains = [
        tuple(beta * (old.loss - new.loss) for old, new in zip(*both, strict=True))
        for both in zip(before, after, strict=True)
    ]
    if _are_pairs(after):
        return [_above(*gain) for gain in gains], [better - worse for better, worse in gains]
    better = [gain[0] for gain, sides in zip(gains, after, strict=True) if sides[0].tokens]
    worse = [gain[1] for gain, sides in zip(gains, after, strict=True) if sides[1].tokens]
    mean = sum(worse) / max(1, len(worse))
    return _shares(better, worse), [gain - mean for gain in better] if worse else []


def _are_pairs(sides: Sides) -> bool:
    return all(better.tokens and worse.tokens for better, worse in sides)


def _above(one: float, other: float) -> float:
    return 0.5 if one == other else float(one > other)


def _shares(better: Sequence[float], worse: Sequence[float]) -> list[float]:
    """Return for each better value the share of the worse ones below it; equal ones count half."""
    if not worse:
        return []
    order = sorted(worse)
    return [
        (bisect.bisect_left(order, value) + bisect.bisect_right(order, value)) / (2 * len(order))
        for value in better
    ]
