"""`finetune privacy`: find a person's data in datasets and runs, and erase them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from finetune.cli.console import Console, output_options
from finetune.cli.options import RUNS
from finetune.errors import ConfirmationNeeded, UsageError
from finetune.text import plural

if TYPE_CHECKING:
    from finetune.erasure import Found

_SHOWN = 20  # records shown of each dataset

_subject = click.option(
    "--subject",
    required=True,
    metavar="EMAIL|ID|FILE",
    help="What the person is known by; a file holds one value a line, `-` is stdin.",
)


@click.group("privacy")
def command() -> None:
    """Find a person's data in datasets and runs, or erase them."""


@command.command("find")
@_subject
@output_options
def find(subject: str, *, console: Console) -> None:
    """List the records, datasets, runs, adapters and remote files that hold a person's data."""
    found = _find(_read(subject))
    console.emit({**_to_dict(found), "erased": False})
    _show(found, console)
    console.next("finetune privacy erase --subject …" if found.concerned else "finetune runs")


@command.command("erase")
@_subject
@click.option("--yes", is_flag=True, help="Do not ask.")
@output_options
def erase(subject: str, *, yes: bool, console: Console) -> None:
    """Delete the datasets that hold a person's data, and keep the person out of later ones."""
    from finetune.erasure import erase_subject

    values = _read(subject)
    found = _find(values)
    _show(found, console)
    _confirm(found, yes=yes)
    erase_subject(found, values)
    console.emit({**_to_dict(found), "erased": True})
    for dataset in found.concerned:
        console.say(f"deleted {_short(dataset.folder)}")
    for one in found.runs:
        if one.adapter or one.tuned_model:
            console.say(f"retrain {one.run.folder.name}: {one.tuned_model or _short(one.adapter)}")
        for file in one.remote_files:
            console.say(f"delete the remote file {file} (uploaded by {one.run.folder.name})")
    console.say("the person is on the exclusion list: `prepare` leaves their records out")
    console.say("sources, backups and copies elsewhere are yours to clean")
    console.next("finetune run RECIPE")


def _read(subject: str) -> list[str]:
    from finetune.erasure import read_subject

    if subject != "-":
        return read_subject(subject)
    values = [line.strip() for line in sys.stdin if line.strip()]
    if not values:
        raise UsageError("stdin: no value in it", hint="one value a line")
    return values


def _find(values: list[str]) -> Found:
    from finetune.erasure import find_subject
    from finetune.pipeline import DATASETS

    return find_subject(values, datasets=DATASETS, runs=RUNS)


def _to_dict(found: Found) -> dict[str, object]:
    return {
        "datasets": [one.to_dict() for one in found.datasets],
        "runs": [one.to_dict() for one in found.runs],
    }


def _show(found: Found, console: Console) -> None:
    for dataset in found.datasets:
        folder = _short(dataset.folder)
        count = len(dataset.places)
        console.show(f"{folder}: {plural(count, 'record')} (searched: {dataset.searched})")
        for place in dataset.places[:_SHOWN]:
            console.name(f"{folder}/{place.file}:{place.line}")
            sure = "" if place.certain else "  (or somebody with the same pseudonym)"
            origin = f"{place.source_file}:{place.row}" if place.source_file else "origin unknown"
            console.show(f"  {place.file}:{place.line}  from {origin}{sure}")
        if count > _SHOWN:
            console.show(f"  … and {count - _SHOWN:,} more: `--json` lists them")
    for one in found.runs:
        made = one.tuned_model or (_short(one.adapter) if one.adapter else "nothing trained")
        console.show(f"{_short(one.run.folder)}: {one.run.state['state']}, {made}")
        for number in one.predictions[:_SHOWN]:
            console.show(f"  predictions.jsonl:{number}")
        for file in one.remote_files:
            console.show(f"  remote file {file}")
    if not found.datasets:
        console.say("no datasets here")


def _confirm(found: Found, *, yes: bool) -> None:
    if yes:
        return
    what = f"{plural(len(found.concerned), 'dataset')} deleted, the person excluded from now on"
    if not sys.stdin.isatty():
        raise ConfirmationNeeded(what, hint="add `--yes`")
    if not click.confirm(f"{what}: go on?", err=True):
        raise click.Abort


def _short(path: Path | None) -> str:
    if path is None:
        return ""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
