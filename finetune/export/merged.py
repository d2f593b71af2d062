"""One checkpoint without an adapter, for whatever serves transformers' checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finetune.backends.local.merge import merge
from finetune.backends.local.model import resolve_model
from finetune.export.card import write_card
from finetune.export.parity import compare_with_run
from finetune.progress import Progress
from finetune.runs import Run


def write(run: Run, folder: Path, *, progress: Progress) -> dict[str, Any]:
    """Write the merged checkpoint, and compare it with the run's base and adapter."""
    base = resolve_model(run.recipe.model, progress=progress)
    merge(base, run.tuned, folder, progress=progress)
    facts = compare_with_run(run, base, folder, progress=progress)
    write_card(run, folder, "merged", facts)
    return facts
