"""`finetune prepare`: only the dataset."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from finetune.cli.console import Console, output_options
from finetune.cli.options import recipe_options
from finetune.text import plural


@click.command("prepare")
@recipe_options
@output_options
def command(
    recipe: Path, overrides: tuple[str, ...], backend: str | None, *, console: Console
) -> None:
    """Make the dataset of a recipe, or find it where nothing has changed since."""
    from finetune import pipeline
    from finetune.recipe import load_recipe

    loaded = load_recipe(recipe, overrides, backend=backend)
    with console.progress() as progress:
        dataset = pipeline.prepare(loaded, progress=progress)
    manifest = dataset.manifest
    console.emit({"folder": str(dataset.folder), **manifest})
    console.name(dataset.folder)
    rows, records = manifest["rows"], manifest["records"]
    console.show(
        f"rows     {rows['read']:,} read = {rows['converted']:,} converted"
        f" + {rows['rejected']:,} rejected"
    )
    console.show(
        f"records  {records['made']:,} made = {records['written']:,} written"
        f" + {records['rejected']:,} rejected + {records['removed']:,} removed"
    )
    for rule, count in manifest["by_rule"].items():
        console.show(f"  {count:>7,}  {rule}")
    for source in manifest["sources"]:
        for file in source["files"]:
            console.show(f"{file['name']}: {file['format']}: {file['reason']}")
    for key, count in manifest["unused"].items():
        console.show(f"`{key}` was not used ({plural(count, 'row')})")
    for name, facts in manifest["files"].items():
        if "records" in facts:
            console.show(f"{facts['records']:>9,}  {dataset.folder / name}")
    console.next(f"finetune run {shlex.quote(str(recipe))}")
