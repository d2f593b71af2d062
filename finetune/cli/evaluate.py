"""`finetune evaluate`: measure a run's model on held-out records."""

from __future__ import annotations

from pathlib import Path

import click

from finetune.cli.console import Console, output_options
from finetune.cli.options import RUNS, read_key, suggest_use
from finetune.cli.run import show_measures


@click.command("evaluate")
@click.argument("run")
@click.option(
    "--against",
    metavar="MODEL",
    help="Measure this run, adapter or model too; MODEL@URL is one behind an address.",
)
@click.option(
    "--api-key-file",
    "key_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Holds the key of the platform for a run there, else of the recipe's judge or of"
    " MODEL@URL; hosts of Mistral get MISTRAL_API_KEY without it.",
)
@output_options
def command(run: str, against: str | None, key_file: Path | None, console: Console) -> None:
    """Measure a run's model beside its base on held-out records, and report."""
    from finetune import pipeline
    from finetune.runs import find_run

    found = find_run(run, RUNS)
    key = read_key(key_file)
    # A key is for one host.
    there = found.state["backend"] == "platform"
    with found.lock(), console.progress() as progress:
        measures = pipeline.evaluate(
            found,
            against=against,
            key=key if there else None,
            judge_key=key.reveal() if key and not there else None,
            progress=progress,
        )
    console.emit(measures)
    console.name(found.folder.name)
    show_measures(console, measures)
    console.show(f"answers {found.folder / 'predictions.jsonl'}")
    console.show(f"report  {found.folder / 'report.html'}")
    console.next(suggest_use(found))
