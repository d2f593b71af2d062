"""`finetune prepare`: only the dataset."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from finetune.checks.profile import PERCENTILES
from finetune.cli.console import Console, output_options
from finetune.cli.options import recipe_options, workers_option
from finetune.text import plural, safe, visible

_SHOWN = 8  # figures of one line


@click.command("prepare")
@recipe_options
@workers_option
@output_options
def command(
    recipe: Path,
    overrides: tuple[str, ...],
    backend: str | None,
    *,
    workers: int | None,
    console: Console,
) -> None:
    """Make the dataset of a recipe, or find it where nothing has changed since."""
    from finetune import pipeline
    from finetune.recipe import load_recipe
    from finetune.report import count_lengths, write_data_report

    loaded = load_recipe(recipe, overrides, backend=backend)
    with console.progress() as progress:
        dataset = pipeline.prepare(loaded, workers=workers, progress=progress)
    manifest = dataset.manifest
    lengths = count_lengths(loaded, dataset).to_dict(loaded.training.seq_len)
    page = write_data_report(loaded, dataset)
    told = {"folder": str(dataset.folder), "report": str(page)}
    console.emit(told | {"manifest": manifest, "lengths": lengths})
    console.name(dataset.folder)
    rows, records = manifest["rows"], manifest["records"]
    console.show(
        f"rows     {rows['read']:,} read = {rows['converted']:,} converted"
        f" + {rows['rejected']:,} rejected"
    )
    console.show(
        f"records  {records['made']:,} made = {records['written']:,} written"
        f" + {records['rejected']:,} rejected + {records['removed']:,} removed"
    )
    for rule, count in manifest["by_rule"].items():
        console.show(f"  {count:>7,}  {rule}")
    for source in manifest["sources"]:
        for file in source["files"]:
            name = visible(file["name"], 200)
            console.show(f"{name}: {file['format']}: {file['reason']}")
    for key, count in manifest["unused"].items():
        console.show(f"`{visible(key)}` was not used ({plural(count, 'row')})")
    for note in manifest["notes"]:
        console.show(f"warning: {safe(note['message'])}  [{note['rule']}]", style="yellow")
    for name, facts in manifest["files"].items():
        if "records" in facts:
            console.show(f"{facts['records']:>9,}  {dataset.folder / name}")
    _tell_privacy(console, manifest.get("privacy"))
    _tell_profile(console, manifest["profile"], lengths)
    console.show(f"more in {page}")
    console.next(f"finetune run {shlex.quote(str(recipe))}")


def _tell_privacy(console: Console, section: dict[str, Any] | None) -> None:
    """Show what was found of personal data, and what was not looked for."""
    if section is None:
        return
    counts = {kind: sum(fields.values()) for kind, fields in section["counts"].items()}
    shown = ", ".join(f"{kind} ×{count:,}" for kind, count in counts.items())
    console.show(f"privacy    {section['mode']}: {shown or 'nothing found'}")
    console.show(f"           names that no known column gives: {section['other_names']}")
    if section["mode"] == "pseudonymize":
        console.show("           pseudonymized data remain personal data")


def _tell_profile(console: Console, profile: dict[str, Any], lengths: dict[str, Any]) -> None:
    """Show what the training records look like, a line a figure."""
    if "missing" in lengths:
        console.show(f"tokens     not counted: {lengths['missing']}")
    else:
        places = ", ".join(f"{name} {lengths[name]:,}" for name, _ in PERCENTILES)
        over = lengths["over_seq_len"]
        lost = f"; {over:,} beyond seq_len, by {lengths['tokens_over']:,} tokens" if over else ""
        console.show(f"tokens     {places}{lost}")
    for name in ("turns", "languages", "calls"):
        if counts := profile.get(name):
            shown = ", ".join(f"{key} ×{n:,}" for key, n in list(counts.items())[:_SHOWN])
            console.show(f"{name:<10} {safe(shown)}")
    for target, counts in profile["labels"].items():
        shown = ", ".join(f"{label} ×{n:,}" for label, n in list(counts.items())[:_SHOWN])
        console.show(f"{safe(target):<10} {safe(shown)}")
