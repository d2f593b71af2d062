"""Jobs: what is sent to make one, and which job there is that one."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from os import environ
from pathlib import PurePath
from typing import Any

from finetune.backends.local.schedule import DEFAULT_EPOCHS
from finetune.backends.platform.access import EMBEDDED, read_address
from finetune.backends.platform.replies import Job
from finetune.backends.platform.uploads import Part
from finetune.catalog import find_model
from finetune.errors import RecipeError
from finetune.methods import METHODS
from finetune.recipe import Recipe

_WANDB_KEY = 40  # characters, by the contract
_MOST_SKIPPED = 0.5  # share of the samples, by the contract


def name_model(recipe: Recipe) -> str:
    """Return what the service calls the recipe's model; a server of one's own calls it as we do.

    Raises:
        RecipeError: Nobody knows.
    """
    model = find_model(recipe.model)
    if is_own_server(recipe):
        return recipe.platform.model or (model.name if model else PurePath(recipe.model).name)
    name = recipe.platform.model or (model.platform if model else None)
    if name is None:
        raise RecipeError(
            f"model: La Plateforme has no name for `{recipe.model}` that is known here",
            hint="set `platform.model`, or use `--backend local`",
        )
    return name


def is_own_server(recipe: Recipe) -> bool:
    """Tell whether the service is another than Mistral's: one of `finetune serve`.

    Raises:
        RecipeError: `platform.host` is no address.
    """
    host = recipe.platform.host
    return host == EMBEDDED or not read_address(host).own


def make_suffix(recipe: Recipe, run: str) -> str:
    """Return the part of the tuned model's name that is this run's alone.

    Args:
        recipe: Its `platform.suffix`, or its name.
        run: The name of the run's folder.
    """
    stem = recipe.platform.suffix or re.sub(r"[^A-Za-z0-9_-]+", "-", recipe.name)[:11].strip("-")
    return f"{stem or 'run'}-{hashlib.sha256(run.encode()).hexdigest()[:6]}"


def make_body(
    recipe: Recipe,
    parts: Sequence[Part],
    file_ids: Sequence[str],
    suffix: str,
    *,
    environment: Mapping[str, str] = environ,
) -> dict[str, Any]:
    """Return what is sent to make a job.

    Args:
        recipe: The recipe.
        parts: Its files.
        file_ids: Their ids at the service.
        suffix: See `make_suffix`.
        environment: Where the keys of integrations are looked for.
    """
    files = list(zip(parts, file_ids, strict=True))
    body: dict[str, Any] = {
        "model": name_model(recipe),
        "job_type": METHODS[recipe.method].platform,
        "hyperparameters": _hyperparameters(recipe),
        "training_files": [
            {"file_id": file_id, "weight": part.weight}
            for part, file_id in files
            if part.weight is not None
        ],
        "validation_files": [file_id for part, file_id in files if part.weight is None] or None,
        "suffix": suffix,
        "auto_start": False,
        "invalid_sample_skip_percentage": find_skip_share(recipe),
        "integrations": [
            _wandb(one.model_dump(exclude_none=True), environment)
            for one in recipe.platform.integrations
        ]
        or None,
        "repositories": [
            _github(one.model_dump(exclude_none=True), environment)
            for one in recipe.platform.repositories
        ]
        or None,
        "classifier_targets": [
            one.model_dump(exclude_none=True) for one in recipe.training.classifier_targets
        ]
        or None,
    }
    return {key: value for key, value in body.items() if value is not None}


def is_same(job: Job, body: Mapping[str, Any]) -> bool:
    """Tell whether a job is the one that `body` makes: suffix, model, files and settings agree.

    A service that has counted the steps of a job tells its epochs anew, in which records weigh and
    the last step is whole: they need not be near those that were sent.
    """
    files = [one["file_id"] for one in body["training_files"]]
    sent, told = dict(body["hyperparameters"]), job.hyperparameters or {}
    if told.get("training_steps") is not None:
        sent.pop("epochs", None)
    return (
        job.suffix == body["suffix"]
        and job.model == body["model"]
        and sorted(job.files) == sorted([*files, *body.get("validation_files", [])])
        and all(_agree(value, told.get(key)) for key, value in sent.items())
    )


def _agree(sent: Any, told: Any) -> bool:
    if told is None:  # a service that does not tell
        return True
    if isinstance(told, int | float) and isinstance(sent, int | float):
        return math.isclose(sent, told, rel_tol=1e-6)
    return bool(sent == told)


def find_skip_share(recipe: Recipe) -> float:
    """Return the share of samples that may be left out.

    Mistral's host is not documented to count what is too long as invalid; a server of one's own
    does, so that `too_long: drop` leaves out there what it leaves out here.
    """
    said = recipe.platform.invalid_sample_skip_percentage
    drops = recipe.data.too_long == "drop" and is_own_server(recipe)
    return said or (_MOST_SKIPPED if drops else 0.0)


def _hyperparameters(recipe: Recipe) -> dict[str, Any]:
    training = recipe.training
    length: dict[str, Any] = (
        {"training_steps": training.steps}
        if training.steps is not None
        else {"epochs": training.epochs or DEFAULT_EPOCHS}
    )
    if METHODS[recipe.method].record == "text":
        length["fim_ratio"] = training.fim_ratio
    return {
        **length,
        "learning_rate": training.learning_rate,
        "weight_decay": training.weight_decay,
        "warmup_fraction": training.warmup_fraction,
        "seq_len": training.seq_len,
    }


def _wandb(settings: dict[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    key = environment.get("WANDB_API_KEY", "").strip()
    if len(key) != _WANDB_KEY:
        have = f"has {len(key)} characters" if key else "is not set"
        raise RecipeError(
            f"platform.integrations: WANDB_API_KEY {have}: the service takes keys of exactly"
            f" {_WANDB_KEY}, and keys that W&B issues since 2025 have 86",
            hint="use an older key, or leave `platform.integrations` out",
        )
    return {"type": "wandb", **settings, "api_key": key}


def _github(settings: dict[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    token = environment.get("GITHUB_TOKEN", "").strip()
    if not token:
        raise RecipeError(
            "platform.repositories: GITHUB_TOKEN is not set: the service reads with it",
            hint="set it to a token that may read these repositories and nothing else",
        )
    return {"type": "github", **settings, "token": token}
