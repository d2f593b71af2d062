"""Fine-tuning jobs."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field, model_validator

from finetune.server.contract.base import Body, Reply, Request

Status = Literal[
    "QUEUED",
    "STARTED",
    "VALIDATING",
    "VALIDATED",
    "RUNNING",
    "FAILED_VALIDATION",
    "FAILED",
    "SUCCESS",
    "CANCELLED",
    "CANCELLATION_REQUESTED",
]
LIVE: tuple[Status, ...] = (
    "QUEUED",
    "STARTED",
    "VALIDATING",
    "VALIDATED",
    "RUNNING",
    "CANCELLATION_REQUESTED",
)
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(gt=0)]


class ClassifierHyperparameters(Request):
    """How a classifier is trained."""

    training_steps: Annotated[int, Field(ge=1)] | None = None
    """Optimizer steps, instead of `epochs`; filled in by validation."""
    learning_rate: Annotated[float, Field(ge=1e-8, le=1)] = 1e-4
    """Peak learning rate."""
    weight_decay: Share | None = 0.1
    """Weight decay of AdamW."""
    warmup_fraction: Share | None = 0.05
    """Share of the steps in which the learning rate rises."""
    epochs: Weight | None = None
    """Passes over the data; filled in by validation."""
    seq_len: Annotated[int, Field(ge=100)] | None = None
    """The longest sample in tokens; the server's choice where null."""


class CompletionHyperparameters(ClassifierHyperparameters):
    """How a model that completes is trained."""

    fim_ratio: Share | None = 0.9
    """Share of the documents trained as a middle to fill in; nothing for conversations."""


class TrainingFile(Request):
    """A file to train on."""

    file_id: UUID
    """Its number."""
    weight: Weight = 1.0
    """How often its records are seen relative to those of weight 1."""


class Wandb(Request):
    """A tracker."""

    type: Literal["wandb"] = "wandb"
    """Which one."""
    project: str
    """The project there."""
    name: str | None = None
    """The run's name there."""
    api_key: Annotated[str, Field(min_length=40, max_length=40)]
    """The key there."""
    run_name: str | None = None
    """The run's name there."""


class WandbOut(Reply):
    """A tracker, without its key."""

    type: Literal["wandb"] = "wandb"
    """Which one."""
    project: str
    """The project there."""
    name: str | None = None
    """The run's name there."""
    run_name: str | None = None
    """The run's name there."""
    url: str | None = None
    """The run's page there."""


class Repository(Request):
    """A repository to train on."""

    type: Literal["github"] = "github"
    """Where it is."""
    name: str
    """Its name."""
    owner: str
    """Its owner."""
    ref: str | None = None
    """Branch, tag or commit."""
    weight: Weight = 1.0
    """How often its documents are seen."""
    token: str
    """The key there."""


class RepositoryOut(Reply):
    """A repository, without its key."""

    type: Literal["github"] = "github"
    """Where it is."""
    name: str
    """Its name."""
    owner: str
    """Its owner."""
    ref: str | None = None
    """Branch, tag or commit."""
    weight: Weight = 1.0
    """How often its documents are seen."""
    commit_id: Annotated[str, Field(min_length=40, max_length=40)]
    """The commit that was taken."""


class ClassifierTargetRequest(Request):
    """A question that a classifier answers."""

    name: str
    """Its name."""
    labels: list[str]
    """The answers."""
    weight: Annotated[float, Field(ge=0)] = 1.0
    """Its share of the loss."""
    loss_function: Literal["single_class", "multi_class"] | None = None
    """One label a sample, or any number of them."""


class ClassifierTarget(Reply):
    """A question that a classifier answers."""

    name: str
    """Its name."""
    labels: list[str]
    """The answers."""
    weight: float
    """Its share of the loss."""
    loss_function: Literal["single_class", "multi_class"]
    """One label a sample, or any number of them."""


class JobRequest(Body, Request):
    """What a job is to do."""

    model: str
    """The base, by its name here (`GET /v1/models`)."""
    hyperparameters: CompletionHyperparameters
    """How it is trained; a classifier takes all but `fim_ratio`."""
    training_files: list[TrainingFile] = []
    """What it is trained on."""
    validation_files: list[UUID] | None = None
    """What is measured while it trains."""
    suffix: Annotated[str, Field(max_length=18)] | None = None
    """Part of the tuned model's name."""
    integrations: list[Wandb] | None = None
    """Trackers: none is served here."""
    auto_start: bool = False
    """Train as soon as the data are validated."""
    invalid_sample_skip_percentage: Annotated[float, Field(ge=0, le=0.5)] = 0
    """The fraction (not percentage) of samples that may be left out as invalid."""
    job_type: Literal["completion", "classifier"] | None = None
    """What is trained; by the data where null."""
    repositories: list[Repository] | None = None
    """Repositories: none is fetched here."""
    classifier_targets: list[ClassifierTargetRequest] | None = None
    """What a classifier answers; by the data where null."""

    @model_validator(mode="after")
    def _has_data(self) -> JobRequest:
        if not self.training_files and not self.repositories:
            raise ValueError("At least one training file or repository is required.")
        return self


