"""The training loop: from the newest checkpoint to the last step, through signals and errors."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from finetune.backends.local.checkpoints import Checkpoint, find_whole
from finetune.backends.local.device import is_out_of_memory
from finetune.backends.local.history import SKIPPED, rank_steps
from finetune.backends.local.quiet import quiet
from finetune.backends.local.ranks import ALONE, Ranks
from finetune.backends.local.task import Task
from finetune.backends.local.validation import LOSS, is_half, measure
from finetune.errors import FinetuneError, Interrupted, RecipeError, RunError, TrainingError
from finetune.progress import Progress, silent
from finetune.text import did_you_mean, size

if TYPE_CHECKING:
    from finetune.backends.local.keeper import Keeper
    from finetune.backends.local.schedule import Step
    from finetune.backends.local.trainer import PackedTrainer
    from finetune.recipe import Recipe

_SAVING = ".saving"  # in it the trainer writes what is then committed


class Metric(Protocol):
    """Takes one line of metrics."""

    def __call__(self, **values: Any) -> None:
        """Take note of it."""


class Fitted(NamedTuple):
    """What training ended with.

    Attributes:
        step: The step whose weights the model has.
        last: The last step that was trained.
        figures: The validation's figures at `step`, where they were measured.
        skipped: Steps that were skipped as spikes.
    """

    step: int
    last: int
    figures: dict[str, float]
    skipped: int


def fit(
    task: Task,
    model: Any,
    items: Sequence[Any],
    steps: Sequence[Step],
    recipe: Recipe,
    *,
    folder: Path,
    identity: dict[str, Any],
    newest: Checkpoint | None = None,
    micro_batch_tokens: int | None = None,
    gradient_checkpointing: bool = False,
    validation: Sequence[Any] = (),
    metric: Metric = lambda **_: None,
    event: Callable[..., None] = lambda _, **__: None,
    progress: Progress = silent,
    ranks: Ranks = ALONE,
) -> Fitted:
    """Train a model's adapter through the schedule, from a checkpoint if there is one.

    Args:
        task: The method.
        model: What it prepared; trained in place.
        items: What the schedule's indices mean.
        steps: The schedule.
        recipe: The settings of `training` and `local`.
        folder: Where checkpoints are committed.
        identity: What must be equal to go on from a checkpoint.
        newest: The checkpoint to go on from, see `find_start`.
        micro_batch_tokens: Most tokens computed at once; as the schedule has it where absent.
        gradient_checkpointing: Compute activations again instead of holding them.
        validation: Items whose loss is measured at each checkpoint.
        metric: Takes the figures of each step.
        event: Takes what is worth a line in the run's journal.
        progress: Told of each step.
        ranks: Which of the processes this is; all call this alike.

    Raises:
        Interrupted: SIGINT or SIGTERM came; what was done is saved.
        TrainingError: The loss or a gradient is no number, or memory does not suffice for one
            sample.
        RecipeError: `local.best_by` names no figure of the validation, or there is none.
        RunError: A checkpoint can't be written.
    """
    told = {"metric": metric, "event": event, "progress": progress, "ranks": ranks}
    with quiet(), _caught_signals() as caught, _packed(model, again=gradient_checkpointing):
        keeper = _make_keeper(
            task, model, validation, steps, recipe, caught, micro_batch_tokens, identity, told
        )
        made = -(-len(steps) // keeper.every)
        kept = min(recipe.local.keep_checkpoints + bool(keeper.best_by), made)
        _require_space(folder, model, kept)
        trainer = _make_trainer(task, model, items, steps, recipe, keeper, folder, ranks)
        progress("train", newest.step if newest else 0, len(steps))
        _train(trainer, keeper, folder, newest)
        _require_end(keeper, len(steps), folder, caught.number)
        return _choose(trainer, keeper, folder, identity, ranks)


def _make_keeper(
    task: Task,
    model: Any,
    validation: Sequence[Any],
    steps: Sequence[Step],
    recipe: Recipe,
    caught: _Signal,
    micro_batch_tokens: int | None,
    identity: dict[str, Any],
    told: dict[str, Any],
) -> Keeper:
    """Return what saves and stops; refuse to begin where nothing tells the best checkpoint."""
    with quiet():
        from finetune.backends.local.keeper import Keeper
        from finetune.backends.local.trainer import call_within

    local = recipe.local
    best_by = local.best_by or (LOSS if local.early_stopping else None)
    within = task._replace(loss=call_within(task.loss))
    _require_figure(best_by, within, model, validation)
    ranks = told["ranks"]
    return Keeper(
        steps,
        every=local.save_every or max(1, -(-len(steps) // 10)),
        keep=local.keep_checkpoints,
        identity=identity,
        micro_batch_tokens=micro_batch_tokens or max(step.tokens for step in steps),
        measure=partial(measure, within, model, validation, ranks=ranks) if validation else None,
        best_by=best_by,
        patience=local.early_stopping,
        interrupted=lambda: caught.number is not None,
        **told,
    )


def _make_trainer(
    task: Task,
    model: Any,
    items: Sequence[Any],
    steps: Sequence[Step],
    recipe: Recipe,
    keeper: Keeper,
    folder: Path,
    ranks: Ranks,
) -> PackedTrainer:
    from finetune.backends.local.trainer import PackedTrainer, configure

    arguments = configure(recipe, len(steps), folder=folder / _SAVING, bf16=is_half(model))
    factor = recipe.local.spike_factor
    return PackedTrainer(
        task, model, arguments, items, steps, keeper, spike_factor=factor, ranks=ranks
    )


def _train(trainer: PackedTrainer, keeper: Keeper, folder: Path, newest: Checkpoint | None) -> None:
    from finetune.backends.local.keeper import Halt

    with _explained(keeper, folder, newest):
        try:
            trainer.train(resume_from_checkpoint=str(newest.folder) if newest else None)
        except Halt:
            if keeper.step > keeper.saved:
                trainer.save_now()


def _require_end(keeper: Keeper, steps: int, folder: Path, number: int | None) -> None:
    if keeper.stopped or keeper.can_halt():
        saved = f"saved after step {keeper.step}" if keeper.saved else "before the first step"
        raise Interrupted(
            number or signal.SIGTERM,  # where another rank got it
            f"{folder}: interrupted, {saved} of {steps}",
            hint="the same command goes on from there",
        )


def find_start(
    folder: Path,
    identity: dict[str, Any],
    steps: Sequence[int] | None = None,
    *,
    damaged: Callable[[str], None] = lambda _: None,
    ranks: Ranks = ALONE,
) -> Checkpoint | None:
    """Return what `checkpoints.find_whole` finds, the same on all ranks; remove half of one.

    Raises:
        RunError: It belongs to another identity, or lies where this rank does not see it.
    """
    found = None
    if ranks.first:
        found = find_whole(folder, identity, steps, damaged=damaged)
        shutil.rmtree(folder / _SAVING, ignore_errors=True)
    facts = (found.step, found.micro_batch_tokens) if found else (0, 0)
    step, tokens = (int(value) for value in ranks.add(*facts))
    if ranks.first or not step:
        return found
    found = Checkpoint(folder / f"step-{step}", step, tokens)
    if not found.folder.is_dir():
        raise RunError(
            f"{found.folder}: not on this machine",
            hint="the run folder must lie where all nodes see it",
        )
    return found


def _choose(
    trainer: PackedTrainer,
    keeper: Keeper,
    folder: Path,
    identity: dict[str, Any],
    ranks: Ranks,
) -> Fitted:
    """Give the model the weights of the best checkpoint, where one is asked for."""
    history = trainer.state.log_history
    step = keeper.step
    if keeper.best_by is not None:
        ranked = rank_steps(history, keeper.best_by)
        best = find_start(
            folder,
            identity,
            ranked,
            damaged=lambda name: keeper.note("damaged_checkpoint", checkpoint=name),
            ranks=ranks,
        )
        if best is not None and best.step != step:
            trainer.load(str(best.folder))
            step = best.step
            keeper.note("best_checkpoint", step=step)
    line: dict[str, Any] = next((line for line in history if line["step"] == step), {})
    figures = {name: value for name, value in line.items() if name.startswith("validation_")}
    return Fitted(step, keeper.step, figures, sum(SKIPPED in line for line in history))


def _require_figure(best_by: str | None, task: Task, model: Any, validation: Sequence[Any]) -> None:
    """Refuse to begin where nothing will tell which checkpoint is the best."""
    if best_by is None:
        return
    if not validation:
        raise RecipeError(
            "`data.validation`: nothing to validate on: the best checkpoint can't be told",
            hint="set `data.validation`, or leave `local.best_by` and `local.early_stopping` out",
        )
    known = measure(task, model, validation[:1], limit=1) if best_by != LOSS else [LOSS]
    if best_by not in known:
        raise RecipeError(
            f"`local.best_by`: `{best_by}` is not measured: {', '.join(known)}",
            hint=did_you_mean(best_by, known),
        )


@contextlib.contextmanager
def _packed(model: Any, *, again: bool) -> Iterator[None]:
    """Let the model attend within samples, and with `again` hold no activations."""
    from finetune.backends.local.attention import attend_within

    with attend_within(model):
        if again:
            model.enable_input_require_grads()
            model.activation_checkpointing_enable({"use_reentrant": False})
        yield


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
def _explained(keeper: Keeper, folder: Path, newest: Checkpoint | None) -> Iterator[None]:
    """Say what it was about when a checkpoint can't be read or written; leave no half of one."""
    from finetune.backends.local.trainer import LESS_MEMORY

    try:
        yield
    except Exception as error:
        if isinstance(error, FinetuneError):
            raise
        if isinstance(error, UnpicklingError) and newest:
            raise RunError(
                f"{newest.folder}: can't be read: it holds more than tensors",
                hint="somebody has changed it: delete it, and the one before is used",
            ) from error
        if is_out_of_memory(error):
            fact = f"step {keeper.step + 1}: out of memory"
            raise TrainingError(fact, hint=LESS_MEMORY) from error
        if keeper.saving is None:
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
