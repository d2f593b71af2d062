"""How long work tells what it does: one call for each step, drawn by whoever started it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called as work goes on; must be cheap and must not raise.

    `stage` is a word such as `prepare` or `train`, `done` of `total` steps are over (`total` is
    None while nobody knows), and `facts` are figures worth showing, such as `loss=0.41`.
    """

    def __call__(
        self, stage: str, done: int, total: int | None = None, **facts: float | str
    ) -> None:
        """Take note of one step."""


def silent(stage: str, done: int, total: int | None = None, **facts: float | str) -> None:
    """Show nothing."""
