"""`plan`: the bill before anything is spent, downloaded or sent.

Example:
    >>> plan = make_plan(recipe, dataset)               # doctest: +SKIP
    >>> plan.steps, plan.tokens, plan.memory.total      # doctest: +SKIP
    (126, 61250, 2_431_000_000)
"""

from __future__ import annotations

from collections.abc import Mapping
from os import environ

import msgspec

from finetune.backends.local.device import Device, find_device, share_device
from finetune.backends.local.kto import check_ratings
from finetune.backends.local.memory import (
    Memory,
    choose_memory,
    count_adapter,
    estimate_memory,
    find_longest,
)
from finetune.backends.local.schedule import DEFAULT_EPOCHS, plan_training
from finetune.backends.local.speed import count_flops
from finetune.catalog import LICENCES
from finetune.corpus import Dataset
from finetune.corpus.labels import fill_targets
from finetune.corpus.privacy.egress import judge_egress
from finetune.errors import DataError
from finetune.evaluation.judge import open_judge
from finetune.planning.counting import Counting, SourceCount, add_up, count_dataset
from finetune.planning.gpus import name_gpus, name_least
from finetune.planning.place import Place, check_model
from finetune.planning.problems import find_crowd, list_problems
from finetune.planning.service import Cost, Upload, name_fate, name_host, plan_upload
from finetune.progress import Progress, silent
from finetune.recipe import Recipe
from finetune.recipe.tree import ClassifierTarget
from finetune.text import plural

__all__ = [
    "Download",
    "MemoryPlan",
    "Plan",
    "SourceCount",
    "check_model",
    "make_plan",
]


class Download(msgspec.Struct):
    """What would be fetched: bytes are an estimate from the number of weights."""

    what: str
    size_bytes: int | None
    gated: bool | None
    token_present: bool


class MemoryPlan(msgspec.Struct):
    """Memory against the device.

    Attributes:
        device: Its name.
        available_bytes: What it has free, or what was given by hand.
        total_bytes: What training takes at its peak.
        parts: The same by part.
        fits: It takes no more than there is.
        micro_batch_tokens: Tokens computed at once.
        gradient_checkpointing: Whether activations are computed again.
        largest_seq_len: The longest sample that would fit.
        trainable: Trained weights by module.
        processes: How many train together; the figures are those of one.
    """

    device: str
    available_bytes: int
    total_bytes: int
    parts: dict[str, int]
    fits: bool
    micro_batch_tokens: int
    gradient_checkpointing: bool
    largest_seq_len: int
    trainable: dict[str, int]
    processes: int


class Target(msgspec.Struct):
    """What a classifier tells: as `training.classifier_targets`, with nothing left open."""

    name: str
    labels: list[str]
    weight: float
    loss_function: str


class Plan(msgspec.Struct, kw_only=True):
    """The bill of a recipe.

    Attributes:
        name, model, method, backend: As in the recipe.
        licence: The model's, with what it says of commercial use.
        dataset: The dataset folder.
        targets: What a classifier tells, filled in from the data.
        sources: Counts of each train file.
        validation_records, evaluation_records: Records held out.
        records, samples, tokens, trained_tokens, expansion_tokens, longest: Of all sources.
        exact: Counted with the model's own tokenizer.
        tokenizer: What counted.
        steps: Optimizer steps; None where the service decides.
        epochs: Passes over the data; None where the service decides.
        tokens_seen: Tokens of all steps.
        flops: Floating-point operations of the training; None where the model's shape is not
            known, or the service trains.
        tokens_per_second: The speed that an earlier run of this model had here, if one did.
        seconds: Duration at that speed.
        memory: None where the model's shape is not known, or the service trains.
        disk_bytes: Checkpoints and adapter.
        downloads: What would be fetched.
        uploads: What would leave this machine.
        cost: Money, where a service trains.
        notes: What else one should know.
        problems: What would stop the run.
    """

    name: str
    model: str
    method: str
    backend: str
    licence: str | None
    dataset: str
    targets: list[Target]
    sources: list[SourceCount]
    validation_records: int
    evaluation_records: int
    records: int
    samples: int
    tokens: int
    trained_tokens: int
    expansion_tokens: int
    longest: int
    exact: bool
    tokenizer: str | None
    steps: int | None
    epochs: float | None
    tokens_seen: int | None
    flops: float | None
    tokens_per_second: float | None
    seconds: float | None
    memory: MemoryPlan | None
    disk_bytes: int
    downloads: list[Download]
    uploads: list[Upload]
    cost: Cost | None
    notes: list[str]
    problems: list[str]


