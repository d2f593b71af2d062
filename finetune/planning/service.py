"""What a job on La Plateforme would take: files that leave, money, what only the service knows."""

from __future__ import annotations

import msgspec

from finetune.backends.local.schedule import DEFAULT_EPOCHS
from finetune.catalog import HOST, LIMITS, MONEY, STEP_TOKENS_SEEN, Fact, Model
from finetune.corpus import Dataset
from finetune.corpus.prefix import read_prefix
from finetune.errors import RecipeError
from finetune.recipe import Recipe
from finetune.text import plural, size


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
    train = [Upload(f.path.name, f.path.stat().st_size, HOST) for f in dataset.train]
    validation, warnings = _plan_validation(dataset, sum(one.size_bytes for one in train))
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
        warnings=[*_warn(train), *warnings],
    )
    return [*train, *validation], cost


def _tell(fact: Fact) -> str:
    value = "" if fact.value is None else f": {fact.value:g} {fact.unit}"
    return f"{fact.text}{value} ({fact.source}, {fact.date})"


def _warn(train: list[Upload]) -> list[str]:
    largest = LIMITS["training_file"].value or 0
    return [
        f"{upload.file}: {size(upload.size_bytes)}, at most {size(largest)}"
        for upload in train
        if upload.size_bytes > largest
    ]


def _plan_validation(dataset: Dataset, trained: int) -> tuple[list[Upload], list[str]]:
    """Return the upload of the validation data, and a warning where not all of them go.

    Args:
        dataset: The dataset.
        trained: Bytes of its training data.
    """
    path = dataset.validation
    if path is None:
        return [], []
    share = (LIMITS["validation_share"].value or 0) * trained
    limit = int(min(LIMITS["validation_bytes"].value or 0, share))
    sizes = [len(line) for line in read_prefix(path, limit)]
    warnings = []
    if sum(sizes) < path.stat().st_size:
        of = dataset.manifest["files"][path.name]["records"]
        warnings.append(
            f"validation data: {plural(len(sizes), 'record')} of {of:,} would be uploaded, those of"
            f" lowest hash: documented to be at most {size(limit)} (1 MB or 5 % of the training"
            " data)"
        )
    return [Upload(path.name, sum(sizes), HOST)] if sizes else [], warnings
