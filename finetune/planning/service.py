"""What a job on La Plateforme would take: files that leave, money, what only the service knows."""

from __future__ import annotations

import msgspec

from finetune.backends.local.schedule import DEFAULT_EPOCHS
from finetune.backends.platform.access import EMBEDDED, read_address
from finetune.backends.platform.jobs import find_skip_share, is_own_server, name_model
from finetune.backends.platform.uploads import Part, list_parts, validation_limit
from finetune.catalog import LIMITS, MONEY, PRIVACY, STEP_TOKENS_SEEN, Fact, Model
from finetune.corpus import Dataset
from finetune.methods import METHODS
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
        known: A job of this recipe and data has been validated.
        told: What it costs, as the service said.
        model: The model's name there.
        minimum_usd: Fee of the smallest job.
        storage_usd_month: Storage of the tuned model.
        max_cost: The recipe's own limit.
        steps: Steps of the recipe's epochs, for each step size seen in published jobs.
        facts: What is known, with source and date.
        warnings: Limits that the files are near or above.
    """

    known: bool
    told: str | None
    model: str
    minimum_usd: float | None
    storage_usd_month: float | None
    max_cost: str | None
    steps: dict[int, int]
    facts: list[str]
    warnings: list[str]


def plan_upload(
    recipe: Recipe,
    dataset: Dataset,
    model: Model | None,
    tokens: int,
    told: str | None = None,
) -> tuple[list[Upload], Cost]:
    """Return what a job would upload, and what is known of its cost.

    Args:
        recipe: The recipe.
        dataset: Its dataset; evaluation records never leave.
        model: The catalog's row of its model.
        tokens: Tokens of the training data, once.
        told: What a validated job of this recipe and data costs, where there is one.

    Raises:
        RecipeError: The model has no name there.
    """
    name = name_model(recipe)
    host, here = name_host(recipe)
    parts = list_parts(dataset)
    uploads = [Upload(part.path.name, part.size, host) for part in parts]
    warnings = _warn(dataset, parts)
    epochs = recipe.training.epochs or DEFAULT_EPOCHS
    facts = [] if here else [_tell(fact) for fact in (*MONEY.values(), *PRIVACY)]
    if model is not None and model.retired:
        facts.append(f"`{name}` was announced to retire on {model.retired} ({model.date})")
    cost = Cost(
        known=told is not None,
        told=told,
        model=name,
        minimum_usd=None if here else MONEY["minimum"].value,
        storage_usd_month=None if here else MONEY["storage"].value,
        max_cost=recipe.platform.max_cost,
        steps={step: max(1, round(epochs * tokens / step)) for step in STEP_TOKENS_SEEN}
        if recipe.training.steps is None
        else {},
        facts=facts,
        warnings=warnings,
    )
    return uploads, cost


def name_host(recipe: Recipe) -> tuple[str, bool]:
    """Return where a job would be, and whether that is this machine.

    Raises:
        RecipeError: `platform.host` is no address.
    """
    if recipe.platform.host == EMBEDDED:
        return "this machine", True
    address = read_address(recipe.platform.host)
    return address.host, address.local


def name_fate(recipe: Recipe) -> str:
    """Return what becomes of samples that are too long, as the end of a sentence about them."""
    if not is_own_server(recipe):
        return ": what the service does with them is not documented"
    if METHODS[recipe.method].record == "text":
        return ": the server cuts them into windows"
    if find_skip_share(recipe):
        return ": the server leaves them out"
    return ": the server refuses the job; raise it, or set `data.too_long: drop`"


def _tell(fact: Fact) -> str:
    value = "" if fact.value is None else f": {fact.value:g} {fact.unit}"
    return f"{fact.text}{value} ({fact.source}, {fact.date})"


def _warn(dataset: Dataset, parts: list[Part]) -> list[str]:
    """Return what of the data is split, and what of the validation data does not go."""
    warnings = []
    for file in dataset.train:
        pieces = sum(part.path == file.path for part in parts)
        if pieces > 1:
            largest = size(LIMITS["training_file"].value or 0)
            warnings.append(f"{file.path.name}: goes as {pieces} files of at most {largest}")
    path = dataset.validation
    sent = sum(part.size for part in parts if part.weight is None)
    if path is not None and sent < path.stat().st_size:
        goes = sum(len(part.lines) for part in parts if part.weight is None)
        of = dataset.manifest["files"][path.name]["records"]
        limit = validation_limit(sum(part.size for part in parts if part.weight is not None))
        warnings.append(
            f"validation data: {plural(goes, 'record')} of {of:,} would be uploaded, those of"
            f" lowest hash: documented to be at most {size(limit)} (1 MB or 5 % of the training"
            " data)"
        )
    return warnings