def make_plan(
    recipe: Recipe,
    dataset: Dataset,
    *,
    memory: int | None = None,
    device: Device | None = None,
    speed: float | None = None,
    cost: str | None = None,
    environment: Mapping[str, str] = environ,
    progress: Progress = silent,
) -> Plan:
    """Return the bill of a recipe on a prepared dataset; downloads nothing, imports no torch.

    Args:
        recipe: What would be run.
        dataset: Its dataset.
        memory: Plan for a GPU with so many bytes, instead of for this machine.
        device: Plan for this device, instead of for this machine's own.
        speed: Tokens a second measured with this model on this machine.
        cost: What a validated job of this recipe and data costs, where there is one.
        environment: Where `HF_TOKEN` is looked for.
        progress: Told of the records counted.

    Raises:
        RecipeError: `training.seq_len` is above the model's context.
        UsageError: There is no such model.
        DataError: Not one record can be trained, the labels of a classifier cannot, or all
            ratings are the same.
    """
    place = check_model(recipe)
    recipe = fill_targets(recipe, dataset)
    if recipe.method == "kto":
        check_ratings(dataset)
    counting = count_dataset(recipe, dataset, place.model, place.tokenizer, progress=progress)
    if not counting.lengths:
        raise DataError("no sample is left to train on", file=str(dataset.folder))
    plan = _Bill(recipe, dataset, place, counting, environment).make(
        _describe(memory) if memory else device or find_device(), speed, cost
    )
    if memory is None and device is None and plan.backend == "local":
        plan.notes += find_crowd(recipe.local.launch)
    return plan


