"""The finished adapter: safetensors and a model card, in a folder that is whole or not there."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import __version__, files
from finetune.backends.local.quiet import quiet
from finetune.backends.local.task import nothing
from finetune.catalog import Model, find_model
from finetune.text import plural

if TYPE_CHECKING:
    from finetune.backends.local.schedule import Step
    from finetune.corpus import Dataset
    from finetune.recipe import Recipe
    from finetune.recipe.tree import Local


def save_adapter(
    model: Any,
    folder: Path,
    card: str,
    weights: Mapping[str, Any] | None = None,
    *,
    also: Callable[[Any, Path], None] = nothing,
) -> None:
    """Write a model's adapter and its card into `folder`, replacing an older one.

    Args:
        model: A model with adapters.
        folder: Gets `adapter_model.safetensors`, `adapter_config.json` and `README.md`.
        card: The card's text.
        weights: The trained weights by name, where the model holds shards of them.
        also: Writes what was trained beside the adapter, see `Task.save`.
    """
    with replacing(folder) as new:
        with quiet():
            # By default PEFT asks the hub whether the base's vocabulary is another: never here.
            model.save_pretrained(
                new, safe_serialization=True, save_embedding_layers=False, state_dict=weights
            )
        also(model, new)
        files.write_atomic(new / "README.md", card.encode())


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Give a folder that takes the place of `folder`, whole, when the block ends well."""
    new, old = (folder.with_name(f".{folder.name}.{word}") for word in ("new", "old"))
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    new.mkdir(parents=True)
    yield new
    for path in new.iterdir():
        files.sync_file(path)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    files.sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def describe_tuned(
    recipe: Recipe,
    dataset: Dataset,
    steps: Sequence[Step],
    groups: Mapping[str, int],
    metrics: Sequence[Mapping[str, Any]],
) -> str:
    """Return the model card.

    Args:
        recipe: The recipe.
        dataset: What was trained on; named by digest, never quoted.
        steps: The schedule.
        groups: Trainable parameters of each group.
        metrics: The run's metrics, by step.
    """
    base = find_model(recipe.model)
    licence = base.licence if base is not None else None
    last = metrics[-1] if metrics else {}
    losses = [line["validation_loss"] for line in metrics if "validation_loss" in line]
    training = recipe.training
    measured = [
        f"- Training loss of the last step: {last['loss']:.4f}" if "loss" in last else "",
        f"- Validation loss at the end: {losses[-1]:.4f}" if losses else "",
        "- Task measures, base beside tuned: `evaluation.json` of the run",
    ]
    what = "All weights of" if recipe.local.full else "A LoRA adapter for"
    return f"""{_head(recipe, base)}
# {recipe.name}

{what} `{recipe.model}`, trained with mistral-finetune-kit {__version__}.

## Training

- Method: {recipe.method}; {plural(len(steps), "step")}, {steps[-1].epoch:.2f} epochs, \
{plural(sum(step.tokens for step in steps), "token")}
- Learning rate {training.learning_rate:g} (warm-up {training.warmup_fraction:g}, then cosine), \
weight decay {training.weight_decay:g}, {recipe.local.batch_tokens:,} tokens a step, \
seed {recipe.seed}
- {_describe_weights(recipe.local)}; {plural(sum(groups.values()), "parameter")} in \
{", ".join(groups)}

## Data

- Dataset digest: `{dataset.digest}`
- Training files: {", ".join(f"`{f.path.name}` ({f.records} records)" for f in dataset.train)}

## Measures

{chr(10).join(line for line in measured if line)}

## Licence and limits

The licence of the base model applies{f": {licence}" if licence else "; see its own card"}.
It repeats what its data say, mistakes included, and was measured on data like them only.
"""


def _describe_weights(local: Local) -> str:
    """Return what was trained, and in which numbers."""
    if local.full:
        return "All weights of the language model, held in float32"
    lora, numbers = local.lora, local.quantize if local.quantize != "none" else local.dtype
    kinds = {"rsLoRA": lora.rslora, "DoRA": lora.dora}
    kind = ", ".join(name for name, used in kinds.items() if used) or "LoRA"
    scale = f"rank {lora.rank}, alpha {lora.alpha:g}, dropout {lora.dropout:g}"
    return f"{kind} {scale}, base held in {numbers}"


def _head(recipe: Recipe, base: Model | None) -> str:
    """Return the lines that model hubs read."""
    kind = "full" if recipe.local.full else "lora"
    lines = [
        "---",
        f"library_name: {'transformers' if recipe.local.full else 'peft'}",
        f"base_model: {base.hub_id if base is not None and base.hub_id else recipe.model}",
        *([f"license: {base.licence.lower()}"] if base is not None and base.licence else []),
        f"tags: [{kind}, mistral, finetune]",
        "---",
    ]
    return "\n".join(lines) + "\n"
