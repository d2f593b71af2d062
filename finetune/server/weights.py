"""Weights: what the name of a model means on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from finetune.backends.platform.access import read_address
from finetune.catalog import MODELS
from finetune.errors import RecipeError, UsageError
from finetune.planning.place import Place, find_place
from finetune.recipe.faults import explain_faults
from finetune.recipe.source import Document, read_document
from finetune.recipe.tree import Local, Section
from finetune.server.refusal import Refused

_FORM = "a line for each name: `NAME: {model: FOLDER_OR_HUB_ID}`"


class Weights(Section):
    """What a name means: one entry of the file of `--models`."""

    model: str
    """A catalog name, a hub id, or a folder (relative to the file)."""
    local: Local = Local()
    """How it is trained: the recipe's section of this name."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of everything random in its jobs, which no request names."""
    vllm: str | None = None
    """Address of a vLLM that serves these weights, and then answers for them and their adapters."""
    price: Annotated[float, Field(ge=0)] = 0.0
    """What a million trained tokens cost, for the bill of a job."""
    currency: str = "EUR"
    """The currency of `price`."""


class Names:
    """The names that this server answers to: those of the map, and catalog names with weights here.

    Args:
        entries: From `read_names`.
    """

    def __init__(self, entries: Mapping[str, Weights]) -> None:
        self._entries = dict(entries)
        for model in MODELS:
            if model.name not in self._entries and _is_here(model.name):
                self._entries[model.name] = Weights(model=model.name)

    def all(self) -> dict[str, Weights]:
        """Return every name with what it means."""
        return dict(self._entries)

    def find(self, name: str, kind: str = "completion") -> Weights:
        """Return what a name means.

        Raises:
            Refused: 422: there are no weights for it; it says which line to add.
        """
        found = self._entries.get(name)
        if found is None:
            raise Refused(
                422,
                f"Model not available for this type of fine-tuning ({kind}). There are no weights"
                f" for `{name[:100]}` here: add the line"
                f" `{name[:100]}: {{model: FOLDER_OR_HUB_ID}}` to the file of `--models`,"
                f" or take one of {', '.join(self._entries)}",
            )
        return found


def read_names(path: Path | None) -> dict[str, Weights]:
    """Return the entries of a `--models` file: name → weights.

    Raises:
        UsageError: It cannot be read, or an entry is wrong.
    """
    if path is None:
        return {}
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    try:
        document = read_document(path)
    except RecipeError as error:
        raise RecipeError(error.message, hint=_FORM) from None
    entries = {}
    for name, value in document.values.items():
        where = document.places.get((name,), str(path))
        written = {"model": value} if isinstance(value, str) else value
        if not isinstance(written, dict):
            raise RecipeError(f"{where}: {name}: must be a mapping", hint=_FORM)
        places = {key[1:]: place for key, place in document.places.items() if key[0] == name}
        try:
            entry = Weights.model_validate(written)
        except ValidationError as error:
            raise explain_faults(error, Document(written, places), Path(where), Weights) from None
        entries[name] = _place(entry, path.parent, f"{where}: {name}")
    return entries


def _place(entry: Weights, folder: Path, place: str) -> Weights:
    """Return an entry with its folder and its address as they are used here.

    Raises:
        UsageError: It means nothing that is trained or answers here.
    """
    if entry.local.full:
        raise RecipeError(
            f"{place}: local.full: what is served are adapters on one base",
            hint="leave it out, or train it with `finetune run`",
        )
    model = folder / Path(entry.model).expanduser()
    if model.is_dir():
        entry = entry.model_copy(update={"model": str(model.resolve())})
    if entry.vllm is not None:
        address = read_address(entry.vllm, place=f"{place}: vllm")
        entry = entry.model_copy(update={"vllm": address.url})
    try:
        find_place(entry.model)  # a catalog name, a folder or a hub id
    except UsageError as error:
        raise RecipeError(f"{place}: model: {error.message}", hint=error.hint) from None
    return entry


def _is_here(name: str) -> bool:
    try:
        place: Place = find_place(name)
    except UsageError:
        return False
    return place.folder is not None or (
        place.model is not None and place.model.package is not None and place.tokenizer is not None
    )
