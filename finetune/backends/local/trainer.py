"""The thin layer over TRL's SFTTrainer: packed rows in, chunked loss, exact weights.

One item of the trainer's dataset is one optimizer step of the schedule. The trainer keeps its
loop, its optimizer, its clipping and its saving; nothing of it is patched.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, PrinterCallback, TrainerCallback, set_seed
from trl import SFTConfig, SFTTrainer
from trl.models.utils import _ForwardRedirection

from finetune.backends.local.checkpoints import commit
from finetune.backends.local.full import load_weights, save_weights
from finetune.backends.local.ranks import ALONE, Ranks
from finetune.backends.local.schedule import share_step
from finetune.backends.local.task import Task, count_items
from finetune.errors import TrainingError

__all__ = ["Keeper", "PackedTrainer", "call_within", "collate_step", "configure"]

if TYPE_CHECKING:
    from finetune.backends.local.schedule import Step
    from finetune.progress import Progress
    from finetune.recipe.tree import Recipe


class PackedTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer on finished items of any method.

    Args:
        task: The method.
        model: What it prepared, its attention set to `attention.NAME`.
        args: See `configure`.
        items: All items of the run.
        steps: The schedule.
        callbacks: The trainer's callbacks.
        ranks: Which of the processes this is that train together.
    """

    loss_is_scaled_for_ga = True  # `compute_loss` divides by the whole step's items

    def __init__(
        self,
        task: Task,
        model: Any,
        args: SFTConfig,
        items: Sequence[Any],
        steps: Sequence[Step],
        callbacks: Sequence[TrainerCallback] = (),
        ranks: Ranks = ALONE,
    ) -> None:
        self._task, self._items, self._steps, self._ranks = task, items, steps, ranks
        self._redirect = _ForwardRedirection()
        self._figures: dict[str, float] = {}
        super().__init__(
            model=model,
            args=args,
            data_collator=lambda rows: collate_step(task, items, steps[rows[0]["step"]], ranks),
            # The trainer deals rows out in turn: each rank gets one of every step.
            train_dataset=Dataset.from_dict(
                {"step": [step for step in range(len(steps)) for _ in range(ranks.total)]}
            ),
            # TRL asks for a tokenizer, though nothing is left to tokenize
            processing_class=PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE())),
            callbacks=list(callbacks),
        )
        self.processing_class = None  # so that none is saved into every checkpoint
        self.remove_callback(PrinterCallback)
        set_seed(args.seed + ranks.number)  # what drops out differs between ranks

    def training_step(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Run the micro-batches of one optimizer step, and stop before a loss that is no number."""
        self._figures = {}
        losses, common = [], self._survey(model)
        batches = list(zip(inputs["micro_batches"], inputs["counted"], strict=True))
        for number, (batch, counted) in enumerate(batches, 1):
            # Gradients are averaged over the ranks, and the mean is over the items of all of them.
            # What is divided by infinity is computed so that all ranks compute equally often.
            items = num_items_in_batch / self._ranks.total if counted else math.inf
            with self._exchange(model, last=number == len(batches)):
                losses.append(super().training_step(model, batch | common, items))
        loss = torch.stack(losses).sum()
        if not math.isfinite(loss):
            raise no_number(self.state.global_step + 1, f"the loss is {loss.item()}")
        return loss

    @torch.no_grad()
    def _survey(self, model: Any) -> dict[str, Any]:
        """Return what the method has to say about all items of the step, the same on each rank."""
        if self._task.survey is None:
            return {}
        groups = self._steps[self.state.global_step].micro_batches
        members = [self._items[index] for group in groups for index in group]
        inner = self.accelerator.unwrap_model(model)
        found: dict[str, Any] = self._redirect(model, inner, self._task.survey, inner, members)
        return found

    def _exchange(self, model: Any, *, last: bool) -> Any:
        """Exchange gradients with the last micro-batch of a step only."""
        if last or self._ranks.total == 1 or self.is_deepspeed_enabled:
            return contextlib.nullcontext()
        return self.accelerator.no_sync(model)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> torch.Tensor:
        """Return the micro-batch's share of the step's mean loss, weighted by token."""
        # The trainer opens autocast around the model's own forward only, and this goes beside it,
        # but through the forward of what wraps the model to exchange gradients or weights.
        inner = self.accelerator.unwrap_model(model)
        with self.accelerator.autocast():
            total, sums = self._redirect(model, inner, self._task.loss, inner, inputs)
        for name, value in sums.items():
            share = value.item() / float(num_items_in_batch)
            self._figures[name] = self._figures.get(name, 0.0) + share
        return torch.div(total, num_items_in_batch)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the method's own figures beside the loss of their step."""
        if "loss" in logs and self._figures:
            sums = self._ranks.add(*self._figures.values())
            means = (value / self._ranks.total for value in sums)
            logs = logs | dict(zip(self._figures, means, strict=True))
        super().log(logs, start_time)

    def _get_num_items_in_batch(
        self, batch_samples: list[dict[str, Any]], device: torch.device
    ) -> torch.Tensor:
        return torch.tensor(sum(step["items"] for step in batch_samples), device=device)

    def _send_telemetry(self) -> None:
        """Send nothing: no run of ours is anybody else's business."""

    def _save(
        self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None
    ) -> None:
        # By default PEFT asks the hub whether the base's vocabulary is another: it never is here.
        folder = output_dir or self.args.output_dir
        if not self.args.should_save:
            return
        if hasattr(self.model, "peft_config"):
            self.model.save_pretrained(folder, state_dict=state_dict, save_embedding_layers=False)
            self._task.save(self.model, Path(folder))
        else:
            save_weights(self.model, Path(folder))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if hasattr(self.model, "peft_config") or self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            self._task.load(model or self.model, Path(resume_from_checkpoint))
        else:
            load_weights(self.model, Path(resume_from_checkpoint))


class Keeper(TrainerCallback):  # type: ignore[misc]
    """Writes metrics, measures validation, commits checkpoints, and stops on a signal.

    Args:
        steps: The schedule.
        every: Steps between two checkpoints; the last step is saved in any case.
        keep: Committed checkpoints that stay.
        identity: Written into each checkpoint.
        measure: Returns the validation loss; None where there is nothing to validate on.
        interrupted: Tells whether to save and stop after this step.
        metric: Takes the figures of each step.
        progress: Told of each step.
        ranks: Which of the processes this is that train together.

    Attributes:
        step: Last step done.
        stopped: Whether a signal has ended it, here or on another rank.
        saving: The step whose checkpoint is being written, else None.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        *,
        every: int,
        keep: int,
        identity: dict[str, Any],
        measure: Callable[[], float] | None,
        interrupted: Callable[[], bool],
        metric: Callable[..., None],
        progress: Progress,
        ranks: Ranks = ALONE,
    ) -> None:
        self._ranks = ranks
        self._steps, self._every, self._keep, self._identity = steps, every, keep, identity
        self._measure, self._interrupted = measure, interrupted
        self._metric, self._progress = metric, progress
        self._tokens = list(itertools.accumulate(step.tokens for step in steps))
        self.step = 0
        self.stopped = False
        self.saving: int | None = None

    def on_step_begin(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_pre_optimizer_step(self, _args: Any, state: Any, _control: Any, **kwargs: Any) -> None:
        """Stop before a gradient that is no number reaches the weights."""
        gradients = [p.grad for p in kwargs["model"].parameters() if p.grad is not None]
        if not math.isfinite(torch.nn.utils.get_total_norm(gradients)):
            raise no_number(state.global_step + 1, "a gradient is no number")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure, and decide whether to save and to stop."""
        self.step = state.global_step
        self._seconds = time.perf_counter() - self._started
        last = self.step == len(self._steps)
        due = last or self.step % self._every == 0
        self._validation = self._measure() if due and self._measure else None
        self.stopped = self._ranks.any(self._interrupted())  # all of them, or none
        control.should_training_stop = self.stopped
        if due or control.should_training_stop:
            control.should_save = True

    def on_log(self, _args: Any, state: Any, control: Any, logs: Any, **_: Any) -> None:
        """Write the step's line of metrics."""
        if "loss" not in logs:
            return
        step = self._steps[state.global_step - 1]
        values = {
            **{name: value for name, value in logs.items() if name != "epoch"},
            "tokens_per_second": step.tokens / self._seconds,
        }
        if self._validation is not None:
            values["validation_loss"] = self._validation
        tokens = self._tokens[state.global_step - 1]
        self._metric(step=state.global_step, epoch=step.epoch, tokens=tokens, **values)
        self._progress("train", state.global_step, len(self._steps), **values)
        self.saving = state.global_step if control.should_save else None  # comes next

    def on_save(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Commit what the trainer has saved."""
        saved = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        self._ranks.wait()  # each has saved its part
        if self._ranks.first:
            commit(saved, state.global_step, identity=self._identity, keep=self._keep)
        self._ranks.wait()
        self.saving = None


def collate_step(
    task: Task, items: Sequence[Any], step: Step, ranks: Ranks = ALONE
) -> dict[str, Any]:
    """Return what a rank needs for an optimizer step.

    Returns:
        `micro_batches`: tensors; `counted`: whether each counts; `items`: those of all ranks.
    """
    mine = share_step(step, ranks.number, ranks.total)
    return {
        "micro_batches": [task.collate([items[i] for i in group]) for group, _ in mine],
        "counted": [counted for _, counted in mine],
        "items": sum(count_items([items[i] for i in group]) for group in step.micro_batches),
    }


def call_within(loss: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Return a loss that is computed within the model's own call, where shards are gathered."""
    redirect = _ForwardRedirection()
    return lambda model, batch: redirect(model, model, loss, model, batch)


def no_number(step: int, fact: str) -> TrainingError:
    """Return the error of a step that went wrong in arithmetic."""
    return TrainingError(
        f"step {step}: {fact}",
        hint="lower `training.learning_rate`; the last good checkpoint is kept",
    )


def configure(recipe: Recipe, steps: int, *, folder: Path, bf16: bool) -> SFTConfig:
    """Return the trainer's arguments.

    Args:
        recipe: The recipe.
        steps: Optimizer steps of the run.
        folder: Where the trainer saves; checkpoints are committed from there.
        bf16: Whether to compute in bfloat16.
    """
    training, local = recipe.training, recipe.local
    arguments = SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=1,  # one item is one step
        gradient_accumulation_steps=1,
        num_train_epochs=1,
        train_sampling_strategy="sequential",  # the schedule has shuffled
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        learning_rate=training.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=round(training.warmup_fraction * steps),
        weight_decay=training.weight_decay,
        max_grad_norm=local.max_grad_norm,
        optim="adamw_torch_fused",
        seed=recipe.seed,
        bf16=bf16,
        use_cpu=not torch.cuda.is_available(),
        ddp_find_unused_parameters=False,  # every adapter is in every loss
        dataloader_pin_memory=torch.cuda.is_available(),
        gradient_checkpointing=False,  # set on the model where it is wanted
        save_strategy="no",  # the callback decides
        eval_strategy="no",
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to="none",
        # With frozen experts off; otherwise the model's own coefficient, which the loss applies.
        router_aux_loss_coef=None if local.lora.experts or local.full else 0.0,
    )
    arguments._n_gpu = 1  # noqa: SLF001 (a process has one GPU; with more, it would take them all)
    return arguments