class _Bill:
    """Puts the plan together from what was counted."""

    def __init__(
        self,
        recipe: Recipe,
        dataset: Dataset,
        place: Place,
        counting: Counting,
        environment: Mapping[str, str],
    ) -> None:
        self.recipe, self.dataset, self.place = recipe, dataset, place
        self.counting, self.environment = counting, environment
        self.local = recipe.backend == "local"

    def make(self, device: Device, speed: float | None, told: str | None) -> Plan:
        recipe, counting = self.recipe, self.counting
        total = add_up(counting.sources)
        steps = epochs = seen = None
        if self.local:
            weights = None if set(counting.weights) <= {1.0} else counting.weights
            schedule = plan_training(recipe, counting.lengths, weights, counting.passes)
            steps, epochs = len(schedule), schedule[-1].epoch
            seen = sum(step.tokens for step in schedule)
        elif recipe.training.steps is None:
            epochs = recipe.training.epochs or DEFAULT_EPOCHS
        uploads, cost = (
            ([], None)
            if self.local
            else plan_upload(recipe, self.dataset, self.place.model, total.tokens, told)
        )
        memory = self._memory(device, total) if self.local else None
        return Plan(
            name=recipe.name,
            model=recipe.model,
            method=recipe.method,
            backend=recipe.backend,
            licence=self._licence(),
            dataset=str(self.dataset.folder),
            targets=[_target(target) for target in recipe.training.classifier_targets],
            sources=counting.sources,
            validation_records=self._held_out("validation"),
            evaluation_records=self._held_out("evaluation"),
            records=total.records,
            samples=total.samples,
            tokens=total.tokens,
            trained_tokens=total.trained_tokens,
            expansion_tokens=total.expansion_tokens,
            longest=total.longest,
            exact=counting.exact,
            tokenizer=counting.tokenizer,
            flops=self._count_flops(seen, total) if seen else None,
            tokens_per_second=speed if seen else None,
            seconds=seen / speed if seen and speed else None,
            memory=memory,
            disk_bytes=self._disk(),
            downloads=self._downloads(),
            uploads=uploads,
            cost=cost,
            notes=self._notes(total, memory),
            problems=list_problems(self.recipe, total),
            steps=steps,
            epochs=epochs,
            tokens_seen=seen,
        )

    def _count_flops(self, seen: int, total: SourceCount) -> float | None:
        shape = self.place.shape
        if shape is None:
            return None
        share = total.trained_tokens / max(1, total.tokens)
        samples = [(length, length * share) for length in self.counting.lengths]
        trained = count_adapter(shape, self.recipe)
        experts = trained.get("experts", 0)
        once = count_flops(shape, sum(trained.values()), samples, of_experts=experts)
        return once * seen / sum(self.counting.lengths)

    def _held_out(self, name: str) -> int:
        path = getattr(self.dataset, name)
        return self.dataset.manifest["files"][path.name]["records"] if path else 0

    def _memory(self, device: Device, total: SourceCount) -> MemoryPlan | None:
        shape = self.place.shape
        if shape is None:
            return None
        recipe = self.recipe
        device = share_device(device, recipe.local.launch.processes)
        chosen: Memory = choose_memory(
            shape, recipe, device, self.counting.lengths, budget=device.total
        )
        # The loss takes what is trained of a micro-batch: its share, as in the data.
        share = total.trained_tokens / max(1, total.tokens)
        chosen = estimate_memory(
            shape,
            recipe,
            device,
            tokens=chosen.micro_batch_tokens,
            trained=round(chosen.micro_batch_tokens * share),
            gradient_checkpointing=chosen.gradient_checkpointing,
        )
        longest = find_longest(
            shape, recipe, device, budget=device.free, context=self.place.context or 2**20
        )
        return MemoryPlan(
            device=device.name,
            available_bytes=device.free,
            total_bytes=chosen.total,
            parts=chosen.parts,
            fits=chosen.total <= device.free,
            micro_batch_tokens=chosen.micro_batch_tokens,
            gradient_checkpointing=chosen.gradient_checkpointing,
            largest_seq_len=longest,
            trainable=count_adapter(shape, recipe),
            processes=recipe.local.launch.processes * recipe.local.launch.nodes,
        )

    def _disk(self) -> int:
        if not self.local or self.place.shape is None:
            return 0
        adapter = 4 * sum(count_adapter(self.place.shape, self.recipe).values())
        # A checkpoint holds the adapter and AdamW's two moments; one more is being written.
        return adapter * (3 * (self.recipe.local.keep_checkpoints + 1) + 1)

    def _downloads(self) -> list[Download]:
        model, folder = self.place.model, self.place.folder
        if not self.local or folder is not None or (model and model.package):
            return []
        token = bool(self.environment.get("HF_TOKEN"))
        if model is None:
            return [Download(self.recipe.model, None, None, token)]
        return [Download(model.hub_id or model.name, model.download_bytes, model.gated, token)]

    def _licence(self) -> str | None:
        if self.place.model is None:
            return None
        licence = LICENCES[self.place.model.licence]
        return f"{licence.name}: {licence.note}"

    def _notes(self, total: SourceCount, memory: MemoryPlan | None) -> list[str]:
        notes = [self.counting.note] if self.counting.note else []
        model = self.place.model
        if model and model.note:
            notes.append(f"{model.name}: {model.note}")
        if self.local and self.place.shape is None:
            notes.append("memory: the model's shape is not known here before its download")
            notes += name_least(self.place.model, self.recipe)
        if memory is not None and not memory.fits:
            notes.append(name_gpus(memory.parts))
        if total.too_long and not self.local:
            fate = name_fate(self.recipe)
            notes.append(f"{plural(total.too_long, 'sample')} longer than `training.seq_len`{fate}")
        if not self.local and name_host(self.recipe)[1]:
            notes.append("the service is on this machine: the data do not leave it")
        elif not self.local:
            allows = self.recipe.egress.personal_data
            egress = judge_egress(allows, self.dataset.manifest.get("privacy"))
            verb = "allows" if egress.allowed else "does not allow"
            notes.append(f"{egress.fact}: `egress.personal_data: {allows}` {verb} the upload")
        bench = open_judge(self.recipe, self.dataset.manifest)
        if bench is not None:
            shown = plural(bench.settings.limit, "held-out record")
            notes.append(
                f"judge: up to {shown} and the answers to them go"
                f" to {bench.address.host}" + (" (this machine)" if bench.address.local else "")
            )
        if total.dropped and self.local:
            notes.append(f"{plural(total.dropped, 'sample')} over `training.seq_len` left out")
        if total.shortened and self.local:
            notes.append(f"{plural(total.shortened, 'sample')} shortened to `training.seq_len`")
        return notes


def _target(target: ClassifierTarget) -> Target:
    return Target(target.name, target.labels, target.weight, str(target.loss_function))


def _describe(memory: int) -> Device:
    return Device(kind="cuda", name="a GPU", total=memory, free=memory, bf16=True)
