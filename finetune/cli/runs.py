"""`finetune runs`: the runs of this folder."""

from __future__ import annotations

from collections import Counter

import click

from finetune.cli.console import Console, output_options
from finetune.cli.options import RUNS
from finetune.text import money, safe


@click.command("runs")
@output_options
def command(console: Console) -> None:
    """List the runs of this folder, oldest first."""
    from finetune.runs import list_runs

    runs = list_runs(RUNS)
    console.emit([run.state for run in runs])
    total: Counter[str] = Counter()
    for run in runs:
        state = run.state
        console.name(run.folder.name)
        evaluation = run.evaluation() or {}
        tuned = evaluation.get("tuned", {})
        measure = next((f"{name} {tuned[name]['value']:.3f}" for name in tuned), "")
        spent = state.get("spent") or {}
        price = ""
        if spent.get("amount"):
            price = money(spent["amount"], spent["currency"])
            total[spent["currency"]] += spent["amount"]
        row = (run.folder.name, f"{state['state']:<11}", state["model"], state["method"])
        console.show("  ".join(filter(None, (*row, price, measure))))
    if total:
        sums = ", ".join(money(amount, currency) for currency, amount in total.items())
        console.show(f"spent on the platform: {safe(sums)}")
    if not runs:
        console.say("no runs here")
    console.next("finetune show last" if runs else "finetune run RECIPE")