class Metadata(Reply):
    """The bill of a job; cost reads 0.0 before validation."""

    expected_duration_seconds: int | None = None
    """From the speed of earlier jobs of this base, null where there was none."""
    cost: float | None = None
    """By the price that the server's model map names, else 0."""
    cost_currency: str | None = None
    """The currency of `cost`."""
    train_tokens_per_step: int | None = None
    """Mean tokens of an optimizer step."""
    train_tokens: int | None = None
    """`training_steps` × `train_tokens_per_step`."""
    data_tokens: int | None = None
    """Tokens of the training data, once."""
    estimated_start_time: int | None = None
    """Not estimated here."""


class OldMetadata(Metadata):
    """The bill of a job that is not made (`dry_run`)."""

    deprecated: bool = True
    """Always true."""
    details: str
    """What this is, in words."""
    epochs: float | None = None
    """Passes over the data."""
    training_steps: int | None = None
    """Optimizer steps."""
    object: Literal["job.metadata"] = "job.metadata"
    """Always `job.metadata`."""


class Metrics(Reply):
    """What was measured at a checkpoint."""

    train_loss: float | None = None
    """Loss of the step."""
    valid_loss: float | None = None
    """Loss on the validation files."""
    valid_mean_token_accuracy: float | None = None
    """2 to the power of `valid_loss`, as La Plateforme reports it: not an accuracy."""


class Checkpoint(Reply):
    """A place in the training where it was measured."""

    metrics: Metrics
    """What was measured."""
    step_number: int
    """After which optimizer step."""
    created_at: int
    """When, in seconds since 1970."""


class Event(Reply):
    """Something that happened to a job."""

    name: str
    """What: `status-updated`."""
    data: dict[str, Any] | None = None
    """The new status, and why."""
    created_at: int
    """When, in seconds since 1970."""


class _Job(Reply):
    """A job."""

    id: UUID
    """Its number."""
    auto_start: bool
    """Whether it trains as soon as its data are validated."""
    model: str
    """The base."""
    status: Status
    """Where it stands."""
    created_at: int
    """When it was made, in seconds since 1970."""
    modified_at: int
    """When it last changed."""
    training_files: list[UUID]
    """What it is trained on; weights are not told."""
    validation_files: list[UUID] | None = []
    """What is measured while it trains."""
    object: Literal["job"] = "job"
    """Always `job`."""
    fine_tuned_model: str | None = None
    """The tuned model, null before there is one."""
    suffix: str | None = None
    """Part of the tuned model's name."""
    integrations: list[WandbOut] | None = None
    """Trackers."""
    trained_tokens: int | None = None
    """Tokens trained so far."""
    metadata: Metadata | None = None
    """The bill."""


class CompletionJob(_Job):
    """A job that tunes a model that completes."""

    job_type: Literal["completion"] = "completion"
    """What is trained."""
    hyperparameters: CompletionHyperparameters
    """How it is trained."""
    repositories: list[RepositoryOut] = []
    """Repositories it is trained on."""


class ClassifierJob(_Job):
    """A job that trains a classifier."""

    job_type: Literal["classifier"] = "classifier"
    """What is trained."""
    hyperparameters: ClassifierHyperparameters
    """How it is trained."""


class CompletionDetails(CompletionJob):
    """A job with all that happened to it."""

    events: list[Event] = []
    """What happened, oldest first."""
    checkpoints: list[Checkpoint] = []
    """What was measured, oldest first."""


class ClassifierDetails(ClassifierJob):
    """A job with all that happened to it."""

    events: list[Event] = []
    """What happened, oldest first."""
    checkpoints: list[Checkpoint] = []
    """What was measured, oldest first."""
    classifier_targets: list[ClassifierTarget]
    """What it answers."""


Details = CompletionDetails | ClassifierDetails


class JobList(Reply):
    """A page of jobs."""

    data: list[Annotated[CompletionJob | ClassifierJob, Field(discriminator="job_type")]]
    """The jobs, newest first."""
    object: Literal["list"] = "list"
    """Always `list`."""
    total: int
    """How many there are on all pages."""
