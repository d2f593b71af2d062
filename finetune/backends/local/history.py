"""What the steps so far say about the next one: spikes, and which checkpoint is the best.

All of it is read from the trainer's log, which every checkpoint holds: a run that goes on decides
as the unbroken one would have.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

WINDOW = 100  # steps whose median gradient norm a step is held against
_FEWEST = 20  # steps before the median says anything
SKIPPED = "skipped"

History = Sequence[Mapping[str, Any]]


def is_spike(history: History, norm: float, *, factor: float | None, clip: float) -> bool:
    """Tell whether a step's gradient is so large that it must not be applied.

    A fixed norm would call every step of one model a spike and none of another, and a multiple of
    the median alone would find them in the small gradients at the end of a run: it has to be above
    both.

    Args:
        history: A line for each step so far, with `grad_norm`.
        norm: The norm before clipping.
        factor: How many times the median of the last steps, and how many times `clip`, is a
            spike; None where nothing is.
        clip: The norm that gradients are clipped to.
    """
    if factor is None or norm <= factor * clip:
        return False
    norms = [line["grad_norm"] for line in history if SKIPPED not in line][-WINDOW:]
    return len(norms) >= _FEWEST and norm > factor * statistics.median(norms)


def count_skipped(history: History) -> int:
    """Return how many of the last steps were skipped in a row."""
    count = 0
    for line in reversed(history):
        if SKIPPED not in line:
            break
        count += 1
    return count


def rank_steps(history: History, figure: str) -> list[int]:
    """Return the validated steps, the best first, the earlier of equals first.

    Args:
        history: A line for each step so far.
        figure: What to rank by; one with `loss` in its name is better when lower, all else when
            higher.
    """
    sign = 1 if "loss" in figure else -1
    found = [(sign * line[figure], line["step"]) for line in history if figure in line]
    return [step for _, step in sorted(found)]


def count_stale(history: History, figure: str) -> int:
    """Return how many validations there were since the best one."""
    ranked = rank_steps(history, figure)
    return sum(step > ranked[0] for step in ranked)
