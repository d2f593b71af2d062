"""`finetune run`: prepare, check, train, evaluate and report."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import click

from finetune.cli.console import Console, output_options
from finetune.cli.options import recipe_options, workers_option
from finetune.text import duration, sparkline


@click.command("run")
@recipe_options
@click.option("--run", "folder", type=click.Path(path_type=Path), help="Use this run folder.")
@click.option("--fresh", is_flag=True, help="Start over, whatever was done before.")
@workers_option
@output_options
def command(
    recipe: Path,
    overrides: tuple[str, ...],
    backend: str | None,
    *,
    folder: Path | None,
    fresh: bool,
    workers: int | None,
    console: Console,
) -> None:
    """Prepare, check, train, evaluate and report.

    The same command again goes on where it was interrupted, and says so when there is nothing
    left to do.
    """
    from finetune import pipeline
    from finetune.recipe import load_recipe

    started = dt.datetime.now(dt.UTC)
    loaded = load_recipe(recipe, overrides, backend=backend)
    with console.progress() as progress:
        run = pipeline.run(
            loaded, run_folder=folder, fresh=fresh, workers=workers, progress=progress
        )
    state = run.state
    evaluation = run.evaluation()
    console.emit(
        {
            "run": str(run.folder),
            "state": state["state"],
            "model": str(run.adapter),
            "evaluation": evaluation,
        }
    )
    console.name(run.folder)
    losses = [line["loss"] for line in run.metrics() if "loss" in line]
    if losses:
        console.show(f"loss    {sparkline(losses)}  {losses[0]:.3f} → {losses[-1]:.3f}")
    show_measures(console, evaluation)
    console.show(f"run     {run.folder}")
    console.show(f"report  {run.folder / 'report.html'}")
    if state["updated"] < started.isoformat(timespec="seconds"):
        console.say("done before: nothing left to do; `--fresh` starts over", style="green")
    else:
        passed = dt.datetime.now(dt.UTC) - started
        console.say(f"done in {duration(passed.total_seconds())}", style="green")
    console.next(f"finetune chat {run.folder.name}")


def show_measures(console: Console, evaluation: dict[str, Any] | None) -> None:
    """Print base beside tuned."""
    if not evaluation:
        return
    console.show(f"{evaluation['records']} held-out records      base    tuned   95 % interval")
    for name, tuned in evaluation["tuned"].items():
        base = evaluation["base"].get(name, {}).get("value")
        shown = f"{base:7.3f}" if base is not None else "      –"
        interval = f"[{tuned['low']:.3f}, {tuned['high']:.3f}]"
        console.show(f"  {name:<20} {shown}  {tuned['value']:7.3f}   {interval}")
    if evaluation.get("note"):
        console.show(f"  {evaluation['note']}")
