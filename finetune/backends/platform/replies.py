"""Replies: the objects of the API, typed as far as this package needs them.

Whatever a service adds is kept in `raw`; what it leaves out or sends as null has a default. A
status is a text: one that nobody knows is not an end.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

TERMINAL = ("SUCCESS", "FAILED", "FAILED_VALIDATION", "CANCELLED")


class Remote(msgspec.Struct, kw_only=True):
    """Anything that a service describes.

    Attributes:
        id: Its id there.
        raw: The whole reply.
    """

    id: str
    raw: dict[str, Any] = msgspec.field(default_factory=dict, name="(reply)")


class File(Remote):
    """An uploaded file. The published examples show `bytes` as null."""

    filename: str | None = None
    bytes: int | None = None
    num_lines: int | None = None
    purpose: str | None = None
    sample_type: str | None = None
    created_at: int | None = None


class Job(Remote):
    """A fine-tuning job. The weights of its training files are not told."""

    status: str
    model: str | None = None
    suffix: str | None = None
    job_type: str | None = None
    created_at: int | None = None
    training_files: list[Any] | None = None
    validation_files: list[Any] | None = None
    hyperparameters: dict[str, Any] | None = None
    fine_tuned_model: str | None = None
    trained_tokens: int | None = None
    metadata: dict[str, Any] | None = None
    events: list[dict[str, Any]] | None = None
    checkpoints: list[dict[str, Any]] | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.status in TERMINAL

    @property
    def files(self) -> list[str]:
        """Ids of its files: those trained on, then those validated on."""
        both = [*(self.training_files or []), *(self.validation_files or [])]
        return [str(one["file_id"] if isinstance(one, dict) else one) for one in both]

    @property
    def cost(self) -> tuple[float, str] | None:
        """What it costs, as (amount, currency); None while nobody says. 0.0 is not yet a price."""
        facts = self.metadata or {}
        amount, currency = facts.get("cost"), facts.get("cost_currency")
        if not isinstance(amount, int | float) or isinstance(amount, bool):
            return None
        return float(amount), str(currency or "")


class Card(Remote):
    """A model."""

    capabilities: dict[str, Any] | None = None
    root: str | None = None
    job: str | None = None
    archived: bool | None = None
    name: str | None = None
    description: str | None = None
    aliases: list[str] | None = None
    deprecation: str | None = None

    @property
    def is_tuned(self) -> bool:
        """Whether somebody tuned it."""
        return self.raw.get("type") == "fine-tuned" or self.id.startswith("ft:")

    @property
    def can_be_tuned(self) -> bool:
        """Whether its card says that it can be tuned."""
        return (self.capabilities or {}).get("fine_tuning") is True


R = TypeVar("R", bound=Remote)


def read(kind: type[R], value: Any) -> R:
    """Return a reply as what it describes.

    Raises:
        ValueError: It describes no such thing.
    """
    found = msgspec.convert(value, kind, strict=False)
    found.raw = value
    return found


def read_page(kind: type[R], value: Any) -> list[R]:
    """Return the objects of a list; a bare array is one too.

    Raises:
        ValueError: It is no list of such things.
    """
    rows = value.get("data") if isinstance(value, dict) else value
    if rows is None:
        rows = []
    if not isinstance(rows, list):
        raise ValueError("no list")  # noqa: TRY004 (as above)
    return [read(kind, row) for row in rows]


def read_checkpoint(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint of a job as a line of metrics.

    What the service calls `valid_mean_token_accuracy` is 2 to the validation loss, in every
    published sample (documentation, 2026-08-21): it is a perplexity and falls as the model learns.
    """
    metrics = checkpoint.get("metrics")
    metrics = metrics if isinstance(metrics, dict) else {}
    names = {
        "loss": "train_loss",
        "validation_loss": "valid_loss",
        "validation_perplexity_base_2": "valid_mean_token_accuracy",
    }
    found = {name: metrics.get(theirs) for name, theirs in names.items()}
    step = checkpoint.get("step_number")
    line: dict[str, Any] = {"step": step} if isinstance(step, int) else {}
    return line | {name: v for name, v in found.items() if isinstance(v, int | float)}
