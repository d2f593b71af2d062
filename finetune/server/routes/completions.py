"""`/v1/chat/completions`, `/v1/fim/completions` and both `classifications`."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from starlette.requests import ClientDisconnect

from finetune.files import to_json
from finetune.server.completion import ask_chat, ask_fim, ask_labels, collect, shape
from finetune.server.contract import (
    ChatAnswer,
    ChatClassificationRequest,
    ChatRequest,
    ClassificationAnswer,
    ClassificationRequest,
    FimRequest,
)
from finetune.server.keys import Key
from finetune.server.refusal import Refused
from finetune.server.routes.shared import Caller, Here, refusals

T = TypeVar("T")
router = APIRouter(prefix="/v1", tags=["answers"])
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer; with `stream` as server-sent events that end with `[DONE]`.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
    **refusals(400, 404, 502, 503),
}
_LABELS = refusals(400, 404, 503)


@router.post("/chat/completions", response_model=ChatAnswer, responses=_ANSWERS)
async def complete_chat(
    request: ChatRequest, key: Caller, service: Here, connection: Request
) -> Response:
    """Go on with a conversation."""
    who = service.models.answerer(request.model)
    lines = service.ask(ask_chat(request, who), who)
    return await _answer(request, lines, key, service, connection)


@router.post("/fim/completions", response_model=ChatAnswer, responses=_ANSWERS)
async def complete_fim(
    request: FimRequest, key: Caller, service: Here, connection: Request
) -> Response:
    """Fill in a middle, or go on with a text."""
    who = service.models.answerer(request.model)
    lines = service.ask(ask_fim(request, who), who)
    return await _answer(request, lines, key, service, connection)


@router.post("/classifications", response_model=ClassificationAnswer, responses=_LABELS)
async def label_texts(
    request: ClassificationRequest, key: Caller, service: Here, connection: Request
) -> Response:
    """Classify texts."""
    return await _wait(connection, _label(request, key, service))


@router.post("/chat/classifications", response_model=ClassificationAnswer, responses=_LABELS)
async def label_chats(
    request: ChatClassificationRequest, key: Caller, service: Here, connection: Request
) -> Response:
    """Classify conversations."""
    return await _wait(connection, _label(request, key, service))


async def _label(
    request: ClassificationRequest | ChatClassificationRequest, key: Key, service: Any
) -> Response:
    question = ask_labels(request, service.models.answerer(request.model))
    results: list[Any] = []
    async for line in service.inference.ask(question):
        service.gate.count(key, tokens_in=line["tokens"])
        results = [
            {name: {"scores": scores} for name, scores in one.items()} for one in line["scores"]
        ]
    answer = ClassificationAnswer(id=uuid.uuid4().hex, model=request.model, results=results)
    return Response(answer.model_dump_json(), media_type="application/json")


async def _answer(
    request: ChatRequest | FimRequest,
    lines: AsyncIterator[dict[str, Any]],
    key: Key,
    service: Any,
    connection: Request,
) -> Response:
    if not request.stream:
        answer = await _wait(connection, collect(lines, request.model))
        _count(service, key, answer.usage)
        return Response(answer.model_dump_json(), media_type="application/json")
    parts = shape(lines, request.model)
    # What is refused is refused before the stream begins.
    first = await _wait(connection, anext(parts))
    return StreamingResponse(_events(first, parts, key, service), media_type="text/event-stream")


async def _wait(connection: Request, work: Awaitable[T]) -> T:
    """Return what comes of the work, or stop it when nobody waits for it any more.

    Raises:
        ClientDisconnect: The client has left.
    """

    async def watch() -> None:
        while (await connection.receive())["type"] != "http.disconnect":
            pass

    task, gone = asyncio.ensure_future(work), asyncio.create_task(watch())
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _events(
    first: Any, parts: AsyncIterator[Any], key: Key, service: Any
) -> AsyncIterator[str]:
    usage = None
    try:
        part = first
        while part is not None:
            usage = part.usage or usage
            yield f"data: {part.model_dump_json(exclude_unset=True)}\n\n"
            part = await anext(parts, None)
    except Refused as error:  # too late for a status
        told = {"message": error.body["detail"], "type": "interrupted", "code": error.status}
        # Flat, and under `error` too, where the `openai` client looks for it.
        yield f"data: {to_json({'object': 'error', **told, 'error': told}).decode()}\n\n"
    finally:
        if usage is not None:
            _count(service, key, usage)
    yield "data: [DONE]\n\n"


def _count(service: Any, key: Key, usage: Any) -> None:
    service.gate.count(key, tokens_in=usage.prompt_tokens, tokens_out=usage.completion_tokens)
