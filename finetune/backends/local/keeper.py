"""The trainer's callback: metrics, validation, checkpoints, and when to stop."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from finetune.backends.local.checkpoints import commit
from finetune.backends.local.history import count_stale, rank_steps
from finetune.backends.local.ranks import ALONE, Ranks

if TYPE_CHECKING:
    from finetune.backends.local.schedule import Step
    from finetune.progress import Progress


class Halt(Exception):
    """Training ends between two optimizer steps; the state is that after the last whole one."""


class Keeper(TrainerCallback):  # type: ignore[misc]
    """Writes metrics, measures validation, commits checkpoints, and stops on a signal.

    Args:
        steps: The schedule.
        every: Steps between two checkpoints; the last step is saved in any case.
        keep: Committed checkpoints that stay.
        identity: Written into each checkpoint.
        micro_batch_tokens: Tokens computed at once.
        measure: `validation.measure` of the validation's items; None where there are none.
        best_by: The figure by which a checkpoint is the best, which stays; None keeps the newest.
        patience: Validations in a row that may be no better before training stops.
        interrupted: Tells whether to save and stop.
        metric: Takes the figures of each step.
        event: Takes what is worth a line in the run's journal.
        progress: Told of each step.
        ranks: Which of the processes this is that train together.

    Attributes:
        every: Steps between two checkpoints.
        step: Last step done.
        stopped: Whether a signal has ended it, here or on another rank.
        saved: Last step whose checkpoint is committed.
        saving: The step whose checkpoint is being written, else None.
        best_by: The figure by which a checkpoint is the best, or None.
        micro_batch_tokens: Tokens computed at once: less after memory did not suffice.
        micro_batches: How many the last step had.
        validated: The validation's figures after this step, where they were measured.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        *,
        every: int,
        keep: int,
        identity: dict[str, Any],
        micro_batch_tokens: int,
        measure: Callable[..., dict[str, float]] | None,
        best_by: str | None,
        patience: int | None,
        interrupted: Callable[[], bool],
        metric: Callable[..., None],
        event: Callable[..., None],
        progress: Progress,
        ranks: Ranks = ALONE,
    ) -> None:
        self._ranks = ranks
        self._steps, self.every, self._keep, self._identity = steps, every, keep, identity
        self._measure, self.best_by, self._patience = measure, best_by, patience
        self._metric, self._event, self._progress = metric, event, progress
        self._tokens = list(itertools.accumulate(step.tokens for step in steps))
        self._longest = 0.0  # seconds of a micro-batch
        self._own: dict[str, float] = {}  # figures of this step's line alone
        self._interrupted = interrupted
        self.micro_batch_tokens = micro_batch_tokens
        self.micro_batches = 1
        self.validated: dict[str, float] = {}
        self.step = self.saved = 0
        self.stopped = False
        self.saving: int | None = None

    def can_halt(self) -> bool:
        """Tell whether to drop the step in work: a signal came, and no other rank waits."""
        if self._ranks.total == 1 and self._interrupted():
            self.stopped = True
        return self.stopped

    def note(self, event: str, **facts: float | str) -> None:
        """Write an event into the journal, and show it."""
        self._event(event, **facts)
        self._progress(event.replace("_", " "), 1, 1, **facts)

    def split_finer(self, step: int, limit: int) -> None:
        """Take note that memory did not suffice for more tokens at once than `limit`."""
        self.micro_batch_tokens = limit
        self._own["micro_batch_tokens"] = limit
        self.note("out_of_memory", step=step, micro_batch_tokens=limit)

    def begin_save(self, step: int) -> None:
        """Start the clock of a checkpoint."""
        self.saving, self._save_started = step, time.perf_counter()

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Measure what a signal kept from being measured; stop where nothing is left to do.

        Raises:
            Halt: A signal came, or there was no better validation for long enough.
        """
        self.step = self.saved = state.global_step
        if self._is_due() and not self._has_validation(state):
            figures = self._validate()
            state.log_history[-1].update(figures)
            if figures:
                self._metric(step=self.step, **figures)
        self._ask()
        if self.stopped or self._has_stalled(state):
            raise Halt

    def on_step_begin(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure, and decide whether to save and to stop."""
        self.step = state.global_step
        self._seconds = time.perf_counter() - self._started
        self._longest = max(self._longest, self._seconds / self.micro_batches)
        due = self._is_due()
        self.validated = self._validate() if due else {}
        self._ask()
        control.should_training_stop = self.stopped
        control.should_save = due or self.stopped

    def on_log(self, _args: Any, state: Any, control: Any, logs: Any, **_: Any) -> None:
        """Write the step's line of metrics."""
        if "loss" not in logs:
            return
        step = self._steps[state.global_step - 1]
        values = {
            **{name: value for name, value in logs.items() if name != "epoch"},
            **self._own,
            "tokens_per_second": step.tokens / self._seconds,
        }
        self._own = {}
        tokens = self._tokens[state.global_step - 1]
        self._metric(step=state.global_step, epoch=step.epoch, tokens=tokens, **values)
        self._progress("train", state.global_step, len(self._steps), **values)
        if self.validated and self._has_stalled(state):
            control.should_training_stop = True
            self.note("early_stop", step=self.step, best_step=self._best(state) or self.step)

    def on_save(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Commit what the trainer has saved."""
        saved = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        self._ranks.wait()  # each has saved its part
        if self._ranks.first:
            commit(
                saved,
                state.global_step,
                identity=self._identity,
                micro_batch_tokens=self.micro_batch_tokens,
                keep=self._keep,
                best=self._best(state),
            )
        self._ranks.wait()
        self.saving, self.saved = None, state.global_step
        seconds = time.perf_counter() - self._save_started
        # What a stop takes: the micro-batch in work, and this.
        facts = {"seconds": round(seconds, 3), "stop_seconds": round(seconds + self._longest, 3)}
        self._event("checkpoint", step=state.global_step, **facts)
        self._progress("checkpoint", state.global_step, len(self._steps), **facts)

    def _ask(self) -> None:
        """Stop all ranks where one got a signal."""
        self.stopped = self._ranks.any(self._interrupted())

    def _validate(self) -> dict[str, float]:
        if self._measure is None:
            return {}
        return self._measure(limit=self.micro_batch_tokens, interrupted=self.can_halt)

    def _is_due(self) -> bool:
        return self.step == len(self._steps) or (self.step > 0 and self.step % self.every == 0)

    def _has_validation(self, state: Any) -> bool:
        return any(name.startswith("validation_") for name in state.log_history[-1])

    def _best(self, state: Any) -> int | None:
        if self.best_by is None:
            return None
        return next(iter(rank_steps(state.log_history, self.best_by)), None)

    def _has_stalled(self, state: Any) -> bool:
        if self._patience is None or self.best_by is None:
            return False
        return count_stale(state.log_history, self.best_by) >= self._patience
