"""What would stop a run, told before it starts."""

from __future__ import annotations

from finetune.backends.local.device import count_devices
from finetune.planning.counting import SourceCount
from finetune.recipe import Recipe
from finetune.recipe.tree import Launch
from finetune.text import plural


def list_problems(recipe: Recipe, total: SourceCount) -> list[str]:
    """Return what is wrong with the data that were counted, for this recipe."""
    problems = []
    if recipe.backend == "local" and total.too_long and recipe.data.too_long == "error":
        problems.append(
            f"{plural(total.too_long, 'sample')} longer than `training.seq_len` "
            f"({recipe.training.seq_len:,} tokens): raise it, or set `data.too_long`"
        )
    if total.unencodable:
        problems.append(
            f"{plural(total.unencodable, 'record')} the tokenizer cannot encode: "
            "`finetune validate` names them"
        )
    return problems


def find_crowd(launch: Launch) -> list[str]:
    """Return what there is to say where this machine has fewer devices than processes."""
    kind, count = count_devices()
    if launch.processes <= count:
        return []
    name = "GPU" if kind == "cuda" else "core"
    fact = f"{launch.processes}, this machine has {plural(count, name)}"
    return [f"local.launch.processes: {fact}; `--memory GB` plans for another"]
