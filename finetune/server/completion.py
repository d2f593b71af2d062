"""Completion: chat and fill-in-the-middle requests, and the shape of their answers."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from finetune.backends.local.sampling import Sampling
from finetune.records import ChatRecord, ClassifierRecord
from finetune.server.contract import (
    ChatAnswer,
    ChatClassificationRequest,
    ChatRequest,
    Choice,
    ClassificationRequest,
    Delta,
    FimRequest,
    Part,
    PartChoice,
    Usage,
)
from finetune.server.contract.answers import AnswerMessage
from finetune.server.inference import Question
from finetune.server.models import Answerer
from finetune.server.refusal import Refused


def ask_chat(request: ChatRequest, who: Answerer) -> Question:
    """Return the question that a request is.

    Raises:
        Refused: 422: it asks for what is not served here.
    """
    _require_completion(who)
    for name in ("prompt_mode", "reasoning_effort", "guardrails", "safe_prompt"):
        if getattr(request, name):
            raise _fault(name, "is not served here")
    turns = list(request.messages)
    prefix = ""
    last = turns[-1]
    if last.role == "assistant":
        if not last.prefix or not isinstance(last.content, str):
            raise _fault("messages", "the last one is a user's or a tool's, or a `prefix`")
        prefix = last.content
        turns.pop()
    choice, tools = request.tool_choice, request.tools or []
    force = None
    if choice in ("any", "required"):
        force = [tool.function.name for tool in tools]
    elif choice == "none":
        tools = []
    elif not isinstance(choice, str):
        force = [choice.function.name]
    known = {tool.function.name for tool in tools}
    if force is not None and (not force or not known.issuperset(force)):
        raise _fault("tool_choice", "names a tool that is not in `tools`")
    record = {
        "messages": [_turn(turn) for turn in turns],
        "tools": [tool.model_dump() for tool in tools],
    }
    try:
        read = msgspec.convert(record, ChatRecord)
    except msgspec.ValidationError:
        raise _fault("messages", "only text is served here") from None
    return _sampled(
        request,
        who,
        kind="chat",
        messages=read.messages,
        tools=read.tools,
        force=force,
        parallel=request.parallel_tool_calls,
        schema=_wanted(request),
        prefix=prefix,
        count=request.n or 1,
        penalties=(request.presence_penalty, request.frequency_penalty),
    )


def ask_fim(request: FimRequest, who: Answerer) -> Question:
    """Return the question that a request is.

    Raises:
        Refused: 422: the model does not complete.
    """
    _require_completion(who)
    return _sampled(
        request,
        who,
        kind="fim",
        prompt=request.prompt,
        suffix=request.suffix or "",
        least=request.min_tokens or 0,
    )


def _sampled(
    request: ChatRequest | FimRequest,
    who: Answerer,
    *,
    penalties: tuple[float, float] = (0.0, 0.0),
    **facts: Any,
) -> Question:
    stop = request.stop or []
    sampling = Sampling(request.temperature or 0.0, request.top_p, request.random_seed, *penalties)
    return Question(
        id="",
        model=who.model,
        adapter=who.adapter,
        context=who.context,
        limit=request.max_tokens,
        stop=[stop] if isinstance(stop, str) else stop,
        sampling=sampling,
        **facts,
    )


def _require_completion(who: Answerer) -> None:
    if who.classifier:
        raise Refused(422, f"Model {who.name} classifies: use /v1/classifications.")


def _turn(turn: Any) -> dict[str, Any]:
    """Return a message as records have it: what is null or empty is left out."""
    value: dict[str, Any] = turn.model_dump(exclude={"prefix"}, exclude_none=True)
    if value["role"] in ("user", "tool") and "content" not in value:
        value["content"] = ""
    calls = value.pop("tool_calls", None)
    if calls:
        value["tool_calls"] = [
            {name: item for name, item in call.items() if name != "index" and item != "null"}
            for call in calls
        ]
        if not value.get("content"):
            value.pop("content", None)
    return value


def _wanted(request: ChatRequest) -> dict[str, Any] | None:
    wanted = request.response_format
    if wanted.type == "json_object":
        return {"type": "object"}
    if wanted.type == "json_schema":
        if wanted.json_schema is None:
            raise _fault("response_format", "`json_schema` needs a schema")
        return wanted.json_schema.schema_definition
    return None


def _fault(field: str, fact: str) -> Refused:
    return Refused(422, [{"loc": ["body", field], "msg": fact, "type": "value_error"}])


def ask_labels(
    request: ClassificationRequest | ChatClassificationRequest, who: Answerer
) -> Question:
    """Return the question that a request is.

    Raises:
        Refused: 422: the model does not classify.
    """
    if not who.classifier:
        raise Refused(422, f"Model {who.name} does not classify.")
    inputs = request.input if isinstance(request.input, list) else [request.input]
    records: list[dict[str, Any]] = [
        {"labels": {}, "text": one}
        if isinstance(one, str)
        else {"labels": {}, "messages": [_turn(turn) for turn in one.messages]}
        for one in inputs
    ]
    try:
        read = msgspec.convert(records, list[ClassifierRecord])
    except msgspec.ValidationError:
        raise _fault("input", "only text is served here") from None
    return Question(
        id="",
        kind="classify",
        model=who.model,
        adapter=who.adapter,
        context=who.context,
        inputs=read,
    )


async def collect(lines: AsyncIterator[dict[str, Any]], model: str) -> ChatAnswer:
    """Return the whole answer."""
    done = [line["done"] async for line in lines if "done" in line]
    choices = [
        Choice(
            index=answer["index"],
            message=AnswerMessage(content=answer["content"], tool_calls=answer["calls"] or None),
            finish_reason=answer["finish"],
        )
        for answer in done
    ]
    return ChatAnswer(
        id=uuid.uuid4().hex,
        created=int(time.time()),
        model=model,
        choices=choices,
        usage=count_usage(done),
    )


async def shape(lines: AsyncIterator[dict[str, Any]], model: str) -> AsyncIterator[Part]:
    """Yield the parts of a streamed answer."""
    facts: dict[str, Any] = {
        "id": uuid.uuid4().hex,
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": model,
    }
    begun: set[int] = set()
    done: list[dict[str, Any]] = []
    async for line in lines:
        last = line.get("done")
        index = last["index"] if last else line["index"]
        if index not in begun:
            begun.add(index)
            first = PartChoice(
                index=index, delta=Delta(role="assistant", content=""), finish_reason=None
            )
            yield Part(**facts, choices=[first])
        if last is None:
            delta = Delta(content=line["text"])
            choice = PartChoice(index=index, delta=delta, finish_reason=None)
            yield Part(**facts, choices=[choice])
            continue
        done.append(last)
        calls = {"tool_calls": last["calls"]} if last["calls"] else {}
        delta = Delta(content="", **calls)
        choice = PartChoice(index=index, delta=delta, finish_reason=last["finish"])
        yield Part(**facts, choices=[choice], usage=count_usage(done))


def count_usage(done: list[dict[str, Any]]) -> Usage:
    """Return the tokens of an answer; the prompt counts once."""
    read = done[0]["prompt_tokens"] if done else 0
    written = sum(answer["completion_tokens"] for answer in done)
    return Usage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written)
