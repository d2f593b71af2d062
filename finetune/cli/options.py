"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

RUNS = Path("runs")


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
        type=click.IntRange(min=1),
        metavar="N",
        help="Processes that convert the data; else as many as their size deserves.",
    )
    return decorate(command)
