"""vLLM: questions that a vLLM server answers, over its OpenAI-compatible API.

It is asked for a tuned model by the model's own id: the adapter is loaded there under that name the
first time, and again where vLLM was started anew. Names, paths and bodies as vLLM documents them
(docs.vllm.ai, read 2026-11-23: OpenAI-compatible server, LoRA adapters).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import msgspec

from finetune.errors import FinetuneError
from finetune.server.inference import DEFAULT_LIMIT, Answered, Question, encode
from finetune.server.models import Answerer
from finetune.server.refusal import Refused
from finetune.text import safe
from finetune.tokens import load_tokenizer

VARIABLE = "VLLM_API_KEY"  # as vLLM itself calls it
_WAIT = httpx2.Timeout(600.0, connect=5.0)  # seconds
_MOST_WORDS = 300  # characters of what it says
_FINISHES = ("stop", "length", "tool_calls")
_CHAT, _TEXT = "/chat/completions", "/completions"


class _Card(msgspec.Struct):
    id: str
    parent: str | None = None


class _Cards(msgspec.Struct):
    data: list[_Card]


class _UnknownModel(Exception):
    """vLLM does not know the name; what it had loaded is gone where it was started anew."""


class Vllm:
    """The vLLM servers behind this one.

    Args:
        key: What they ask for (`vllm serve --api-key`), if they do.
    """

    def __init__(self, key: str | None = None) -> None:
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._clients: dict[str, httpx2.AsyncClient] = {}
        self._known: dict[tuple[str, str], str] = {}  # (address, our name) → its name

    async def ask(self, question: Question, who: Answerer) -> AsyncIterator[dict[str, Any]]:
        """Yield the lines of an answer, as the inference process writes them.

        Raises:
            Refused: 400: vLLM refuses the request; 502: it fails; 503: it does not answer.
        """
        url = who.vllm or ""
        for again in (True, False):
            try:
                name = await self._find(url, who)
                path, body = await write(question, name)
                async for line in self._stream(url, path, body, question):
                    yield line
            except _UnknownModel:
                self._known.pop((url, who.name), None)
                if not again:
                    raise _fail("does not know it") from None
            else:
                return

    async def unload(self, url: str, name: str) -> None:
        """Take an adapter out of a vLLM's memory; one that is down has forgotten it."""
        self._known.pop((url, name), None)
        with contextlib.suppress(httpx2.TransportError):
            await self._client(url).post("/unload_lora_adapter", json={"lora_name": name})

    async def close(self) -> None:
        """Let go of all connections."""
        for client in self._clients.values():
            await client.aclose()

    def _client(self, url: str) -> httpx2.AsyncClient:
        if url not in self._clients:
            self._clients[url] = httpx2.AsyncClient(
                base_url=url,
                headers=self._headers,
                timeout=_WAIT,
                limits=httpx2.Limits(max_connections=None),
                trust_env=False,
                verify=url.startswith("https:"),  # else certificates would be read for nothing
            )
        return self._clients[url]

    async def _find(self, url: str, who: Answerer) -> str:
        """Return what vLLM calls a model; an adapter is loaded where it is not there."""
        if (url, who.name) not in self._known:
            cards = await self._list(url)
            if who.adapter is None:
                bases = [card.id for card in cards if not card.parent]
                if not bases:
                    raise _fail("serves no base")
                self._known[url, who.name] = bases[0]
            else:
                if who.name not in {card.id for card in cards}:
                    await self._load(url, who)
                self._known[url, who.name] = who.name
        return self._known[url, who.name]

    async def _list(self, url: str) -> list[_Card]:
        reply = await self._call(url, "GET", "/models")
        if reply.status_code == 404:
            raise _fail(f"is not at {url}: there is no list of models")
        if reply.status_code != 200:
            raise _judge(reply)
        try:
            return msgspec.json.decode(reply.content, type=_Cards).data
        except msgspec.MsgspecError:
            raise _fail("lists its models in another form than documented") from None

    async def _load(self, url: str, who: Answerer) -> None:
        body = {"lora_name": who.name, "lora_path": who.adapter}
        reply = await self._call(url, "POST", "/load_lora_adapter", json=body)
        if reply.status_code == 200:
            return
        if any(card.id == who.name for card in await self._list(url)):
            return  # another request was faster
        if reply.status_code in (404, 405):
            raise _fail(
                "loads no adapters: it wants `--enable-lora`, VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
                f" and the adapter's folder in its sight ({reply.status_code}: {_say(reply)})"
            )
        raise _fail(f"does not load the adapter ({reply.status_code}: {_say(reply)})")

    async def _call(self, url: str, method: str, path: str, **options: Any) -> httpx2.Response:
        try:
            return await self._client(url).request(method, path, **options)
        except httpx2.TransportError as error:
            raise _lose(error) from None

    async def _stream(
        self, url: str, path: str, body: dict[str, Any], question: Question
    ) -> AsyncIterator[dict[str, Any]]:
        collected = _Collected(question)
        try:
            async with self._client(url).stream("POST", path, json=body) as reply:
                if reply.status_code != 200:
                    await reply.aread()
                    raise _judge(reply)
                if question.prefix:
                    for index in range(question.count):
                        yield {"index": index, "text": question.prefix}
                async for line in reply.aiter_lines():
                    for piece in collected.add(line):
                        yield piece
        except httpx2.TransportError as error:
            raise _lose(error) from None
        for done in collected.finish():
            yield {"done": msgspec.to_builtins(done)}


