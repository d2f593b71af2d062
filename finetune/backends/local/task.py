"""Task: what sets one training method apart from another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    import torch

    from finetune.progress import Progress
    from finetune.recipe import Recipe
    from finetune.tokens import Tokenizer


class Item(Protocol):
    """What is trained as one: a sample, a pair of answers, a text with its labels."""

    @property
    def tokens(self) -> int:
        """Tokens that are computed for it."""

    @property
    def items(self) -> float:
        """What it counts in the mean loss of a step."""


class Refer(Protocol):
    """See `Task.refer`."""

    def __call__(self, model: Any, items: Sequence[Any], /, *, progress: Progress) -> list[Any]:
        """Return the items, completed."""


def nothing(_model: Any, _folder: Path) -> None:
    """Save or load nothing: the adapter is all that is trained."""


class Task(NamedTuple):
    """How a method's records become items, and items a loss.

    Attributes:
        read: Returns the items of a file of records: (path, recipe, tokenizer, epoch).
        collate: Lays items end to end as one batch; no padding.
        loss: Returns a batch's summed loss, and other sums that are logged as means under their
            names.
        prepare: Turns the base into the model that is trained: (model, recipe).
        refer: Returns items with what the model says of them before training, where the loss
            asks for it: (model, items, progress).
        save: Writes what is trained beside the adapter: (model, folder).
        load: Reads it back into the model.
        survey: Returns what the loss of each micro-batch of a step is told about the whole of it,
            added to the batch: (model, items of the step).
    """

    read: Callable[[Path, Recipe, Tokenizer, int], Sequence[Any]]
    collate: Callable[[Sequence[Any]], dict[str, Any]]
    loss: Callable[[Any, dict[str, Any]], tuple[torch.Tensor, dict[str, torch.Tensor]]]
    prepare: Callable[[Any, Recipe], Any]
    refer: Refer | None = None
    save: Callable[[Any, Path], None] = nothing
    load: Callable[[Any, Path], None] = nothing
    survey: Callable[[Any, Sequence[Any]], dict[str, Any]] | None = None


_Item = TypeVar("_Item", bound=Item)


def fill_rows(items: Sequence[_Item], limit: int) -> Iterator[list[_Item]]:
    """Yield items in order, as many at a time as have `limit` tokens together, or one."""
    row: list[_Item] = []
    tokens = 0
    for item in items:
        if row and tokens + item.tokens > limit:
            yield row
            row, tokens = [], 0
        row.append(item)
        tokens += item.tokens
    if row:
        yield row


def count_items(items: Sequence[Item]) -> float:
    """Return what the summed loss of these is divided by."""
    return sum(item.items for item in items)


def move(batch: dict[str, Any], device: Any) -> dict[str, Any]:
    """Return the batch with its tensors on a device."""
    import torch

    return {
        key: value.to(device) if isinstance(value, torch.Tensor) else value
        for key, value in batch.items()
    }
