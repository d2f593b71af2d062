"""The adapter in Mistral's own format: `lora.safetensors`, as mistral-inference loads it.

The file holds no scale: `Transformer.load_lora(path, scaling=2.0)` multiplies `B · A` by what it is
told, 2 unless told otherwise. The run's own scale is therefore folded into B, so that 2 is right.
The loader wants both matrices of every linear, all in the base's numbers: a linear without an
adapter gets zeros (mistral-inference's `lora.py`, read 2026-11-23).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.backends.local.merge import Delta, Weights, read_adapter
from finetune.backends.local.model import Dtype, load_adapter, load_model, resolve_model
from finetune.errors import UsageError
from finetune.export import native, parity
from finetune.export.adapter import CONFIG
from finetune.export.card import write_card
from finetune.files import read_json, to_json, write_atomic
from finetune.progress import Progress
from finetune.runs import Run

if TYPE_CHECKING:
    import torch

WEIGHTS = "lora.safetensors"
SCALING = 2.0


def write(run: Run, folder: Path, *, progress: Progress) -> dict[str, Any]:
    """Write the adapter in Mistral's layout, and compare it, read back, with the run's."""
    from safetensors.torch import save_file

    base = resolve_model(run.recipe.model, progress=progress)
    params = native.read_params(base)
    if "moe" in params:
        raise UsageError(
            f"{base}: Mistral's format of adapters has no place for experts",
            hint="`--to adapter` holds them",
        )
    if read_json(run.adapter / CONFIG).get("use_dora"):
        raise UsageError(
            f"{run.adapter}: Mistral's format of adapters has no place for the row lengths of DoRA",
            hint="`--to adapter` holds them, `--to consolidated` has them merged",
        )
    native.copy_tokenizer(base, folder)
    weights, deltas = Weights(base, run.adapter), read_adapter(run.adapter)
    rank = max(delta.down.shape[0] for delta in deltas.values())
    tensors = {}
    for name in sorted(weights.shards):
        module = name.removesuffix(".weight")
        if ".".join(module.split(".")[3:]) in native.LINEARS:
            down, up = _convert(deltas.get(name), weights.read(name), rank)
            place = native.rename(module)
            tensors[f"{place}.lora_A.weight"] = down
            tensors[f"{place}.lora_B.weight"] = native.interleave(up, module, params).contiguous()
    save_file(tensors, folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)
    lora = {"enable": True, "rank": rank, "dropout": 0.0, "scaling": SCALING}
    write_atomic(folder / "params.json", to_json({**params, "lora": lora}, indent=True))

    def load(written: Path, dtype: Dtype) -> Any:
        with tempfile.TemporaryDirectory() as adapter:
            to_peft(written, Path(adapter))
            return load_adapter(load_model(base, dtype=dtype), Path(adapter))

    facts = parity.compare_with_run(run, base, folder, load=load, progress=progress)
    write_card(run, folder, "a LoRA adapter in Mistral's own format, of scaling 2", facts)
    return {**facts, "rank": rank, "scaling": SCALING}


def to_peft(folder: Path, adapter: Path) -> None:
    """Write a folder of `lora.safetensors` and `params.json` as an adapter of PEFT.

    Args:
        folder: What `write` or mistral-finetune wrote.
        adapter: An empty folder.
    """
    from safetensors.torch import load_file, save_file

    params = read_json(folder / "params.json")
    lora = params["lora"]
    tensors = {}
    for name, tensor in load_file(folder / WEIGHTS).items():
        place, part = name.split(".lora_")
        module = native.rename_back(place)
        rows = native.separate(tensor, module, params) if part.startswith("B") else tensor
        tensors[f"base_model.model.{module}.lora_{part}"] = rows.contiguous()
    save_file(tensors, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    modules = {name.split(".lora_")[0].rpartition(".")[2] for name in tensors}
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": lora["rank"],
        "lora_alpha": lora["rank"] * lora["scaling"],
        "target_modules": sorted(modules),
    }
    (adapter / "adapter_config.json").write_bytes(to_json(config))


def _convert(
    delta: Delta | None, weight: torch.Tensor, rank: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return A [rank, inputs] and B [outputs, rank] of one linear, in the base's numbers."""
    outputs, inputs = weight.shape
    down, up = weight.new_zeros(rank, inputs), weight.new_zeros(outputs, rank)
    if delta is not None:
        own = delta.down.shape[0]
        down[:own] = delta.down.to(weight.dtype)
        up[:, :own] = (delta.up * (delta.scale / SCALING)).to(weight.dtype)
    return down, up
