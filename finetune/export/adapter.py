"""The adapter as PEFT and vLLM load it: the run's own folder, whole, with its base named."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from finetune.errors import UsageError
from finetune.export.card import reference, write_card
from finetune.files import digest, read_json, to_json, write_atomic
from finetune.progress import Progress
from finetune.runs import Run

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def write(run: Run, folder: Path, *, progress: Progress) -> dict[str, Any]:
    """Copy the adapter: its weights as they are, its config with the base's public name.

    Raises:
        UsageError: It is not in safetensors.
    """
    source = run.adapter / WEIGHTS
    if not source.is_file():
        raise UsageError(f"{run.adapter}: no `{WEIGHTS}` here")
    progress("copy", 0)
    for file in [source, *sorted(run.adapter.glob("classifier.*"))]:
        shutil.copyfile(file, folder / file.name)
        if digest(file) != digest(folder / file.name):
            raise UsageError(f"{folder}: the copy differs from {file}", hint="run it again")
    config = read_json(run.adapter / CONFIG)
    name = reference(run)
    write_atomic(folder / CONFIG, to_json({**config, "base_model_name_or_path": name}, indent=True))
    write_card(run, folder, "a LoRA adapter for PEFT", {})
    return {"rank": config["r"]}
