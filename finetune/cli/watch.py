"""`finetune watch`: follow a run from another terminal; it only reads."""

from __future__ import annotations

import time

import click

from finetune.cli.console import Console, describe, output_options
from finetune.cli.options import RUNS
from finetune.errors import RunError, TrainingError

POLL_SECONDS = 0.5


@click.command("watch")
@click.argument("run")
@output_options
def command(run: str, console: Console) -> None:
    """Follow a run until it ends; Ctrl-C stops watching, not the run.

    Exits 6 when the run failed or was cancelled.
    """
    from finetune.runs import FINISHED, find_run

    found = find_run(run, RUNS)
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
        console.next(f"finetune report {found.folder.name}")
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
