"""The loss and the other figures of the validation data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from finetune.backends.local.ranks import ALONE, Ranks
from finetune.backends.local.schedule import share_step
from finetune.backends.local.task import Task, count_items, fill_rows, move

LOSS = "validation_loss"


def measure(
    task: Task,
    model: Any,
    items: Sequence[Any],
    *,
    limit: int,
    interrupted: Callable[[], bool] = lambda: False,
    ranks: Ranks = ALONE,
) -> dict[str, float]:
    """Return the mean loss of items, in nats, and the means of the method's own figures.

    Args:
        task: The method.
        model: A model whose attention is `attention.NAME`; in training mode again afterwards
            if it was before.
        items: At least one that counts.
        limit: Tokens computed at once.
        interrupted: Asked before each batch; nothing is returned once it says yes.
        ranks: Each computes its share, and equally often.

    Returns:
        `validation_loss`, and `validation_<figure>` for each other sum of the task's loss.
    """
    import torch

    device = model.get_output_embeddings().weight.device
    training = model.training
    model.eval()
    totals: dict[str, float] = {}
    try:
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=is_half(model)):
            common = task.survey(model, items) if task.survey is not None else {}
            rows = list(fill_rows(items, limit))
            for group, counted in share_step(rows, ranks.number, ranks.total):
                if interrupted():
                    return {}
                batch = move(task.collate(group) | common, device)
                loss, figures = task.loss(model, batch)
                for name, value in {"loss": loss, **figures}.items():
                    totals[name] = totals.get(name, 0.0) + (value.item() if counted else 0.0)
    finally:
        model.train(training)
    count = count_items(items)
    sums = zip(totals, ranks.add(*totals.values()), strict=True)
    return {f"validation_{name}": total / count for name, total in sums}


def is_half(model: Any) -> bool:
    """Tell whether to compute in bfloat16: a model trained in full holds its weights otherwise."""
    import torch

    return torch.bfloat16 in (model.get_output_embeddings().weight.dtype, model.config.dtype)
