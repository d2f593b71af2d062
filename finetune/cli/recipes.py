"""`finetune recipes`: the recipes that come with the package."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import click

from finetune.catalog import HOST
from finetune.cli.console import Console, output_options
from finetune.cli.options import key_option, read_key
from finetune.errors import UsageError
from finetune.files import slug, to_json, write_atomic
from finetune.shipped import shipped_folder
from finetune.text import did_you_mean, safe

_JOB = re.compile(r"[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}")


@click.command("recipes")
@click.argument("action", type=click.Choice(["list", "copy", "import"]), default="list")
@click.argument("name", required=False)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="`import`: the recipe.")
@click.option("--host", default=HOST, show_default=True, help="`import`: where a job's id is.")
@key_option
@output_options
def command(
    action: str,
    name: str | None,
    output: Path | None,
    host: str,
    key_file: Path | None,
    console: Console,
) -> None:
    """List the shipped recipes, copy one here with its data, or make one of something else.

    `recipes copy NAME` copies. `recipes import JOB` takes a job of La Plateforme (its id, or a file
    of `platform backup` or `platform jobs show --json`) or a config of mistral-finetune, and names
    what has no equal.
    """
    if action == "import":
        _import(name, output, host, key_file, console)
        return
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


def _import(
    name: str | None, output: Path | None, host: str, key_file: Path | None, console: Console
) -> None:
    from finetune.recipe.foreign import import_settings
    from finetune.recipe.source import read_document

    if name is None:
        raise UsageError("import: name a job or a file")
    path = Path(name)
    if not path.is_file() and not _JOB.fullmatch(name):
        raise UsageError(
            f"{name}: no such file, and no job's id", hint="`finetune platform jobs list` lists ids"
        )
    values = read_document(path).values if path.is_file() else _fetch(name, host, key_file)
    target = output or Path(f"{slug(path.stem)}.yaml")
    if target.exists():
        raise UsageError(f"{target}: is there already", hint="name another file with -o")
    near = path.parent.parent / "files"  # where `platform backup` puts them
    folder = target.parent.resolve()
    files = {
        file.stem: os.path.relpath(content, folder)
        for file in near.glob("*.json")
        for content in near.glob(f"{file.stem}-*")
    }
    elsewhere = None if path.is_file() or host == HOST else host
    made = import_settings(values, files, elsewhere)
    header = [f"# Made from {path.name} by `finetune recipes import`."]
    header += [f"# {safe(note)}" for note in made.notes]
    body = to_json(made.settings, indent=True).decode()  # JSON is YAML
    write_atomic(target, ("\n".join(header) + "\n" + body).encode())
    console.emit({"recipe": str(target), "notes": made.notes})
    console.name(target)
    for note in made.notes:
        console.say(f"note: {safe(note)}", style="yellow")
    console.say(f"wrote {target}")
    console.next(f"finetune plan {shlex.quote(str(target))}")


def _fetch(job: str, host: str, key_file: Path | None) -> dict[str, Any]:
    from finetune.backends.platform import open_client
    from finetune.backends.platform.access import read_address

    with open_client(read_address(host, place="--host"), read_key(key_file)) as client:
        return client.get_job(job).raw


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
    console.next(f"finetune plan {shlex.quote(str(target))}")
