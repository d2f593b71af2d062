"""`finetune watch`: follow a run from another terminal; it only reads."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from finetune.cli.console import Console, describe, output_options
from finetune.cli.options import RUNS, call_run, key_option, read_key
from finetune.errors import RunError, TrainingError
from finetune.text import safe

if TYPE_CHECKING:
    from finetune.backends.platform.access import Key
    from finetune.runs import Run

POLL_SECONDS = 0.5


@click.command("watch")
@click.argument("run")
@key_option
@output_options
def command(run: str, key_file: Path | None, console: Console) -> None:
    """Follow a run until it ends; Ctrl-C stops watching, not the run.

    Exits 6 when the run failed or was cancelled.
    """
    from finetune.runs import FINISHED, find_run

    found = find_run(run, RUNS)
    state = found.state
    detached = state["backend"] == "platform" and state["state"] not in FINISHED
    if detached and found.worker() is None:
        _watch_job(found, read_key(key_file), console)
        return
    shown, last_state = -1, ""
    while True:
        state = found.state
        alive = found.worker() is not None
        if state["state"] != last_state:
            last_state = state["state"]
            console.say(f"{found.folder.name}: {last_state}")
        for line in found.metrics():
            if line["step"] > shown:
                shown = line["step"]
                console.emit(line)
                facts = (describe(name, value) for name, value in line.items() if name != "step")
                console.show(f"step {shown}: {', '.join(facts)}")
        if last_state in FINISHED or not alive:
            break
        time.sleep(POLL_SECONDS)
    console.name(found.folder.name)
    if last_state == "done":
        console.next(f"finetune report {call_run(found)}")
    elif last_state in FINISHED:
        raise TrainingError(
            f"{found.folder}: {last_state}: {state['error'] or 'no reason noted'}",
            hint="`finetune run` with the same recipe goes on",
        )
    else:
        raise RunError(
            f"{found.folder}: {last_state}, but no process works on it",
            hint="`finetune run` with the same recipe goes on",
        )


def _watch_job(found: Run, key: Key | None, console: Console) -> None:
    """Follow the job of a run that nobody works on."""
    from finetune.backends import platform
    from finetune.backends.platform.replies import read_checkpoint

    shown, status = -1, ""
    for job in platform.follow(found, key=key):
        if job.status != status:
            status = job.status
            console.say(f"{found.folder.name}: job {safe(job.id)} {safe(status.lower())}")
        for line in map(read_checkpoint, job.checkpoints or []):
            if line.get("step", -1) > shown:
                shown = line["step"]
                console.emit(line)
                facts = (describe(name, value) for name, value in line.items() if name != "step")
                console.show(f"step {shown}: {', '.join(facts)}")
    console.name(found.folder.name)
    if status != "SUCCESS":
        raise TrainingError(
            f"{found.folder}: job {safe(status.lower())}",
            hint="`finetune run` with the same recipe says why",
        )
    console.next("finetune run RECIPE, which notes its model and measures it")
