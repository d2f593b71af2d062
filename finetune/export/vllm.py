"""vLLM: the adapter, and the line that serves it on its base."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from finetune.backends.local.model import resolve_model
from finetune.catalog import find_model
from finetune.errors import UsageError
from finetune.export import adapter
from finetune.files import read_json, slug, write_atomic
from finetune.progress import Progress
from finetune.runs import Run
from finetune.tokens import load_tokenizer

# What `--max-lora-rank` takes (vLLM 0.11, its config for LoRA, read 2026-11-23).
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
# What an adapter may hold that vLLM does not compute.
_UNSERVED = ("use_dora", "modules_to_save", "bias", "target_parameters")


def write(run: Run, folder: Path, *, progress: Progress) -> dict[str, Any]:
    """Write the adapter and `serve.sh`.

    Raises:
        UsageError: vLLM does not serve adapters of this kind.
    """
    config = read_json(run.adapter / adapter.CONFIG)
    for key in _UNSERVED:
        if config.get(key) not in (None, False, [], "none"):
            raise UsageError(
                f"{run.adapter}: vLLM does not serve adapters with `{key}`",
                hint="`--to merged` can be served without an adapter",
            )
    rank = max([config["r"], *(config.get("rank_pattern") or {}).values()])
    if rank > _RANKS[-1]:
        raise UsageError(f"{run.adapter}: vLLM serves adapters up to rank {_RANKS[-1]}: {rank}")
    base = resolve_model(run.recipe.model, progress=progress)
    facts = adapter.write(run, folder, progress=progress)
    arguments = ["vllm", "serve", _name(run, base), "--host", "127.0.0.1"]
    if load_tokenizer(base).version != "hf":  # trained on mistral-common's tokens, served on them
        arguments += ["--tokenizer-mode", "mistral"]
    arguments += ["--max-model-len", str(run.recipe.training.seq_len), "--enable-lora"]
    arguments += ["--max-lora-rank", str(next(limit for limit in _RANKS if limit >= rank))]
    line = shlex.join([*arguments, "--lora-modules"])
    name = slug(run.state["name"])
    script = f'#!/bin/sh\nexec {line} {name}="$(dirname "$0")"\n'
    write_atomic(folder / "serve.sh", script.encode())
    (folder / "serve.sh").chmod(0o755)
    return {**facts, "command": f"{line.replace('{', '{{').replace('}', '}}')} {name}={{folder}}"}


def _name(run: Run, base: Path) -> str:
    """Return what vLLM loads: the hub id where there is one, so that any machine can."""
    model = find_model(run.recipe.model)
    hub_id = model.hub_id if model else None
    local = Path(run.recipe.model).expanduser().is_dir() or not (hub_id or "/" in run.recipe.model)
    return str(base) if local else hub_id or run.recipe.model