class _Collected:
    """What has come of an answer, event by event."""

    def __init__(self, question: Question) -> None:
        self._prefix = question.prefix
        self._texts: dict[int, str] = dict.fromkeys(range(question.count), "")
        self._calls: dict[int, dict[int, dict[str, Any]]] = {index: {} for index in self._texts}
        self._ends: dict[int, str] = {}
        self._usage: dict[str, Any] = {}

    def add(self, line: str) -> list[dict[str, Any]]:
        """Take an event in, and return what of it is text."""
        data = line.removeprefix("data:").strip()
        if not line.startswith("data:") or data == "[DONE]":
            return []
        try:
            event = msgspec.json.decode(data)
            if "error" in event or event.get("object") == "error":
                raise _fail("failed on the way")
            self._usage = event.get("usage") or self._usage
            return [piece for choice in event["choices"] for piece in self._take(choice)]
        except (msgspec.DecodeError, LookupError, TypeError, AttributeError):
            raise _fail("answers in another form than documented") from None

    def _take(self, choice: dict[str, Any]) -> list[dict[str, Any]]:
        index = choice["index"]
        delta = choice.get("delta") or {"content": choice.get("text")}
        for call in delta.get("tool_calls") or []:
            empty = {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
            whole = self._calls[index].setdefault(call["index"], empty)
            whole["id"] = call.get("id") or whole["id"]
            for field, text in (call.get("function") or {}).items():
                whole["function"][field] += text or ""
        if choice.get("finish_reason"):
            end = choice["finish_reason"]
            self._ends[index] = end if end in _FINISHES else "error"
        text = delta.get("content")
        if not text:
            return []
        self._texts[index] += text
        return [{"index": index, "text": text}]

    def finish(self) -> list[Answered]:
        """Return how each answer ended; vLLM counts the tokens of all of them together."""
        if self._ends.keys() != self._texts.keys():
            raise _fail("broke its answer off")
        return [
            Answered(
                index=index,
                content=self._prefix + text,
                calls=[call | {"index": at} for at, call in sorted(self._calls[index].items())],
                finish="tool_calls" if self._calls[index] else self._ends[index],
                prompt_tokens=self._usage.get("prompt_tokens") or 0,
                completion_tokens=0 if index else self._usage.get("completion_tokens") or 0,
            )
            for index, text in self._texts.items()
        ]


async def write(question: Question, model: str) -> tuple[str, dict[str, Any]]:
    """Return the path and the body that ask vLLM a question.

    Args:
        question: The question.
        model: What vLLM calls who is asked.

    Raises:
        Refused: 422: it cannot be put into the model's tokens.
    """
    sampling = question.sampling
    body: dict[str, Any] = {
        "model": model,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
        "presence_penalty": sampling.presence,
        "frequency_penalty": sampling.frequency,
        "stop": question.stop or None,
        "max_tokens": question.limit,
        "min_tokens": question.least or None,
        "n": question.count,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    middle = question.kind == "fim"
    body |= await _write_middle(question) if middle else _write_chat(question)
    kept = {field: value for field, value in body.items() if value is not None}
    return (_TEXT if middle else _CHAT), kept


async def _write_middle(question: Question) -> dict[str, Any]:
    """Return the prompt of a middle as the tokens of training: vLLM knows no `suffix`."""
    try:
        tokenizer = await asyncio.to_thread(_open_tokenizer, question.model)
        ids = await asyncio.to_thread(encode, question, tokenizer)
    except FinetuneError as error:
        raise Refused(422, error.message) from None
    limit = DEFAULT_LIMIT if question.limit is None else question.limit  # 16 where none is sent
    return {"prompt": ids, "max_tokens": min(limit, max(1, question.context - len(ids)))}


def _write_chat(question: Question) -> dict[str, Any]:
    messages = [_write_turn(message) for message in question.messages]
    body: dict[str, Any] = {"messages": messages}
    if question.prefix:
        messages.append({"role": "assistant", "content": question.prefix})
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    if question.tools:
        body["tools"] = msgspec.to_builtins(question.tools)
        body["tool_choice"] = "auto" if question.force is None else _force(question.force)
        body["parallel_tool_calls"] = question.parallel
    if question.schema is not None:
        schema = {"name": "answer", "schema": question.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def _force(names: list[str]) -> Any:
    if len(names) == 1:
        return {"type": "function", "function": {"name": names[0]}}
    return "required"


def _write_turn(message: Any) -> dict[str, Any]:
    """Return a message without what concerns training alone."""
    turn: dict[str, Any] = msgspec.to_builtins(message)
    turn.pop("weight", None)
    return turn


@functools.lru_cache(maxsize=8)
def _open_tokenizer(model: str) -> Any:
    return load_tokenizer(model)


def _judge(reply: httpx2.Response) -> Exception:
    """Return what a reply that is no success means."""
    status = reply.status_code
    if status == 404:
        return _UnknownModel()
    if status in (400, 413, 422):
        return Refused(400, f"The model's vLLM refuses the request: {_say(reply)}")
    if status in (401, 403):
        return _fail(f"refuses the key of this server: it is read from {VARIABLE}")
    if status in (429, 503):
        return Refused(503, "The model's vLLM is busy.", headers={"Retry-After": "5"})
    return _fail(f"failed with status {status}")


def _say(reply: httpx2.Response) -> str:
    """Return the words of an error; they came in one form until vLLM 0.10, in another since."""
    try:
        value = reply.json()
        words = value.get("error", value)
        words = words["message"] if isinstance(words, dict) and "message" in words else "no reason"
    except (ValueError, AttributeError):
        words = "no reason"
    return safe(str(words), _MOST_WORDS)


def _fail(fact: str) -> Refused:
    return Refused(502, f"The model's vLLM {fact}.")


def _lose(error: httpx2.TransportError) -> Refused:
    fact = f"The model's vLLM does not answer ({type(error).__name__})."
    return Refused(503, fact, headers={"Retry-After": "10"})
