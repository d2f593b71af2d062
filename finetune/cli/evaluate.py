"""`finetune evaluate`: measure a run's model on held-out records."""

from __future__ import annotations

from pathlib import Path

import click

from finetune.cli.console import Console, output_options
from finetune.cli.options import RUNS
from finetune.cli.run import show_measures
from finetune.errors import UsageError


@click.command("evaluate")
@click.argument("run")
@click.option("--against", metavar="MODEL", help="Measure this run, adapter or model too.")
@click.option(
    "--api-key-file",
    "key_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Holds the key of the recipe's judge; Mistral's own gets MISTRAL_API_KEY without it.",
)
@output_options
def command(run: str, against: str | None, key_file: Path | None, console: Console) -> None:
    """Measure a run's model beside its base on held-out records, and report."""
    from finetune import pipeline
    from finetune.runs import find_run

    found = find_run(run, RUNS)
    key = read_key(key_file) if key_file else None
    with found.lock(), console.progress() as progress:
        measures = pipeline.evaluate(found, against=against, judge_key=key, progress=progress)
    console.emit(measures)
    console.name(found.folder.name)
    show_measures(console, measures)
    console.show(f"answers {found.folder / 'predictions.jsonl'}")
    console.show(f"report  {found.folder / 'report.html'}")
    console.next(f"finetune chat {found.folder.name}")


def read_key(path: Path) -> str:
    """Return the key in a file.

    Raises:
        UsageError: There is none.
    """
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as a key: {type(error).__name__}") from None
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(f"{path}: holds no key", hint="a key is one line without spaces")
    return key
