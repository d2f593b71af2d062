"""Where a model is and what is known of it: a folder, the hub's cache, the catalog."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import msgspec

from finetune.catalog import (
    Model,
    Shape,
    find_model,
    find_obstacle,
    read_context,
    read_shape,
    suggest_model,
)
from finetune.errors import RecipeError, UsageError
from finetune.recipe import Recipe
from finetune.tokens import embedded

_HUB_ID = re.compile(r"(?!.*(\.\.|--))\w([\w.-]*\w)?/\w([\w.-]*\w)?", re.ASCII)


class Place(msgspec.Struct):
    """What is known of a recipe's model before anything is downloaded.

    Attributes:
        model: The catalog's row, None for a model that it does not have.
        folder: The model on this machine, None where it is not here.
        tokenizer: A folder with its tokenizer, None where it is not here.
        shape: From the folder's `config.json`, else from the catalog.
        context: Longest sequence in tokens, None where nobody says.
    """

    model: Model | None
    folder: Path | None
    tokenizer: Path | None
    shape: Shape | None
    context: int | None


def find_place(ref: str) -> Place:
    """Return what is known of a model; nothing is downloaded and no service is asked.

    Args:
        ref: A folder, a catalog name or a hub id.

    Raises:
        UsageError: It is neither.
    """
    model = find_model(ref)
    path = Path(ref).expanduser()
    if model is None and not path.is_dir() and not _HUB_ID.fullmatch(ref):
        raise UsageError(
            f"{ref}: no such folder, catalog name or hub id",
            hint=suggest_model(ref) or "`finetune models` lists the catalog",
        )
    if model is not None and model.fp8:
        twin = f"use `{model.bf16}`, the same in bfloat16" if model.bf16 else None
        raise UsageError(f"{ref}: holds 8-bit floats, which cannot be tuned", hint=twin)
    if (path / "adapter_config.json").is_file() and not (path / "config.json").is_file():
        raise UsageError(
            f"{ref}: is an adapter, not a model",
            hint="`finetune export RUN --to merged` writes the model that it makes of its base",
        )
    folder = path if path.is_dir() else _find_cached(model.hub_id if model else ref)
    tokenizer = folder
    if model is not None and model.name == embedded.NAME:
        tokenizer = _find_embedded()
    config = _read_config(folder)
    obstacle = (model.obstacle if model else None) or find_obstacle(config)
    if obstacle:
        raise UsageError(f"{ref}: cannot be tuned on this machine: {obstacle}")
    return Place(
        model=model,
        folder=folder,
        tokenizer=tokenizer,
        shape=read_shape(config) or (model.shape if model else None),
        context=read_context(config) or (model.context if model else None),
    )


def check_model(recipe: Recipe) -> Place:
    """Return what is known of the recipe's model, if it can take the recipe's samples.

    Raises:
        RecipeError: `training.seq_len` is above the model's context.
        UsageError: There is no such model, or it cannot be tuned.
    """
    place = find_place(recipe.model)
    asked = recipe.training.seq_len
    if place.context is not None and asked > place.context:
        raise RecipeError(
            f"training.seq_len: {asked:,} is above the context of `{recipe.model}`, "
            f"{place.context:,} tokens",
            hint=f"set `training.seq_len` to at most {place.context}",
        )
    return place


def _find_embedded() -> Path | None:
    try:
        return embedded.provide_tokenizer()
    except (UsageError, ImportError):  # its package or the extra `local` is not installed
        return None


def _find_cached(hub_id: str | None) -> Path | None:
    """Return the folder where the hub's client has kept a model, None where it has not."""
    if hub_id is None or importlib.util.find_spec("huggingface_hub") is None:
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(hub_id, "config.json")
    return Path(found).parent if isinstance(found, str) else None


def _read_config(folder: Path | None) -> dict[str, Any]:
    if folder is None:
        return {}
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}
