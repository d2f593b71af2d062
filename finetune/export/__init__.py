"""A run's model in other forms. EXPORTERS is the whole list."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from finetune.backends.local.base import check_adapter
from finetune.backends.local.model import is_adapter
from finetune.errors import UsageError
from finetune.files import sync_file, sync_folder
from finetune.progress import Progress, silent
from finetune.runs import Run
from finetune.text import did_you_mean

# Each is `write(run, folder, *, progress, **options)`: it fills an empty folder, and gives figures.
EXPORTERS: dict[str, str] = {
    "merged": "finetune.export.merged:write",
    "consolidated": "finetune.export.consolidated:write",
    "adapter": "finetune.export.adapter:write",
    "lora": "finetune.export.lora:write",
    "gguf": "finetune.export.gguf:write",
    "ollama": "finetune.export.ollama:write",
    "vllm": "finetune.export.vllm:write",
    "hub": "finetune.export.hub:write",
}
_OF_ADAPTERS = ("adapter", "lora", "vllm", "hub")


def export(
    run: Run,
    folder: Path,
    *,
    to: str,
    options: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Write a run's model in another form.

    Args:
        run: A run that has ended training.
        folder: What is written; it must not be there yet, and is whole once it is.
        to: A name of EXPORTERS.
        options: What this form takes, by name.
        progress: Told about the work.

    Returns:
        Figures about the result, such as how near it is to base and adapter; `bytes` written;
        `command` where there is one that uses it.

    Raises:
        UsageError: Unknown form or option, the folder is there, the run has no tuned model or one
            of another base, or the form cannot hold the model.
        TrainingError: What was written does not say what base and adapter say.
    """
    if to not in EXPORTERS:
        raise UsageError(
            f"{to}: no such form",
            hint=did_you_mean(to, EXPORTERS) or f"there is: {', '.join(EXPORTERS)}",
        )
    module, function = EXPORTERS[to].split(":")
    write = getattr(importlib.import_module(module), function)
    for name in options or ():
        if name not in inspect.signature(write).parameters:
            raise UsageError(f"{to}: this form has no option `{name}`")
    if folder.exists():
        raise UsageError(f"{folder}: is there already", hint="name another folder")
    if not run.tuned.is_dir():
        raise UsageError(
            f"{run.folder}: has no tuned model: its state is `{run.state['state']}`",
            hint=run.find_remedy(),
        )
    if run.recipe.method == "classifier" and to != "adapter":
        raise UsageError(
            f"{to}: this form holds language models, and the run's model is a classifier",
            hint="`--to adapter` writes adapter and head",
        )
    if to in _OF_ADAPTERS and not is_adapter(run.tuned):
        raise UsageError(
            f"{to}: this form holds adapters, and the run trained all weights of its model",
            hint="`--to merged` writes the model, as do `consolidated`, `gguf` and `ollama`",
        )
    check_adapter(run.tuned, run.recipe.model)
    with _whole(folder) as temporary:
        facts: dict[str, Any] = write(run, temporary, progress=progress, **(options or {}))
    if "command" in facts:
        facts["command"] = facts["command"].format(folder=shlex.quote(str(folder)))
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {**facts, "bytes": size}


@contextlib.contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """Give a folder that gets its final name only when the block ends well."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    parent = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        temporary = parent / folder.name
        temporary.mkdir()
        yield temporary
        for path in temporary.rglob("*"):
            if path.is_file():
                sync_file(path)
        temporary.rename(folder)
        sync_folder(folder.parent)
    except Exception as error:
        # safetensors tells the system's error in its text alone.
        found = re.search(r"\(os error (\d+)\)", str(error))
        if found is None or type(error).__name__ != "SafetensorError":
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number), str(folder)) from None
    finally:
        shutil.rmtree(parent, ignore_errors=True)
