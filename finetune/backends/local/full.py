"""All weights of the language model trained, instead of an adapter.

They are held and checkpointed in float32, computed with in bfloat16 where the hardware has it, and
saved in the end as the base holds them: steps of training are far smaller than what bfloat16 can
add to a weight.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import files
from finetune.backends.local.adapter import replacing
from finetune.backends.local.checkpoints import WEIGHTS
from finetune.backends.local.lora import VISION
from finetune.backends.local.merge import COMPANIONS
from finetune.backends.local.model import Dtype, choose_dtype
from finetune.backends.local.quiet import quiet
from finetune.errors import RunError, TrainingError

if TYPE_CHECKING:
    import torch


def unfreeze(model: Any, dtype: Dtype = "auto") -> Any:
    """Return the model with all weights of its language model trained, and no others.

    Args:
        model: A causal language model in float32; changed in place.
        dtype: The numbers to compute in; the model's config says them afterwards.
    """
    import torch

    device = model.get_input_embeddings().weight.device.type
    model.config.dtype = getattr(torch, choose_dtype(dtype, device))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not re.fullmatch(VISION, name))
    text = model.config.get_text_config()
    if hasattr(text, "output_router_logits"):  # for the loss that keeps experts in use
        text.output_router_logits = True
    return model


def save_weights(model: Any, folder: Path) -> None:
    """Write the trained weights of a checkpoint, in float32 and under the names of their class."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(_trained(model), folder / WEIGHTS)


def load_weights(model: Any, folder: Path) -> None:
    """Read the trained weights of a checkpoint into a model.

    Raises:
        RunError: They are not those of this model.
    """
    import torch
    from safetensors.torch import load_file

    trained = _trained(model)
    found = load_file(folder / WEIGHTS)
    if {name: t.shape for name, t in trained.items()} != {n: t.shape for n, t in found.items()}:
        raise RunError(f"{folder}: holds the weights of another model")
    with torch.no_grad():
        for name, tensor in trained.items():
            tensor.copy_(found.pop(name))


def save_model(
    model: Any, base: Path, folder: Path, card: str, weights: Mapping[str, Any] | None = None
) -> None:
    """Write a tuned model as a checkpoint of its own, replacing an older one.

    Args:
        model: What was trained; its weights are rounded to the base's numbers in place.
        base: The base's folder: config, tokenizer and licence are taken from it as they are.
        folder: Gets `model*.safetensors`, what comes along from the base, and `README.md`.
        card: The card's text.
        weights: All weights by name, where the model holds shards of them.

    Raises:
        TrainingError: A weight is too large for the base's numbers.
    """
    import torch

    numbers = read_numbers(base)
    rounded = {}
    for name, tensor in (weights or dict(model.named_parameters())).items():
        tensor.data = rounded[name] = tensor.data.to(numbers)
        if not torch.isfinite(tensor.data).all():
            raise TrainingError(f"`{name}`: holds numbers too large for {numbers}")
    with replacing(folder) as new:
        with quiet():
            held = rounded if weights is not None else None
            model.save_pretrained(new, max_shard_size="5GB", state_dict=held)
        for pattern in COMPANIONS:
            for file in sorted(base.glob(pattern)):
                if file.name not in {"digests.json", "model.safetensors.index.json"}:
                    shutil.copyfile(file, new / file.name)
        files.write_atomic(new / "README.md", card.encode())


def read_numbers(base: Path) -> torch.dtype:
    """Return the numbers in which a checkpoint holds its weights."""
    from safetensors import safe_open

    shard = min(base.glob("model*.safetensors"))
    with safe_open(shard, framework="pt") as file:
        tensor: torch.Tensor = file.get_tensor(min(file.keys()))
    return tensor.dtype


def _trained(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.data for name, p in model.named_parameters() if p.requires_grad}
