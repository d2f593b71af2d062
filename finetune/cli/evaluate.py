"""`finetune evaluate`: measure a run's model on held-out records."""

from __future__ import annotations

import click

from finetune.cli.console import Console, output_options
from finetune.cli.options import RUNS
from finetune.cli.run import show_measures


@click.command("evaluate")
@click.argument("run")
@output_options
def command(run: str, console: Console) -> None:
    """Measure a run's model beside its base on held-out records, and report."""
    from finetune import pipeline
    from finetune.runs import find_run

    found = find_run(run, RUNS)
    with found.lock(), console.progress() as progress:
        measures = pipeline.evaluate(found, progress=progress)
    console.emit(measures)
    console.name(found.folder.name)
    show_measures(console, measures)
    console.show(f"answers {found.folder / 'predictions.jsonl'}")
    console.show(f"report  {found.folder / 'report.html'}")
    console.next(f"finetune chat {found.folder.name}")
