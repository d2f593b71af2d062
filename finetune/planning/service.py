"""What a job on La Plateforme would take: files that leave, money, what only the service knows."""

from __future__ import annotations

from pathlib import Path

import msgspec

from finetune.backends.local.schedule import DEFAULT_EPOCHS
from finetune.catalog import HOST, LIMITS, MONEY, STEP_TOKENS_SEEN, Fact, Model
from finetune.corpus import Dataset
from finetune.errors import RecipeError
from finetune.recipe import Recipe
from finetune.text import size


class Upload(msgspec.Struct):
    """A file that would leave this machine."""

    file: str
    size_bytes: int
    host: str


class Cost(msgspec.Struct):
    """Money: the service names the price of a job only when it has validated it.

    Attributes:
        known: Always False before validation.
        model: The model's name there.
        minimum_usd: Fee of the smallest job.
        storage_usd_month: Storage of the tuned model.
        max_cost: The recipe's own limit.
        steps: Steps of the recipe's epochs, for each step size seen in published jobs.
        facts: What is known, with source and date.
        warnings: Limits that the files are near or above.
    """

    known: bool
    model: str
    minimum_usd: float | None
    storage_usd_month: float | None
    max_cost: str | None
    steps: dict[int, int]
    facts: list[str]
    warnings: list[str]


def plan_upload(
    recipe: Recipe, dataset: Dataset, model: Model | None, tokens: int
) -> tuple[list[Upload], Cost]:
    """Return what a job would upload, and what is known of its cost.

    Args:
        recipe: The recipe.
        dataset: Its dataset; evaluation records never leave.
        model: The catalog's row of its model.
        tokens: Tokens of the training data, once.

    Raises:
        RecipeError: The model has no name there.
    """
    name = recipe.platform.model or (model.platform if model else None)
    if name is None:
        raise RecipeError(
            f"model: La Plateforme has no name for `{recipe.model}` that is known here",
            hint="set `platform.model`, or use `--backend local`",
        )
    paths = [file.path for file in dataset.train]
    uploads = [_upload(path) for path in (*paths, dataset.validation) if path]
    epochs = recipe.training.epochs or DEFAULT_EPOCHS
    facts = [_tell(fact) for fact in MONEY.values()]
    if model is not None and model.retired:
        facts.append(f"`{name}` was announced to retire on {model.retired} ({model.date})")
    cost = Cost(
        known=False,
        model=name,
        minimum_usd=MONEY["minimum"].value,
        storage_usd_month=MONEY["storage"].value,
        max_cost=recipe.platform.max_cost,
        steps={step: max(1, round(epochs * tokens / step)) for step in STEP_TOKENS_SEEN}
        if recipe.training.steps is None
        else {},
        facts=facts,
        warnings=_warn(uploads[: len(paths)], uploads[len(paths) :]),
    )
    return uploads, cost


def _tell(fact: Fact) -> str:
    value = "" if fact.value is None else f": {fact.value:g} {fact.unit}"
    return f"{fact.text}{value} ({fact.source}, {fact.date})"


def _upload(path: Path) -> Upload:
    return Upload(path.name, path.stat().st_size, HOST)


def _warn(train: list[Upload], validation: list[Upload]) -> list[str]:
    largest = LIMITS["training_file"].value or 0
    warnings = [
        f"{upload.file}: {size(upload.size_bytes)}, at most {size(largest)}"
        for upload in train
        if upload.size_bytes > largest
    ]
    held_out = sum(upload.size_bytes for upload in validation)
    trained = sum(upload.size_bytes for upload in train)
    bound = min(
        LIMITS["validation_bytes"].value or 0, (LIMITS["validation_share"].value or 0) * trained
    )
    if held_out > bound:
        warnings.append(
            f"validation data: {size(held_out)}, documented to be at most {size(bound)} "
            "(1 MB or 5 % of the training data)"
        )
    return warnings
