"""`finetune show`: one run."""

from __future__ import annotations

import click

from finetune.cli.console import Console, output_options
from finetune.cli.options import RUNS, call_run, suggest_use
from finetune.cli.run import show_measures
from finetune.text import money, safe, sparkline


@click.command("show")
@click.argument("run")
@output_options
def command(run: str, console: Console) -> None:
    """Show one run: a path, a name, a unique prefix, or `last`."""
    from finetune.runs import describe_speed, find_run

    found = find_run(run, RUNS)
    state = found.state
    console.emit(state)
    console.name(found.folder.name)
    for key in ("state", "error", "model", "method", "backend", "created", "updated", "identity"):
        if state.get(key) is not None:
            console.show(f"{key:<9} {state[key]}")
    for name, key in (("job", "job"), ("host", "host"), ("tuned", "tuned_model")):
        if state.get(key):
            console.show(f"{name:<9} {safe(state[key])}")
    spent = state.get("spent") or {}
    if spent.get("amount") is not None:
        console.show(f"{'spent':<9} {safe(money(spent['amount'], spent['currency']))}")
    console.show(f"{'dataset':<9} {found.dataset}")
    metrics = [line for line in found.metrics() if "loss" in line]
    if metrics:
        losses = [line["loss"] for line in metrics]
        console.show(f"{'step':<9} {metrics[-1]['step']}")
        console.show(f"{'loss':<9} {sparkline(losses)}  {losses[0]:.3f} → {losses[-1]:.3f}")
    if state.get("speed"):
        console.show(f"{'speed':<9} {describe_speed(state['speed'])}")
    show_measures(console, found.evaluation())
    if state["state"] == "done":
        console.next(suggest_use(found))
    else:
        works = state["backend"] == "platform" or found.worker() is not None
        console.next(f"finetune watch {call_run(found)}" if works else "finetune run RECIPE")
