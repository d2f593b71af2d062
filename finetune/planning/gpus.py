"""How many GPUs would hold a training that does not fit where it is planned."""

from __future__ import annotations

from collections.abc import Mapping

from finetune.backends.local.memory import TRAINED_BYTES
from finetune.catalog import Model
from finetune.recipe import Recipe
from finetune.text import plural, size

_BYTES = 80e9  # of the largest GPU that is common (A100, H100)
_SPREAD = ("weights", "adapter", "gradients", "optimizer")
_NUMBERS = {"4bit": 0.52, "8bit": 1.0}  # bytes a weight


def name_gpus(parts: Mapping[str, int]) -> str:
    """Return how many GPUs of 80 GB hold a training, its weights spread over them.

    Args:
        parts: Bytes by part, see `memory.Memory`.
    """
    shared = sum(parts[name] for name in _SPREAD)
    left = _BYTES - sum(parts.values()) + shared
    if left <= 0:
        return "memory: one sample needs more than a GPU of 80 GB: lower `training.seq_len`"
    count = max(1, -(-shared // int(left)))
    spread = ", weights spread over them" if count > 1 else ""
    return f"memory: {plural(count, 'GPU')} of 80 GB would hold it{spread} (an estimate)"


def name_least(model: Model | None, recipe: Recipe) -> list[str]:
    """Return what the weights alone take, of a model that is known by its size only."""
    if model is None:
        return []
    local = recipe.local
    plain = 4.0 if local.dtype == "float32" else 2.0
    each = TRAINED_BYTES if local.full else _NUMBERS.get(local.quantize, plain)
    total = round(model.params * each)
    least = plural(-(-total // int(_BYTES)), "GPU")
    weights = f"{model.name}: its {model.billions:g} billion weights"
    return [f"{weights} alone take {size(total)}: at least {least} of 80 GB"]
