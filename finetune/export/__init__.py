"""A run's model in other forms. EXPORTERS is the whole list."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from finetune.errors import UsageError
from finetune.progress import Progress, silent
from finetune.runs import Run
from finetune.text import did_you_mean

EXPORTERS: dict[str, str] = {
    "merged": "finetune.export.merged:export",
}


def export(run: Run, folder: Path, *, to: str, progress: Progress = silent) -> dict[str, Any]:
    """Write a run's model in another form.

    Args:
        run: A run that has ended training.
        folder: What is written; it must not be there yet.
        to: A name of EXPORTERS.
        progress: Told about the work.

    Returns:
        Figures about the result, such as how near it is to base and adapter.

    Raises:
        UsageError: Unknown form, the folder is there, or the run has no adapter.
        TrainingError: What was written does not say what base and adapter say.
    """
    if to not in EXPORTERS:
        raise UsageError(
            f"{to}: no such form",
            hint=did_you_mean(to, EXPORTERS) or f"there is: {', '.join(EXPORTERS)}",
        )
    if folder.exists():
        raise UsageError(f"{folder}: is there already", hint="name another folder")
    if not run.adapter.is_dir():
        raise UsageError(
            f"{run.folder}: has no adapter: its state is `{run.state['state']}`",
            hint="`finetune run` on the same recipe goes on",
        )
    module, function = EXPORTERS[to].split(":")
    facts: dict[str, Any] = getattr(importlib.import_module(module), function)(
        run, folder, progress=progress
    )
    return facts
