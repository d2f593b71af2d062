"""The rival: another model that stands beside base and tuned."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from finetune.backends.local.base import check_adapter
from finetune.backends.local.model import Dtype, Quantize, is_adapter, resolve_model
from finetune.errors import RunError, UsageError
from finetune.progress import Progress, silent
from finetune.recipe import Recipe
from finetune.runs import find_run


class Rival(NamedTuple):
    """Another model.

    Attributes:
        name: As it was asked for.
        folder: Its base.
        tuned: What was trained of it, None for a model as it is.
        dtype: Numbers of its base.
        quantize: How its base is held.
    """

    name: str
    folder: Path
    tuned: Path | None
    dtype: Dtype
    quantize: Quantize


def find_rival(name: str, recipe: Recipe, runs: Path, *, progress: Progress = silent) -> Rival:
    """Return the model that a name means: a run, an adapter's folder, or a model.

    Args:
        name: A run (see `runs.find_run`), a folder with an adapter for the recipe's own model, or
            what a recipe's `model` may be.
        recipe: That of the run it stands beside: it says how models are held.
        runs: Where runs lie.
        progress: Told while a model is built or fetched.

    Raises:
        UsageError: It means nothing, or an adapter is one for another model.
        RunError: The run has no adapter yet.
    """
    local = recipe.local
    if is_adapter(Path(name)):
        check_adapter(Path(name), recipe.model)
        folder = resolve_model(recipe.model, progress=progress)
        return Rival(name, folder, Path(name), local.dtype, local.quantize)
    try:
        run = find_run(name, runs)
    except UsageError as error:
        try:
            folder = resolve_model(name, progress=progress)
        except UsageError:
            if "begin so" in error.message:  # several runs are meant
                raise error from None
            raise
        return Rival(name, folder, None, local.dtype, local.quantize)
    if not run.tuned.is_dir():
        raise RunError(f"{run.folder}: has no tuned model", hint=run.find_remedy())
    own = run.recipe
    check_adapter(run.tuned, own.model)
    folder = resolve_model(own.model, progress=progress)
    return Rival(run.folder.name, folder, run.tuned, own.local.dtype, own.local.quantize)
