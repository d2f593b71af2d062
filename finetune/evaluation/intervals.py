"""Bootstrap intervals: how much a score would move with other records of the same kind."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import TypedDict

RESAMPLES = 1000


class Score(TypedDict):
    """A measure over records with its 95 % interval."""

    value: float
    low: float
    high: float


def bootstrap(totals: Sequence[float], counts: Sequence[float], *, seed: int = 0) -> Score:
    """Return Σ totals / Σ counts with its 95 % percentile bootstrap interval.

    Records are drawn with replacement, 1,000 times. The draws depend on `seed` and the number of
    records alone, so that base and tuned model are judged on the same draws.

    Args:
        totals: One figure a record, such as its summed loss or 0 and 1.
        counts: What each is a total of, such as its trained tokens; some of it above 0.
        seed: Of the draws.

    Example:
        >>> bootstrap([1, 0, 1, 1], [1, 1, 1, 1])
        {'value': 0.75, 'low': 0.25, 'high': 1.0}
    """
    sums = (
        (sum(totals[index] for index in drawn), sum(counts[index] for index in drawn))
        for drawn in resample(len(totals), seed=seed)
    )
    means = [total / weight for total, weight in sums if weight]
    return enclose(sum(totals) / sum(counts), means)


def resample(records: int, *, seed: int = 0) -> Iterator[list[int]]:
    """Yield 1,000 draws of as many records as there are, with replacement, as their indices."""
    draw = random.Random(seed)  # noqa: S311 (statistics)
    for _ in range(RESAMPLES):
        yield draw.choices(range(records), k=records)


def enclose(value: float, drawn: Iterable[float]) -> Score:
    """Return a value with the middle 95 % of what it was on the draws."""
    ordered = sorted(drawn)
    tail = len(ordered) * 25 // 1000
    return {"value": value, "low": ordered[tail], "high": ordered[-1 - tail]}
