"""The thin layer over TRL's SFTTrainer: packed rows in, chunked loss, exact weights.

One item of the trainer's dataset is one optimizer step of the schedule. The trainer keeps its
loop, its optimizer, its clipping and its saving; nothing of it is patched.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from accelerate.utils import DistributedType
from accelerate.utils.memory import clear_device_cache
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, PrinterCallback, set_seed
from trl import SFTConfig, SFTTrainer
from trl.models.utils import _ForwardRedirection

from finetune.backends.local.device import is_out_of_memory
from finetune.backends.local.full import load_weights, save_weights
from finetune.backends.local.history import SKIPPED, count_skipped, is_spike
from finetune.backends.local.keeper import Halt, Keeper
from finetune.backends.local.ranks import ALONE, Ranks
from finetune.backends.local.schedule import share_step, split_finer
from finetune.backends.local.task import Task, count_items
from finetune.errors import TrainingError

if TYPE_CHECKING:
    from finetune.backends.local.schedule import Step
    from finetune.recipe.tree import Recipe

_MOST_SPIKES = 5  # skipped in a row before the run stops
LESS_MEMORY = (
    "lower `training.seq_len`, or set `local.gradient_checkpointing: on` or `local.quantize: 4bit`"
)


class PackedTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer on finished items of any method.

    Args:
        task: The method.
        model: What it prepared, its attention set to `attention.NAME`.
        args: See `configure`.
        items: All items of the run.
        steps: The schedule.
        keeper: Told of all that happens, and asked how much is computed at once.
        spike_factor: See `history.is_spike`.
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
        keeper: Keeper,
        *,
        spike_factor: float | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self._ranks = ranks
        self._redirect = _ForwardRedirection()
        self._task, self._items, self._steps, self._keeper = task, items, steps, keeper
        self._lengths = [item.tokens for item in items]
        self._spike_factor = spike_factor
        self._figures: dict[str, float] = {}
        self._group: list[Any] = []
        trained = [(p, p.data) for p in model.parameters() if p.requires_grad]
        super().__init__(
            model=model,
            args=args,
            data_collator=lambda rows: self._weigh(rows[0]["step"]),
            # The trainer deals rows out in turn: each rank gets one of every step.
            train_dataset=Dataset.from_dict(
                {"step": [step for step in range(len(steps)) for _ in range(ranks.total)]}
            ),
            # TRL asks for a tokenizer, though nothing is left to tokenize
            processing_class=PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE())),
            callbacks=[keeper],
        )
        for parameter, held in trained:
            # TRL rounds adapters on a quantized base to bfloat16, which most of AdamW's updates
            # are too small for.
            if parameter.dtype != held.dtype:
                parameter.data = held.to(parameter.device)
        self.processing_class = None  # so that none is saved into every checkpoint
        self.remove_callback(PrinterCallback)
        set_seed(args.seed + ranks.number)  # what drops out differs between ranks

    def save_now(self) -> None:
        """Save and commit the state after the last whole step."""
        self._save_checkpoint(self.model, None)
        self.callback_handler.on_save(self.args, self.state, self.control)

    def load(self, folder: str) -> None:
        """Take the weights of a checkpoint."""
        self._load_from_checkpoint(folder)

    def training_step(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Run the micro-batches of one optimizer step, and stop before a loss that is no number.

        Where memory does not suffice, the step begins again with the same samples split finer.

        Raises:
            Halt: A signal came in the middle of the step; it was not done.
            TrainingError: The loss is no number, or a single sample takes more memory than there
                is.
        """
        begun = _Randomness.get()
        while True:
            try:
                return self._run_step(model, self._steps[inputs["step"]], num_items_in_batch)
            except Halt:
                self._rewind(model, begun)
                raise
            except (RuntimeError, MemoryError) as error:
                if self._ranks.total > 1 or not is_out_of_memory(error):
                    raise  # the other ranks would wait for ever
                self._split_finer(error)
            self._rewind(model, begun)

    def _run_step(self, model: Any, step: Step, items: Any) -> torch.Tensor:
        ranks = self._ranks
        groups = split_finer(step, self._lengths, self._keeper.micro_batch_tokens)
        mine = share_step(groups, ranks.number, ranks.total)
        self._keeper.micro_batches = len(mine)
        self._figures, self._group = {}, []
        losses, common = [], self._survey(model, step)
        for number, (group, counted) in enumerate(mine, 1):
            if self._keeper.can_halt():
                raise Halt
            self._group = [self._items[index] for index in group]
            batch = self._task.collate(self._group) | common
            # Gradients are averaged over the ranks, and the mean is over the items of all of them.
            # What is divided by infinity is computed so that all ranks compute equally often.
            part = items / ranks.total if counted else math.inf
            with exchange(self.accelerator, model, last=number == len(mine)):
                losses.append(super().training_step(model, batch, part))
        loss = torch.stack(losses).sum()
        if not math.isfinite(loss):
            raise _broken(self.state.global_step + 1, f"the loss is {loss.item()}")
        return loss

    @torch.no_grad()
    def _survey(self, model: Any, step: Step) -> dict[str, Any]:
        """Return what the method has to say about all items of the step, the same on each rank."""
        if self._task.survey is None:
            return {}
        members = [self._items[index] for group in step.micro_batches for index in group]
        inner = self.accelerator.unwrap_model(model)
        found: dict[str, Any] = self._redirect(model, inner, self._task.survey, inner, members)
        return found

    def _split_finer(self, error: Exception) -> None:
        """Compute half as much at once from now on."""
        step, tokens = self.state.global_step + 1, sum(item.tokens for item in self._group)
        if not self._group:
            raise TrainingError(f"step {step}: out of memory", hint=LESS_MEMORY) from error
        if len(self._group) == 1:
            fact = f"out of memory: one sample of {tokens} tokens does not fit"
            raise TrainingError(f"step {step}: {fact}", hint=LESS_MEMORY) from error
        self._keeper.split_finer(step, tokens // 2)

    def _rewind(self, model: Any, begun: _Randomness) -> None:
        """Return to the beginning of the step."""
        self._group = []
        model.zero_grad()
        clear_device_cache(garbage_collection=True)
        begun.set()

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
        """Log the method's own figures and the validation's beside the loss of their step."""
        if "loss" in logs:
            sums = self._ranks.add(*self._figures.values())
            means = (value / self._ranks.total for value in sums)
            own = dict(zip(self._figures, means, strict=True))
            logs = logs | own | self._keeper.validated
        super().log(logs, start_time)

    def _weigh(self, step: int) -> dict[str, Any]:
        indices = itertools.chain(*self._steps[step].micro_batches)
        return {"step": step, "items": count_items([self._items[index] for index in indices])}

    def _get_num_items_in_batch(
        self, batch_samples: list[dict[str, Any]], device: torch.device
    ) -> torch.Tensor:
        return torch.tensor(sum(step["items"] for step in batch_samples), device=device)

    def _clip_grad_norm(self, model: Any) -> Any:
        """Clip; stop before a gradient that is no number, and skip a step that is a spike."""
        norm: Any = super()._clip_grad_norm(model)
        value = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
        history = self.state.log_history
        step = self.state.global_step + 1
        if not math.isfinite(value):
            raise _broken(step, "a gradient is no number")
        clip = self.args.max_grad_norm
        if self.is_deepspeed_enabled:
            return norm  # it has clipped and gone its step by itself
        if is_spike(history, value, factor=self._spike_factor, clip=clip):
            if count_skipped(history) + 1 == _MOST_SPIKES:
                fact = f"the {_MOST_SPIKES}th spike in a row: gradient norm {value:.3g}"
                raise _broken(step, fact)
            model.zero_grad()  # the optimizer passes over weights without a gradient
            self._figures[SKIPPED] = 1
            self._keeper.note("spike", step=step, grad_norm=value)
        return norm

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self._keeper.begin_save(self.state.global_step)
        super()._save_checkpoint(model, trial)

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


def exchange(accelerator: Any, model: Any, *, last: bool) -> contextlib.AbstractContextManager[Any]:
    """Exchange gradients with the last micro-batch of a step only; DeepSpeed steps with it."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        accelerator.gradient_state._set_sync_gradients(last)  # noqa: SLF001 (as the trainer does)
    elif not last:
        return accelerator.no_sync(model)  # type: ignore[no-any-return]
    return contextlib.nullcontext()


class _Randomness(NamedTuple):
    """The state of the generators that training draws from."""

    cpu: torch.Tensor
    gpus: list[torch.Tensor]

    @classmethod
    def get(cls) -> _Randomness:
        return cls(torch.get_rng_state(), torch.cuda.get_rng_state_all())

    def set(self) -> None:
        torch.set_rng_state(self.cpu)
        torch.cuda.set_rng_state_all(self.gpus)


def call_within(loss: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Return a loss that is computed within the model's own call, where shards are gathered."""
    redirect = _ForwardRedirection()
    return lambda model, batch: redirect(model, model, loss, model, batch)


def _broken(step: int, fact: str) -> TrainingError:
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
