"""`finetune cancel`: stop a run; its state is saved."""

from __future__ import annotations

from pathlib import Path

import click

from finetune.cli.console import Console, output_options
from finetune.cli.options import RUNS, call_run, key_option, read_key
from finetune.errors import RunError
from finetune.text import safe


@click.command("cancel")
@click.argument("run")
@key_option
@output_options
def command(run: str, key_file: Path | None, console: Console) -> None:
    """Stop a run: at the end of its step, or its job on the platform."""
    from finetune.runs import FINISHED, find_run

    found = find_run(run, RUNS)
    if found.state["backend"] == "platform" and found.state["state"] not in FINISHED:
        from finetune.backends import platform

        status = platform.cancel(found, key=read_key(key_file))
        console.emit({"run": str(found.folder), "asked": True})
        console.name(found.folder.name)
        console.say(f"{found.folder.name}: {safe(status)}")
        console.next(f"finetune show {call_run(found)}")
        return
    if not found.cancel():
        raise RunError(f"{found.folder}: no process works on it ({found.state['state']})")
    console.emit({"run": str(found.folder), "asked": True})
    console.name(found.folder.name)
    console.say(f"{found.folder.name}: asked to stop at the end of its step")
    console.next(f"finetune show {call_run(found)}")
