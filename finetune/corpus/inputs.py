"""Inputs: the sources of a recipe as they are found on disk, and what identifies them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from finetune import __version__
from finetune.corpus.chain import Steps
from finetune.corpus.images import digest_images
from finetune.corpus.privacy import fingerprint
from finetune.corpus.sources import SourceFile, find_files
from finetune.corpus.split import Side
from finetune.errors import DataError
from finetune.files import open_stream, slug
from finetune.methods import METHODS
from finetune.recipe import Recipe, Source


class Input(NamedTuple):
    """A source with its files as they were found.

    Attributes:
        name: Unique among the sources, fit for a file name.
        source: What the recipe says.
        side: VALIDATION where the recipe names validation sources.
        files: In the order in which they are read.
        digests: SHA-256 of each file.
        left_out: Files of a folder that are no data.
    """

    name: str
    source: Source
    side: Side
    files: list[SourceFile]
    digests: list[str]
    left_out: list[str]

    def check_unchanged(self, number: int) -> None:
        """Make sure that a file still is what it was when its digest was taken.

        Raises:
            DataError: It changed, so that nobody knows what was read.
        """
        file = self.files[number]
        if file.digest() != self.digests[number]:
            raise DataError(
                "changed while it was read",
                file=file.name,
                hint="run again when nothing writes to it",
            )


def find_inputs(recipe: Recipe) -> list[Input]:
    """Return the validation sources, then the training sources.

    Raises:
        UsageError: One of them is not there.
    """
    validation = recipe.data.validation
    wanted = [(source, Side.TRAIN) for source in recipe.data.train]
    if isinstance(validation, list):
        wanted = [(source, Side.VALIDATION) for source in validation] + wanted
    inputs: list[Input] = []
    for source, side in wanted:
        tree = source.format == "code"
        files, left_out = find_files(source.path, split=source.split, tree=tree)
        digests = [str(file.digest()) for file in files]
        name = _free_name(source.path, {one.name for one in inputs})
        inputs.append(Input(name, source, side, files, digests, left_out))
    return inputs


def _free_name(path: Path, taken: set[str]) -> str:
    name = first = slug(path.name.split(".")[0])
    count = 1
    while name in taken:
        count += 1
        name = f"{first}-{count}"
    return name


def describe(recipe: Recipe, inputs: list[Input], steps: Steps) -> dict[str, Any]:
    """Return all that decides about the bytes of a dataset, and no path of this machine.

    Args:
        recipe: Its data section.
        inputs: Names and digests of its files.
        steps: What is done with the records.
    """
    data = recipe.data.model_dump(mode="json", exclude={"train", "validation"})
    data["clean"]["decontaminate"] = [
        {"name": file.name, "sha256": file.digest()}
        for path in recipe.data.clean.decontaminate
        for file in find_files(path)[0]
    ]
    if not isinstance(recipe.data.validation, list):
        data["validation"] = recipe.data.validation
    # Other pseudonyms, or other people left out, make another dataset.
    secrets: dict[str, str | None] = {}
    if steps.privacy and steps.privacy[0] == "pseudonymize":
        secrets["key"] = fingerprint(steps.privacy[1])
    if steps.exclusions:
        secrets["exclusions"] = steps.exclusions.fingerprint
    return {
        "version": __version__,
        "kind": METHODS[recipe.method].record,
        "target": steps.target.name if steps.target else None,
        "data": data,
        "evaluation": recipe.evaluation.data,
        **secrets,
        "inputs": [
            {
                "name": one.name,
                "side": one.side.name.lower(),
                **one.source.model_dump(mode="json", exclude={"path"}),
                **_describe_windows(one.source, recipe.model),
                "files": [
                    {
                        "name": file.name,
                        "bytes": file.size(),
                        "sha256": sha256,
                        **_describe_images(file, recipe.method),
                    }
                    for file, sha256 in zip(one.files, one.digests, strict=True)
                ],
            }
            for one in inputs
        ],
    }


def _describe_images(file: SourceFile, method: str) -> dict[str, str]:
    """Return what identifies the images that may lie beside a file of conversations."""
    if METHODS[method].record != "chat" or file.member or not file.path.is_file():
        return {}
    with file.open() as stream:
        found = digest_images(open_stream(stream, file.name), file.path.parent)
    return {"images": found} if found else {}


def _describe_windows(source: Source, model: str) -> dict[str, str]:
    """Return what decides where documents are cut, beside the recipe."""
    if source.chunks.by != "window":
        return {}
    from finetune.tokens import load_tokenizer

    return {"tokenizer": load_tokenizer(model).sha256}
