"""`finetune run`: prepare, check, train, evaluate and report."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from finetune.cli.console import Console, output_options
from finetune.cli.options import (
    ask_person,
    key_option,
    read_key,
    recipe_options,
    suggest_use,
    workers_option,
    yes_option,
)
from finetune.text import duration, sparkline

if TYPE_CHECKING:
    from finetune.runs import Run


@click.command("run")
@recipe_options
@click.option("--run", "folder", type=click.Path(path_type=Path), help="Use this run folder.")
@click.option("--fresh", is_flag=True, help="Start over, whatever was done before.")
@workers_option
@key_option
@yes_option
@output_options
def command(
    recipe: Path,
    overrides: tuple[str, ...],
    backend: str | None,
    *,
    folder: Path | None,
    fresh: bool,
    workers: int | None,
    key_file: Path | None,
    yes: bool,
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
            loaded,
            run_folder=folder,
            fresh=fresh,
            workers=workers,
            key=read_key(key_file),
            confirm=ask_person(yes=yes),
            progress=progress,
        )
    state = run.state
    evaluation = run.evaluation()
    console.emit(
        {
            "run": str(run.folder),
            "state": state["state"],
            "model": str(run.tuned) if run.tuned.is_dir() else run.model,
            "evaluation": evaluation,
            "speed": state.get("speed"),
        }
    )
    console.name(run.folder)
    _show_run(console, run)
    if state["updated"] < started.isoformat(timespec="milliseconds"):
        console.say("done before: nothing left to do; `--fresh` starts over", style="green")
    else:
        passed = dt.datetime.now(dt.UTC) - started
        console.say(f"done in {duration(passed.total_seconds())}", style="green")
    console.next(suggest_use(run))


def _show_run(console: Console, run: Run) -> None:
    from finetune.report.page import describe_training
    from finetune.runs import describe_speed

    losses = [line["loss"] for line in run.metrics() if "loss" in line]
    if losses:
        console.show(f"loss    {sparkline(losses)}  {losses[0]:.3f} → {losses[-1]:.3f}")
    if notes := describe_training(run.state):
        console.show(f"trained {notes}")
    show_measures(console, run.evaluation())
    for event in run.events():
        if event["event"] == "unmeasured":
            what = event.get("model", "the tuned model")
            console.say(f"not measured: {what}: {event['reason']}", style="yellow")
    if run.state.get("speed"):
        console.show(f"speed   {describe_speed(run.state['speed'])}")
    console.show(f"run     {run.folder}")
    console.show(f"report  {run.folder / 'report.html'}")


def show_measures(console: Console, evaluation: dict[str, Any] | None) -> None:
    """Print base beside tuned."""
    if not evaluation:
        return
    against = evaluation.get("against")
    last = "  against" if against else ""
    console.show(
        f"{evaluation['records']} held-out records      base    tuned   95 % interval   {last}"
    )
    for name, tuned in evaluation["tuned"].items():
        base = _value(evaluation["base"], name)
        interval = f"[{tuned['low']:.3f}, {tuned['high']:.3f}]"
        other = f"  {_value(against, name)}" if against else ""
        console.show(f"  {name:<20} {base}  {tuned['value']:7.3f}   {interval:<16}{other}".rstrip())
    if against:
        console.show(f"  against {evaluation['against_name']}")
    if evaluation.get("note"):
        console.show(f"  {evaluation['note']}")
    verdict = evaluation.get("judge", {})
    if "error" in verdict:
        console.say(f"not judged: {verdict['error']}", style="yellow")
    elif verdict:
        console.show(
            f"judge   {verdict['model']} at {verdict['host']}: tuned {verdict['tuned']},"
            f" base {verdict['base']}, tie {verdict['tie']},"
            f" turns with the order {verdict['inconsistent']}, unreadable {verdict['unreadable']},"
            f" withheld {verdict['withheld']} of {verdict['pairs']}"
        )


def _value(measures: dict[str, Any], name: str) -> str:
    return f"{measures[name]['value']:7.3f}" if name in measures else "      –"
