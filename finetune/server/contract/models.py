"""Models: bases and tuned ones."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from finetune.server.contract.base import Body, Reply, Request
from finetune.server.contract.jobs import ClassifierTarget


class TunedCapabilities(Reply):
    """What a tuned model can do."""

    completion_chat: bool = True
    """It answers in a conversation."""
    completion_fim: bool = False
    """It fills in a middle."""
    function_calling: bool = False
    """It calls tools."""
    fine_tuning: bool = False
    """It can be tuned here."""
    classification: bool = False
    """It classifies."""


class Capabilities(TunedCapabilities):
    """What a model can do here."""

    completion_chat: bool = False
    """It answers in a conversation."""
    vision: bool = False
    """It sees images: none does here."""
    ocr: bool = False
    """It reads pages: none does here."""
    moderation: bool = False
    """It moderates: none does here."""
    audio: bool = False
    """It hears: none does here."""
    audio_transcription: bool = False
    """It writes down speech: none does here."""


class _Card(Reply):
    """A model."""

    id: str
    """Its name."""
    object: Literal["model"] = "model"
    """Always `model`."""
    created: int
    """When it was made, in seconds since 1970; 0 for a base."""
    owned_by: str
    """Who made it."""
    capabilities: Capabilities
    """What it can do here."""
    name: str | None = None
    """A name that was given to it."""
    description: str | None = None
    """What it is."""
    max_context_length: int = 32768
    """The longest sequence, in tokens."""
    aliases: list[str] = []
    """Other names of it."""
    deprecation: str | None = None
    """When it goes: never here."""
    deprecation_replacement_model: str | None = None
    """What takes its place."""
    default_model_temperature: float | None = None
    """The temperature where a request names none."""


class BaseCard(_Card):
    """A base."""

    type: Literal["base"] = "base"
    """Which kind it is."""


class TunedCard(_Card):
    """A tuned model."""

    type: Literal["fine-tuned"] = "fine-tuned"
    """Which kind it is."""
    job: str
    """The job that tuned it."""
    root: str
    """Its base."""
    archived: bool = False
    """It is put aside: listed, not answering."""


Card = Annotated[BaseCard | TunedCard, Field(discriminator="type")]


class CardList(Reply):
    """All models."""

    object: Literal["list"] = "list"
    """Always `list`."""
    data: list[Card]
    """The models: bases, then tuned ones, newest first."""


class ModelDeleted(Reply):
    """A model that was deleted."""

    id: str
    """Its name."""
    object: Literal["model"] = "model"
    """Always `model`."""
    deleted: bool = True
    """Always true."""


class ModelChange(Body, Request):
    """What a tuned model is called; what is absent or null stays as it is."""

    name: str | None = None
    """A name for it."""
    description: str | None = None
    """What it is."""


class _Tuned(Reply):
    """A tuned model."""

    id: str
    """Its id."""
    object: Literal["model"] = "model"
    """Always `model`."""
    created: int
    """When it was made, in seconds since 1970."""
    owned_by: str
    """Who made it."""
    workspace_id: str
    """Where: this server."""
    root: str
    """Its base."""
    root_version: str
    """The weights that the base's name meant."""
    archived: bool
    """It is put aside."""
    name: str | None = None
    """A name that was given to it."""
    description: str | None = None
    """What it is."""
    capabilities: TunedCapabilities
    """What it can do."""
    max_context_length: int = 32768
    """The longest sequence, in tokens."""
    aliases: list[str] = []
    """Other names of it."""
    job: UUID
    """The job that tuned it."""


class CompletionModel(_Tuned):
    """A tuned model that completes."""

    model_type: Literal["completion"] = "completion"
    """Which kind it is."""


class ClassifierModel(_Tuned):
    """A trained classifier."""

    model_type: Literal["classifier"] = "classifier"
    """Which kind it is."""
    classifier_targets: list[ClassifierTarget]
    """What it answers."""


class ArchivedModel(Reply):
    """A model that was put aside, or taken back."""

    id: str
    """Its name."""
    object: Literal["model"] = "model"
    """Always `model`."""
    archived: bool
    """Whether it is put aside now."""
