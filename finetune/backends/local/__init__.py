"""The local backend: the only folder that imports torch, and only to work with a model."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from finetune.methods import METHODS
from finetune.progress import Progress, silent

if TYPE_CHECKING:
    from finetune.corpus import Dataset
    from finetune.recipe import Recipe
    from finetune.runs import Run


def train(run: Run, recipe: Recipe, dataset: Dataset, *, progress: Progress = silent) -> None:
    """Train in this process, or in those that `local.launch` names."""
    from finetune.backends.local.launch import check_launch, train_in_ranks

    check_launch(recipe)
    launch = recipe.local.launch
    if launch.processes * launch.nodes > 1:
        train_in_ranks(run, recipe, progress=progress)
    else:
        train_here(run, recipe, dataset, progress=progress)


def train_here(run: Run, recipe: Recipe, dataset: Dataset, *, progress: Progress = silent) -> None:
    """Train in this process, with the trainer that METHODS names for the recipe's method."""
    module, _, function = str(METHODS[recipe.method].local).partition(":")
    getattr(importlib.import_module(module), function)(run, recipe, dataset, progress=progress)
