"""Training on this machine: the way from a dataset to an adapter that all methods share."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from finetune import files
from finetune.backends.local.adapter import describe_tuned, save_adapter
from finetune.backends.local.checkpoints import Checkpoint
from finetune.backends.local.device import find_device, share_device
from finetune.backends.local.full import save_model, unfreeze
from finetune.backends.local.loop import find_start, fit
from finetune.backends.local.lora import count_trainable
from finetune.backends.local.memory import DEFAULT_MICRO_BATCH_TOKENS, choose_memory
from finetune.backends.local.model import (
    Dtype,
    check_vocabulary,
    choose_dtype,
    load_model,
    resolve_model,
)
from finetune.backends.local.ranks import Ranks, read_ranks
from finetune.backends.local.schedule import count_passes, plan_training
from finetune.backends.local.speed import describe_choices, open_meter
from finetune.backends.local.task import Item, Task, count_items
from finetune.catalog import read_shape
from finetune.errors import DataError, TrainingError
from finetune.progress import Progress, silent
from finetune.text import size
from finetune.tokens import load_tokenizer

if TYPE_CHECKING:
    from finetune.backends.local.schedule import Step
    from finetune.corpus import Dataset
    from finetune.recipe import Recipe
    from finetune.runs import Run
    from finetune.tokens import Tokenizer


def tune(
    task: Task, run: Run, recipe: Recipe, dataset: Dataset, *, progress: Progress = silent
) -> None:
    """Tune the recipe's model on a dataset; what was trained is in the run's folder then.

    The same call continues from the newest checkpoint.

    Args:
        task: The method.
        run: Where checkpoints, metrics and the adapter go.
        recipe: The settings.
        dataset: What to train and validate on.
        progress: Told of each stage.

    Raises:
        UsageError: The model is not there or can't be loaded.
        RecipeError: `local.lora.targets` names what the model has not.
        DataError: A record is too long, or nothing is left to train.
        Interrupted: A signal came; the state is saved.
        TrainingError: The loss or a gradient is no number, or memory does not suffice.
        RunError: The checkpoints are another run's, or can't be written.
    """
    ranks = read_ranks(recipe.local.launch)
    folder = resolve_model(recipe.model, progress=progress)
    tokenizer = load_tokenizer(folder)
    check_vocabulary(folder, tokenizer)
    training = read_training(task, dataset, recipe, tokenizer, progress=progress)
    validation = task.read(dataset.validation, recipe, tokenizer, 0) if dataset.validation else []
    lengths = [item.tokens for item in training.items]
    identity = identify(recipe, dataset.digest, tokenizer.sha256, fingerprint(folder))
    newest = _find_newest(run, identity, ranks, progress)
    micro, again = share_memory(folder, recipe, lengths, newest)
    passes = training.weights, training.passes
    steps = plan_training(recipe, lengths, *passes, micro_batch_tokens=micro)
    model = prepare(task, folder, recipe, ranks)
    chosen = describe_choices(model, micro_batch_tokens=micro, gradient_checkpointing=again)
    groups = announce(run, model, training, steps, chosen, progress)
    validation = refer(task, model, training.items, steps, validation, progress=progress)
    meter = open_meter(folder, model, training.items, steps, chosen, processes=ranks.total)
    begin = {"folder": run.checkpoints, "identity": identity, "newest": newest}
    memory = {"micro_batch_tokens": micro, "gradient_checkpointing": again}

    def metric(**values: Any) -> None:
        # a validation that is made up for comes without its step's speed
        speed = meter.judge(**values) if "tokens_per_second" in values else {}
        run.metric(**values, **speed)

    told = {"metric": metric, "event": run.event, "progress": progress, "ranks": ranks}
    settings: dict[str, Any] = {**begin, **memory, **told}
    fitted = fit(task, model, training.items, steps, recipe, validation=validation, **settings)
    run.set_state("training", trained={"steps": len(steps), **fitted._asdict()})
    weights = gather_weights(model) if recipe.local.launch.strategy == "fsdp" else None
    if not ranks.first:
        return
    done = slice(fitted.step)  # what the weights have seen
    card = describe_tuned(recipe, dataset, steps[done], groups, run.metrics()[done])
    if recipe.local.full:
        save_model(model, folder, run.whole, card, weights)
    else:
        save_adapter(model, run.adapter, card, weights, also=task.save)


def _find_newest(
    run: Run, identity: dict[str, Any], ranks: Ranks, progress: Progress
) -> Checkpoint | None:
    """Return the checkpoint to go on from; say which ones were damaged."""

    def note(name: str) -> None:
        run.event("damaged_checkpoint", checkpoint=name)
        progress("damaged checkpoint", 1, 1, checkpoint=name)

    return find_start(run.checkpoints, identity, damaged=note, ranks=ranks)


def announce(
    run: Run,
    model: Any,
    training: Training,
    steps: Sequence[Step],
    chosen: dict[str, Any],
    progress: Progress,
) -> dict[str, int]:
    """Note and tell what is trained and computed with; return the trained weights by group."""
    groups = count_trainable(model)
    run.event("training", steps=len(steps), samples=len(training.items), trainable=groups)
    progress("adapt", 1, 1, **dict(groups))
    run.event("compute", **chosen)
    progress("compute", 1, 1, **chosen)
    return groups


def prepare(task: Task, folder: Path, recipe: Recipe, ranks: Ranks) -> Any:
    """Return the model that is trained: the base with what the method adds, or all of it."""
    dtype: Dtype = recipe.local.dtype
    if recipe.local.launch.strategy == "fsdp":  # it is loaded on the CPU, and computed elsewhere
        dtype = choose_dtype(dtype, "cuda")
    if recipe.local.full:
        return unfreeze(load_base(folder, recipe, ranks, dtype="float32"), dtype)
    return task.prepare(load_base(folder, recipe, ranks, dtype=dtype), recipe)


def load_base(folder: Path, recipe: Recipe, ranks: Ranks, *, dtype: Dtype) -> Any:
    """Return the model that a rank trains: on its own GPU, or where it is sharded from."""
    import torch

    local, device = recipe.local, None
    if local.threads:
        torch.set_num_threads(local.threads)
    if ranks.total > 1:
        device = f"cuda:{ranks.here}" if torch.cuda.is_available() else "cpu"
        if local.launch.strategy == "fsdp":
            device = "cpu"
    return load_model(folder, dtype=dtype, quantize=local.quantize, device=device)


def gather_weights(model: Any) -> dict[str, Any]:
    """Return the weights of a sharded model, whole: all where all are trained; every rank calls it.

    Of an adapted model those of the adapter: its base is where it came from.
    """
    adapted = hasattr(model, "peft_config")
    weights = ((n, p) for n, p in model.named_parameters() if p.requires_grad or not adapted)
    return {
        name: (weight.full_tensor() if hasattr(weight, "full_tensor") else weight).detach().cpu()
        for name, weight in weights
    }


class Training(NamedTuple):
    """All that is trained.

    Attributes:
        items: The items of all passes.
        weights: The weight of each one's source.
        passes: Which items make up which epoch, see `schedule.plan_steps`.
    """

    items: list[Item]
    weights: list[float]
    passes: list[range]


def read_training(
    task: Task,
    dataset: Dataset,
    recipe: Recipe,
    tokenizer: Tokenizer,
    *,
    progress: Progress = silent,
) -> Training:
    """Return what is trained of a dataset, read anew for each epoch where epochs differ.

    Raises:
        DataError: A record cannot be used, or nothing is left in the end.
    """
    items: list[Item] = []
    weights: list[float] = []
    passes: list[range] = []
    wanted = 1
    while len(passes) < wanted:
        start = len(items)
        for done, file in enumerate(dataset.train, 1):
            part = task.read(file.path, recipe, tokenizer, len(passes))
            items += part
            weights += [file.weight] * len(part)
            progress("tokenize", done, len(dataset.train), samples=len(items))
        passes.append(range(start, len(items)))
        if start == 0:
            tokens_seen = sum(item.tokens for item in items)
            wanted = count_passes(recipe, tokens_seen) if items else 0
    if not count_items(items):
        raise DataError(
            "nothing to train: no record with a trained token is left",
            file=str(dataset.folder),
            hint="see `rejected.jsonl` there, and `data.too_long` in the recipe",
        )
    return Training(items, weights, passes)


def refer(
    task: Task,
    model: Any,
    items: list[Item],
    steps: Sequence[Step],
    validation: Sequence[Item],
    *,
    progress: Progress = silent,
) -> Sequence[Item]:
    """Complete what is trained with what the model says of it now; return what validates, too.

    Of `items`, only those that the schedule uses are looked at.
    """
    if task.refer is None:
        return validation
    used = sorted({index for step in steps for group in step.micro_batches for index in group})
    found = task.refer(model, [items[index] for index in used], progress=progress)
    for index, item in zip(used, found, strict=True):
        items[index] = item
    return task.refer(model, validation, progress=progress)


def share_memory(
    folder: Path, recipe: Recipe, lengths: Sequence[int], newest: Checkpoint | None = None
) -> tuple[int, bool]:
    """Return the tokens computed at once, and whether activations are computed again.

    Args:
        folder: The model's.
        recipe: The recipe.
        lengths: Tokens of each sample.
        newest: Where a run goes on: what it has computed at once so far stays where it fits, as
            sums of floats depend on how they are split.

    Raises:
        TrainingError: Nothing fits on this machine.
    """
    import torch

    shape = read_shape(files.read_json(folder / "config.json"))
    so_far = newest.micro_batch_tokens if newest else None
    if shape is None:  # an architecture that nobody can estimate: take the recipe's word
        micro = recipe.local.micro_batch_tokens or DEFAULT_MICRO_BATCH_TOKENS
        return so_far or micro, recipe.local.gradient_checkpointing == "on"
    gpus = torch.cuda.is_available()  # a torch for CPUs sees none, whatever the driver has
    device = share_device(find_device(gpus=gpus), recipe.local.launch.processes)
    if so_far is not None:
        local = recipe.local.model_copy(update={"micro_batch_tokens": so_far})
        same = recipe.model_copy(update={"local": local})
        memory = choose_memory(shape, same, device, lengths, budget=device.total)
        if memory.total <= device.total:
            return so_far, memory.gradient_checkpointing
    memory = choose_memory(shape, recipe, device, lengths, budget=device.total)
    if memory.total > device.total:
        raise TrainingError(
            f"{recipe.model}: training needs about {size(memory.total)},"
            f" {device.name} has {size(device.total)}",
            hint="`finetune plan` shows what takes it, and which `training.seq_len` fits",
        )
    return memory.micro_batch_tokens, memory.gradient_checkpointing


def identify(recipe: Recipe, dataset: str, tokenizer: str, base: str) -> dict[str, Any]:
    """Return what a checkpoint and the run that goes on from it must have in common.

    Settings that change nothing in the weights are left out: when to save, how many to keep.
    """
    free = {"save_every", "keep_checkpoints", "threads"}
    facts = {"dataset": dataset, "tokenizer": tokenizer, "base": base, "seed": recipe.seed}
    facts |= {"model": recipe.model, "method": recipe.method}
    sections = {"training": recipe.training, "local": recipe.local, "local.lora": recipe.local.lora}
    sections["local.launch"] = recipe.local.launch
    for name, section in sections.items():
        for key, value in section.model_dump(mode="json").items():
            if key not in free and not isinstance(value, dict):
                facts[f"{name}.{key}"] = value
    return facts


def fingerprint(folder: Path) -> str:
    """Return a digest of a base model: its config, and size and both ends of each weight file.

    Hashing all of a large model would take minutes; a wrong or damaged download shows here too.
    """
    total = hashlib.sha256((folder / "config.json").read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        length = path.stat().st_size
        total.update(f"{path.name} {length}".encode())
        with open(path, "rb") as file:
            total.update(file.read(2**20))
            file.seek(max(0, length - 2**20))
            total.update(file.read())
    return total.hexdigest()[:16]
