"""Options that several commands share."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from finetune.backends.platform.access import Key
    from finetune.runs import Run

RUNS = Path("runs")
MAX_WORKERS = 64  # each is an interpreter of its own


def call_run(run: Run) -> str:
    """Return what RUN on the command line may be: its name, or its path where it lies elsewhere."""
    here = run.folder.resolve().parent == RUNS.resolve()
    return shlex.quote(run.folder.name if here else str(run.folder))


def suggest_use(run: Run) -> str:
    """Return the command that puts a question to a run's model."""
    verb = "classify" if run.state["method"] == "classifier" else "chat"
    return f"finetune {verb} {call_run(run)}"


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add RECIPE, `-s key=value` and `--backend`: arguments `recipe`, `overrides`, `backend`."""
    for decorate in (
        click.option("--backend", type=click.Choice(["local", "platform"]), help="Where to train."),
        click.option(
            "-s",
            "--set",
            "overrides",
            multiple=True,
            metavar="KEY=VALUE",
            help="Change one value of the recipe, such as training.epochs=1.",
        ),
        click.argument("recipe", type=click.Path(path_type=Path)),
    ):
        command = decorate(command)
    return command


def workers_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--workers N`, which gives the argument `workers`."""
    decorate = click.option(
        "--workers",
        type=click.IntRange(1, MAX_WORKERS),
        metavar="N",
        help="Processes that convert the data; else as many as their size deserves.",
    )
    return decorate(command)


def key_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--api-key-file FILE`, which gives the argument `key_file`."""
    decorate = click.option(
        "--api-key-file",
        "key_file",
        type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
        help="Holds the platform's key (`-`: standard input); else MISTRAL_API_KEY.",
    )
    return decorate(command)


def yes_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--yes`, which gives the argument `yes`."""
    return click.option("--yes", is_flag=True, help="Do not ask.")(command)


def read_key(path: Path | None) -> Key | None:
    """Return the key that `--api-key-file` names, None where it names none."""
    from finetune.backends.platform import access

    if path is None:
        return None
    if str(path) == "-":
        return access.Key(sys.stdin.readline(), "stdin")
    return access.read_key(path)


def ask_person(*, yes: bool) -> Callable[[str], bool] | None:
    """Return what asks before money is spent: `--yes`, or whoever sits at the terminal."""
    if yes:
        return lambda _: True
    if not sys.stdin.isatty():
        return None
    return lambda question: click.confirm(question, err=True)
