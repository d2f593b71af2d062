"""The training loop: from the newest checkpoint to the last step, through signals and errors."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from finetune.backends.local import checkpoints
from finetune.backends.local.quiet import quiet
from finetune.backends.local.ranks import ALONE, Ranks
from finetune.backends.local.task import Task, count_items, fill_rows, move
from finetune.errors import FinetuneError, Interrupted, RunError
from finetune.progress import Progress, silent
from finetune.text import size

if TYPE_CHECKING:
    from finetune.backends.local.schedule import Step
    from finetune.backends.local.trainer import Keeper
    from finetune.recipe import Recipe

_VALIDATION_TOKENS = 4096  # computed at once while the validation loss is measured
_SAVING = ".saving"  # in it the trainer writes what is then committed


class Metric(Protocol):
    """Takes one line of metrics."""

    def __call__(self, **values: Any) -> None:
        """Take note of it."""


def fit(
    task: Task,
    model: Any,
    items: Sequence[Any],
    steps: Sequence[Step],
    recipe: Recipe,
    *,
    folder: Path,
    identity: dict[str, Any],
    gradient_checkpointing: bool = False,
    validation: Sequence[Any] = (),
    metric: Metric = lambda **_: None,
    progress: Progress = silent,
    ranks: Ranks = ALONE,
) -> None:
    """Train a model's adapter through the schedule, from the newest checkpoint if there is one.

    Args:
        task: The method.
        model: What it prepared; trained in place.
        items: What the schedule's indices mean.
        steps: The schedule.
        recipe: The settings of `training` and `local`.
        folder: Where checkpoints are committed.
        identity: What must be equal to go on from a checkpoint.
        gradient_checkpointing: Compute activations again instead of holding them.
        validation: Items whose loss is measured at each checkpoint.
        metric: Takes the figures of each step.
        progress: Told of each step.
        ranks: Which of the processes this is; all call this alike.

    Raises:
        Interrupted: SIGINT or SIGTERM came; the step was finished and saved.
        TrainingError: The loss or a gradient is no number.
        RunError: A checkpoint belongs to another identity, or can't be written.
    """
    with quiet():
        from finetune.backends.local import trainer as engine

    newest = _find_newest(folder, identity, ranks)
    _require_space(folder, model, recipe.local.keep_checkpoints)
    with quiet(), _caught_signals() as caught, _packed(model, again=gradient_checkpointing):
        keeper = engine.Keeper(
            steps,
            every=recipe.local.save_every or max(1, -(-len(steps) // 10)),
            keep=recipe.local.keep_checkpoints,
            identity=identity,
            measure=_measure_with(engine, task, model, validation, ranks),
            interrupted=lambda: caught.number is not None,
            metric=metric,
            progress=progress,
            ranks=ranks,
        )
        half = _is_half(model)
        arguments = engine.configure(recipe, len(steps), folder=folder / _SAVING, bf16=half)
        trainer = engine.PackedTrainer(task, model, arguments, items, steps, [keeper], ranks)
        progress("train", newest.step if newest else 0, len(steps))
        with _explained(keeper, folder):
            trainer.train(resume_from_checkpoint=str(newest.folder) if newest else None)
    _require_end(keeper, len(steps), folder, caught.number)


def _require_end(keeper: Keeper, steps: int, folder: Path, number: int | None) -> None:
    if keeper.stopped and keeper.step < steps:
        raise Interrupted(
            number or signal.SIGTERM,  # where another rank got it
            f"{folder}: interrupted, saved after step {keeper.step} of {steps}",
            hint="the same command goes on from there",
        )


def _find_newest(
    folder: Path, identity: dict[str, Any], ranks: Ranks
) -> checkpoints.Checkpoint | None:
    """Return the newest whole checkpoint, the same on all ranks; remove what is half written."""
    newest = None
    if ranks.first:
        newest = checkpoints.find_newest(folder, identity)
        shutil.rmtree(folder / _SAVING, ignore_errors=True)
    step = int(ranks.add(newest.step if newest else 0)[0])
    if step and not ranks.first:
        newest = checkpoints.Checkpoint(folder / f"step-{step}", step)
        if not newest.folder.is_dir():
            raise RunError(
                f"{newest.folder}: not on this machine",
                hint="the run folder must lie where all nodes see it",
            )
    return newest


def _measure_with(
    engine: Any, task: Task, model: Any, items: Sequence[Any], ranks: Ranks
) -> Callable[[], float] | None:
    if not items:
        return None
    within = task._replace(loss=engine.call_within(task.loss))
    return lambda: measure_loss(within, model, items, ranks)


@contextlib.contextmanager
def _packed(model: Any, *, again: bool) -> Iterator[None]:
    """Let the model attend within samples, and with `again` hold no activations."""
    from finetune.backends.local.attention import attend_within

    with attend_within(model):
        if again:
            model.enable_input_require_grads()
            model.activation_checkpointing_enable({"use_reentrant": False})
        yield


def measure_loss(task: Task, model: Any, items: Sequence[Any], ranks: Ranks = ALONE) -> float:
    """Return the mean loss of items, in nats.

    Args:
        task: The method.
        model: A model whose attention is `attention.NAME`; in training mode again afterwards
            if it was before.
        items: At least one that counts.
        ranks: Each computes its share, and equally often.
    """
    import torch

    device = model.get_output_embeddings().weight.device
    training = model.training
    model.eval()
    total = 0.0
    common = task.survey(model, items) if task.survey is not None else {}
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=_is_half(model)):
        groups = list(fill_rows(items, _VALIDATION_TOKENS))
        for number in range(
            ranks.number, -(-len(groups) // ranks.total) * ranks.total, ranks.total
        ):
            group = groups[number % len(groups)]
            batch = move(task.collate(group) | common, device)
            loss = task.loss(model, batch)[0].item()
            total += loss if number < len(groups) else 0.0
    model.train(training)
    return ranks.add(total)[0] / count_items(items)


def _is_half(model: Any) -> bool:
    """Tell whether to compute in bfloat16: a model trained in full holds its weights otherwise."""
    import torch

    return torch.bfloat16 in (model.get_output_embeddings().weight.dtype, model.config.dtype)


def _require_space(folder: Path, model: Any, keep: int) -> None:
    """Refuse to begin where the checkpoints won't fit: weights and two moments, in float32."""
    one = sum(p.numel() for p in model.parameters() if p.requires_grad) * 12
    folder.mkdir(parents=True, exist_ok=True)
    needed, free = int(one * (keep + 1) * 1.2), shutil.disk_usage(folder).free
    if free < needed:
        raise RunError(
            f"{folder}: disk full: {keep} checkpoints need {size(needed)}, {size(free)} are free",
            hint="free some space, or lower `local.keep_checkpoints`",
        )


@contextlib.contextmanager
def _explained(keeper: Keeper, folder: Path) -> Iterator[None]:
    """Say what it was about when a checkpoint can't be written; leave nothing half written."""
    try:
        yield
    except Exception as error:
        if keeper.saving is None or isinstance(error, FinetuneError):
            raise
        number = error.errno if isinstance(error, OSError) else None
        reason = os.strerror(number).lower() if number else "write failed"
        free = size(shutil.disk_usage(folder).free)
        raise RunError(
            f"{folder}: the checkpoint of step {keeper.saving} can't be written: {reason}"
            f" ({free} free)",
            hint="earlier checkpoints are intact: free some space and run the same command again",
        ) from error
    finally:
        shutil.rmtree(folder / _SAVING, ignore_errors=True)


class _Signal:
    number: int | None = None


@contextlib.contextmanager
def _caught_signals() -> Iterator[_Signal]:
    """Note the first SIGINT or SIGTERM; leave at once on the second."""
    caught = _Signal()

    def note(number: int, _frame: object) -> None:
        if caught.number is not None:
            os._exit(128 + number)
        caught.number = number

    if threading.current_thread() is not threading.main_thread():
        yield caught  # only the main thread may set handlers
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
