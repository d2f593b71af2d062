"""METHODS: what each method trains on, and who can train it.

A capability table: what a backend has no way to do is refused while the recipe loads.
"""

from __future__ import annotations

from typing import NamedTuple


class Method(NamedTuple):
    """One row of METHODS.

    Attributes:
        record: The kind of record it trains on.
        platform: The job type of La Plateforme, or None where it has none.
        local: `module:function` of the local trainer, or None where there is none.
        summary: One line for people.
        learning_rate: The default of `training.learning_rate`.
    """

    record: str
    platform: str | None
    local: str | None
    summary: str
    learning_rate: float = 1e-4


METHODS: dict[str, Method] = {
    "sft": Method(
        record="chat",
        platform="completion",
        local="finetune.backends.local.sft:train",
        summary="supervised fine-tuning on conversations; the loss falls on the assistant",
    ),
    "pretrain": Method(
        record="text",
        platform="completion",
        local="finetune.backends.local.sft:train",
        summary="continued pretraining on documents or code; the loss falls on every token",
    ),
    "dpo": Method(
        record="preference",
        platform=None,
        local="finetune.backends.local.dpo:train",
        summary="direct preference optimization: of two answers, the better one gains",
        learning_rate=1e-5,
    ),
    "kto": Method(
        record="rating",
        platform=None,
        local="finetune.backends.local.kto:train",
        summary="Kahneman-Tversky optimization: answers rated good gain, the others lose",
        learning_rate=1e-5,
    ),
    "classifier": Method(
        record="classifier",
        platform="classifier",
        local="finetune.backends.local.classifier:train",
        summary="labels for texts or conversations",
    ),
}
