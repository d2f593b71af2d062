"""`finetune cancel`: stop a run; its state is saved."""

from __future__ import annotations

import click

from finetune.cli.console import Console, output_options
from finetune.cli.options import RUNS
from finetune.errors import RunError


@click.command("cancel")
@click.argument("run")
@output_options
def command(run: str, console: Console) -> None:
    """Stop a run at the end of its step; its state is saved."""
    from finetune.runs import find_run

    found = find_run(run, RUNS)
    if not found.cancel():
        raise RunError(f"{found.folder}: no process works on it ({found.state['state']})")
    console.emit({"run": str(found.folder), "asked": True})
    console.name(found.folder.name)
    console.say(f"{found.folder.name}: asked to stop at the end of its step")
    console.next(f"finetune show {found.folder.name}")
