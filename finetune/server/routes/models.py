"""`/v1/models` and `/v1/fine_tuning/models`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response
from pydantic import Field
from starlette.exceptions import HTTPException

from finetune.server.contract import (
    ArchivedModel,
    BaseCard,
    CardList,
    ClassifierModel,
    CompletionModel,
    ModelChange,
    ModelDeleted,
    TunedCard,
)
from finetune.server.routes.shared import Here, admit, refusals

router = APIRouter(prefix="/v1", tags=["models"], dependencies=[Depends(admit)])
Card = Annotated[BaseCard | TunedCard, Field(discriminator="type")]
Tuned = Annotated[CompletionModel | ClassifierModel, Field(discriminator="model_type")]


@router.get("/models", response_model=CardList, responses=refusals())
async def list_models(
    service: Here,
    provider: Annotated[str | None, Query(description="Who owns it.")] = None,
    model: Annotated[str | None, Query(description="Its name.")] = None,
) -> Response:
    """List all models: bases, then tuned ones, newest first."""
    cards = [
        card
        for card in service.models.cards().data
        if provider in (None, card.owned_by) and model in (None, card.id)
    ]
    return _json(CardList(data=cards))


@router.get("/models/{model_id:path}", response_model=Card, responses=refusals(404))
async def get_model(model_id: str, service: Here) -> Response:
    """Return one model."""
    return _json(service.models.card(model_id))


@router.delete("/models/{model_id:path}", response_model=ModelDeleted, responses=refusals(403, 404))
async def delete_model(model_id: str, service: Here) -> Response:
    """Delete a tuned model: its adapter and its checkpoints."""
    await service.delete_model(model_id)
    return _json(ModelDeleted(id=model_id))


@router.patch("/fine_tuning/models/{model_id:path}/archive", include_in_schema=False)
async def refuse_change(model_id: str) -> Response:  # noqa: ARG001 (part of the path)
    """Refuse a method that the path does not have: `change_model` would take it for a name."""
    raise HTTPException(405)


@router.patch(
    "/fine_tuning/models/{model_id:path}", response_model=Tuned, responses=refusals(403, 404)
)
def change_model(model_id: str, change: ModelChange, service: Here) -> Response:
    """Give a tuned model a name or a description."""
    return _json(service.models.change(model_id, change))


@router.post(
    "/fine_tuning/models/{model_id:path}/archive",
    response_model=ArchivedModel,
    responses=refusals(403, 404),
)
def archive_model(model_id: str, service: Here) -> Response:
    """Put a tuned model aside: it stays listed and does not answer."""
    service.models.archive(model_id, archived=True)
    return _json(ArchivedModel(id=model_id, archived=True))


@router.delete(
    "/fine_tuning/models/{model_id:path}/archive",
    response_model=ArchivedModel,
    responses=refusals(403, 404),
)
def unarchive_model(model_id: str, service: Here) -> Response:
    """Take a tuned model back."""
    service.models.archive(model_id, archived=False)
    return _json(ArchivedModel(id=model_id, archived=False))


def _json(value: Any) -> Response:
    return Response(value.model_dump_json(), media_type="application/json")
