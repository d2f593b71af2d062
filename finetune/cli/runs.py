"""`finetune runs`: the runs of this folder."""

from __future__ import annotations

import click

from finetune.cli.console import Console, output_options
from finetune.cli.options import RUNS


@click.command("runs")
@output_options
def command(console: Console) -> None:
    """List the runs of this folder, oldest first."""
    from finetune.runs import list_runs

    runs = list_runs(RUNS)
    console.emit([run.state for run in runs])
    for run in runs:
        state = run.state
        console.name(run.folder.name)
        evaluation = run.evaluation() or {}
        tuned = evaluation.get("tuned", {})
        measure = next((f"{name} {tuned[name]['value']:.3f}" for name in tuned), "")
        row = (run.folder.name, f"{state['state']:<11}", state["model"], state["method"], measure)
        console.show("  ".join(row))
    if not runs:
        console.say("no runs here")
    console.next("finetune show last" if runs else "finetune run RECIPE")
