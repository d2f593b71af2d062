"""`finetune recipes`: the recipes that come with the package."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from finetune.cli.console import Console, output_options
from finetune.errors import UsageError
from finetune.shipped import shipped_folder
from finetune.text import did_you_mean


@click.command("recipes")
@click.argument("action", type=click.Choice(["list", "copy"]), default="list")
@click.argument("name", required=False)
@output_options
def command(action: str, name: str | None, console: Console) -> None:
    """List the shipped recipes, or copy one here with its data: `recipes copy NAME`."""
    folder = shipped_folder("recipes")
    recipes = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    if action == "copy":
        _copy(name, recipes, console)
        return
    rows = [{"name": name, "summary": summarize(path)} for name, path in recipes.items()]
    console.emit(rows)
    for row in rows:
        console.name(row["name"])
        console.show(f"{row['name']:<22} {row['summary']}")
    console.next("finetune recipes copy quickstart")


def summarize(path: Path) -> str:
    """Return the first sentence of a recipe's header: its first comment after the modeline."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comments = [line.removeprefix("#").strip() for line in lines if line.startswith("#")]
    return next((line for line in comments if line and "yaml-language-server" not in line), "")


def _copy(name: str | None, recipes: dict[str, Path], console: Console) -> None:
    if name is None or name not in recipes:
        raise UsageError(
            f"{name or 'copy'}: no such recipe",
            hint=did_you_mean(name or "", recipes) or f"known: {', '.join(recipes)}",
        )
    source, target = recipes[name], Path(f"{name}.yaml")
    data = source.parent / "data"
    taken = [path for path in (target, Path("data")) if path.exists()]
    if taken:
        raise UsageError(f"{taken[0]}: is there already", hint="copy into an empty folder")
    text = source.read_text(encoding="utf-8")
    # The copy has no schema folder beside it; the installed one is named instead.
    text = text.replace("../data_schemas/", f"{shipped_folder('data_schemas').resolve()}/")
    if "data/" in text:
        shutil.copytree(data, "data")
    target.write_text(text, encoding="utf-8")
    console.emit({"recipe": str(target)})
    console.name(target)
    console.say(f"copied {target}")
    console.next(f"finetune plan {target}")
