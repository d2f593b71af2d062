"""`load_recipe`: file, then `extends:`, then overrides → a checked `Recipe`."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from finetune.errors import RecipeError
from finetune.files import slug
from finetune.methods import METHODS
from finetune.recipe.faults import explain_faults
from finetune.recipe.source import Document, Key, read_document, read_value
from finetune.recipe.tree import Lora, Recipe, Training
from finetune.text import did_you_mean

# Methods whose loss is that of the next token: all weights, and experts, can be trained for it.
_WHOLE = ("sft", "pretrain")


def load_recipe(
    path: str | Path, overrides: Sequence[str] = (), *, backend: str | None = None
) -> Recipe:
    """Read and check a recipe.

    Paths in it become absolute (they are written relative to the recipe); `recipe.origins` tells
    where every value came from: a line of the recipe, an override, or the default.

    Args:
        path: The YAML file.
        overrides: `key=value` each, such as `training.epochs=1`; the value is YAML.
        backend: Takes the place of `backend:`.

    Raises:
        RecipeError: Anything in it is wrong; all faults are named.

    Example:
        >>> recipe = load_recipe("recipes/quickstart.yaml", ["training.epochs=1"])
        >>> recipe.training.epochs
        1.0
    """
    path = Path(path)
    document = _extend(read_document(path), path)
    for override in overrides:
        _apply(document, override)
    if backend is not None:
        _set(document, ("backend",), backend, "--backend")
    document.values.setdefault("name", slug(path.stem).lstrip("_.-") or "run")
    try:
        recipe = Recipe.model_validate(document.values)
    except ValidationError as error:
        raise explain_faults(error, document, path) from None
    _check(recipe, document, path)
    if METHODS[recipe.method].learning_rate != Training().learning_rate:
        own = f"default of {recipe.method}"
        document.places.setdefault(("training", "learning_rate"), own)
    return _place(recipe, path, document.places)


def _extend(document: Document, path: Path) -> Document:
    """Lay the recipe over the one that it extends: one level, in the same folder."""
    name = document.values.pop("extends", None)
    if name is None:
        return document
    where = document.places.get(("extends",), path.name)
    if not isinstance(name, str) or Path(name).name != name:
        raise RecipeError(f"{where}: extends: must name a recipe in the same folder")
    base = read_document(path.with_name(name))
    if "extends" in base.values:
        raise RecipeError(
            f"{where}: extends: `{name}` extends another recipe; one level is allowed"
        )
    _merge(base.values, document.values)
    return Document(base.values, base.places | document.places)


def _merge(base: dict[str, Any], over: dict[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value


def _apply(document: Document, override: str) -> None:
    name, equals, text = override.partition("=")
    if not equals or not name.strip():
        raise RecipeError(
            f"-s {override}: is not key=value", hint="for example: -s training.epochs=1"
        )
    key = tuple(int(part) if part.isdigit() else part for part in name.strip().split("."))
    _set(document, key, read_value(text, f"-s {name}"), f"-s {name}")


def _set(document: Document, key: Key, value: Any, origin: str) -> None:
    parent: Any = document.values
    for part, following in itertools.pairwise(key):
        if isinstance(parent, list) and isinstance(part, int) and part < len(parent):
            parent = parent[part]
        elif isinstance(parent, dict) and not isinstance(following, int):
            parent = parent.setdefault(str(part), {})
        elif isinstance(parent, dict) and part in parent:
            parent = parent[part]
        else:
            raise RecipeError(f"{origin}: there is no `{part}` to set a value in")
    last = key[-1]
    if isinstance(parent, list) and isinstance(last, int) and last < len(parent):
        parent[last] = value
    elif isinstance(parent, dict):
        parent[str(last)] = value
    else:
        raise RecipeError(f"{origin}: there is no `{last}` to set")
    for known in [known for known in document.places if known[: len(key)] == key]:
        del document.places[known]
    document.places[key] = origin


def _check(recipe: Recipe, document: Document, path: Path) -> None:
    """Refuse what no field can refuse by itself."""

    def fail(key: Key, fact: str, hint: str | None = None) -> None:
        where = document.places.get(key, path.name)
        raise RecipeError(f"{where}: {'.'.join(map(str, key))}: {fact}", hint=hint)

    method = METHODS.get(recipe.method)
    if method is None:
        known = ", ".join(METHODS)
        hint = did_you_mean(recipe.method, METHODS)
        fail(("method",), f"`{recipe.method}` is not a method ({known})", hint)
    elif getattr(method, recipe.backend) is None:
        fail(("method",), f"the {recipe.backend} backend has no way to train `{recipe.method}`")
    if recipe.training.epochs is not None and recipe.training.steps is not None:
        fail(("training", "steps"), "stands beside `epochs`; give one of the two")
    if recipe.training.fim_ratio and recipe.method != "pretrain":
        fail(("training", "fim_ratio"), "only documents have a middle to fill in (`pretrain`)")
    _check_local(recipe, fail)
    if fault := _find_launch_fault(recipe):
        fail(("local", "launch", "strategy"), fault)
    validation = recipe.data.validation
    for number, source in enumerate(recipe.data.train):
        if source.chunks.overlap * 2 >= source.chunks.tokens:
            key = ("data", "train", number, "chunks", "overlap")
            fail(key, f"{source.chunks.overlap} is not less than half of `tokens`")
    _check_targets(recipe, fail)
    if isinstance(validation, float) and validation + recipe.evaluation.data >= 1:
        fail(("evaluation", "data"), "nothing is left to train on after validation and evaluation")


def _check_local(recipe: Recipe, fail: Callable[..., None]) -> None:
    """Refuse settings of the local backend that cannot stand together."""
    local = recipe.local
    if local.full and local.quantize != "none":
        fail(
            ("local", "full"), f"weights in {local.quantize} cannot be trained: only an adapter can"
        )
    if local.full and local.lora != Lora():
        fail(("local", "full"), "stands beside `local.lora`; give one of the two")
    if local.full and recipe.method not in _WHOLE:
        fail(
            ("local", "full"),
            f"`{recipe.method}` trains an adapter; {' and '.join(_WHOLE)} train all weights",
        )
    if local.lora.experts and recipe.method == "classifier":
        fail(("local", "lora", "experts"), "`classifier` trains an adapter on linears alone")
    if local.lora.dora and local.quantize == "8bit":  # peft 0.21.2 looks for scales that are gone
        fail(("local", "lora", "dora"), "does not go with weights in 8bit; 4bit does")
    if local.lora.experts and local.lora.dora:
        fail(("local", "lora", "dora"), "experts have no rows of their own to give a length")
    if local.lora.experts and local.lora.dropout:
        fail(("local", "lora", "dropout"), "is not possible on experts, which are fused tensors")


def _find_launch_fault(recipe: Recipe) -> str | None:
    launch = recipe.local.launch
    if launch.strategy == "ddp":
        return None
    if launch.processes * launch.nodes == 1:
        return f"`{launch.strategy}` shares among processes, and there is one"
    if recipe.local.full:
        return f"`{launch.strategy}` does not go with `local.full`; `ddp` does"
    if recipe.method == "classifier":
        return f"`{launch.strategy}` does not go with `method: classifier`; `ddp` does"
    if recipe.local.quantize != "none":
        return f"`{launch.strategy}` does not go with `local.quantize`; `ddp` does"
    return None


def _check_targets(recipe: Recipe, fail: Callable[..., None]) -> None:
    """Refuse targets of a classifier that contradict each other or the method."""
    targets, key = recipe.training.classifier_targets, ("training", "classifier_targets")
    if recipe.method != "classifier":
        if targets:
            fail(key, f"`{recipe.method}` has no labels (`classifier` has)")
        return
    if recipe.evaluation.judge is not None:
        fail(("evaluation", "judge"), "a classifier gives no answers that could be judged")
    names = [target.name for target in targets]
    if len(set(names)) < len(names):
        fail(key, "names a target twice")
    if targets and not any(target.weight for target in targets):
        fail(key, "all targets have weight 0: nothing would be trained")
    for number, target in enumerate(targets):
        place = (*key, number, "labels")
        if len(set(target.labels)) < len(target.labels):
            fail(place, "names a label twice")
        if len(target.labels) == 1 and target.loss_function != "multi_class":
            fail(place, "one label alone: there is nothing to tell apart")


def _place(recipe: Recipe, path: Path, places: dict[Key, str]) -> Recipe:
    """Make paths absolute and note the origins."""
    folder = path.resolve().parent
    values = copy.deepcopy(recipe.model_dump())
    sources = values["data"]["train"]
    if isinstance(values["data"]["validation"], list):
        sources = sources + values["data"]["validation"]
    for source in sources:
        if not str(source["path"]).startswith("hub:"):
            source["path"] = folder / source["path"].expanduser()
    clean = values["data"]["clean"]
    clean["decontaminate"] = [folder / path.expanduser() for path in clean["decontaminate"]]
    if values["model"].startswith((".", "/", "~")):
        values["model"] = str((folder / Path(values["model"]).expanduser()).resolve())
    placed = Recipe.model_validate(values)
    placed._file = path.resolve()  # noqa: SLF001 (the loader fills what is not a setting)
    placed._origins = _origins(recipe, places)  # noqa: SLF001
    return placed


def _origins(recipe: Recipe, places: dict[Key, str]) -> list[tuple[str, Any, str]]:
    rows: list[tuple[str, Any, str]] = []

    def walk(value: Any, key: Key, origin: str | None) -> None:
        origin = places.get(key, origin)
        if isinstance(value, BaseModel):
            for name in type(value).model_fields:
                # Inside a section that was written, a key that was not keeps its default.
                inherited = None if (*key, name) not in places else origin
                walk(getattr(value, name), (*key, name), inherited)
        elif isinstance(value, list) and value and isinstance(value[0], BaseModel):
            for index, item in enumerate(value):
                walk(item, (*key, index), origin)
        else:
            plain = str(value) if isinstance(value, Path) else value
            if origin is None:
                origin = next((p for k, p in places.items() if k[: len(key)] == key), "default")
            rows.append((".".join(map(str, key)), plain, origin))

    walk(recipe, (), None)
    return rows
