"""`finetune report`: the HTML report of a run, or two runs compared."""

from __future__ import annotations

import click

from finetune.cli.console import Console, output_options
from finetune.cli.options import RUNS, suggest_use


@click.command("report")
@click.argument("run")
@click.argument("other", required=False)
@output_options
def command(run: str, other: str | None, console: Console) -> None:
    """Write the HTML report of a run, or compare two runs."""
    from finetune.report import write_comparison, write_report
    from finetune.runs import find_run

    found = find_run(run, RUNS)
    path = write_comparison(found, find_run(other, RUNS)) if other else write_report(found)
    console.emit({"run": str(found.folder), "report": str(path)})
    console.name(path)
    console.show(str(path))
    console.next(suggest_use(found))
