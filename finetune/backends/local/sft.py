"""Supervised fine-tuning and continued pretraining: the next token, wherever it is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune.backends.local.lora import add_adapter
from finetune.backends.local.samples import collate, read_samples
from finetune.backends.local.task import Task
from finetune.backends.local.training import tune
from finetune.progress import Progress, silent

if TYPE_CHECKING:
    import torch

    from finetune.corpus import Dataset
    from finetune.recipe import Recipe
    from finetune.runs import Run


def train(run: Run, recipe: Recipe, dataset: Dataset, *, progress: Progress = silent) -> None:
    """Train on conversations or documents; see `training.tune`."""
    tune(TASK, run, recipe, dataset, progress=progress)


def _prepare(model: Any, recipe: Recipe) -> Any:
    return add_adapter(model, recipe.local.lora, seed=recipe.seed, reference=recipe.model)


def _loss(model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    from finetune.backends.local.loss import routed_loss

    return routed_loss(model, batch)


TASK = Task(read=read_samples, collate=collate, loss=_loss, prepare=_prepare)
