"""Inference: the process that answers, apart from the server so that no request waits for torch.

`python -m finetune.server.inference` reads one JSON request a line and writes JSON lines: pieces
of text, then what the answer was, or why there is none. It answers one request after the other.
"""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import string
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from finetune.backends.local.classifier import classify
from finetune.backends.local.constraint import Grammar, follow_schema, force_calls
from finetune.backends.local.head import load_head
from finetune.backends.local.sampling import Sampling, stream
from finetune.backends.local.shared import Shared
from finetune.errors import FinetuneError
from finetune.files import to_json
from finetune.records import AssistantMessage, ClassifierRecord, Tool, text_of
from finetune.records import Message as RecordMessage
from finetune.tokens import Tokenizer

DEFAULT_LIMIT = 4096  # tokens of an answer where nobody says
_LETTERS = string.ascii_letters + string.digits


class Question(msgspec.Struct, kw_only=True):
    """A line that comes in.

    Attributes:
        id: Its number.
        kind: `chat`, `fim`, `classify`, or `cancel` for the end of an earlier one.
        model: The base.
        adapter: What is put on it.
        context: Longest sequence in tokens.
        messages: What was said, as records have it.
        tools: What may be called.
        force: Which tools one of must be called; None where an answer in words will do.
        parallel: It may call several times in one answer.
        schema: What the answer has to fit.
        prefix: What the answer begins with.
        prompt: What stands before a middle.
        suffix: What stands behind it.
        limit: Most tokens.
        least: Fewest tokens.
        stop: The answer ends before any of these.
        sampling: How tokens are chosen.
        count: How many answers.
        inputs: What is classified: texts or conversations.
    """

    id: str
    kind: str
    model: str = ""
    adapter: str | None = None
    context: int = 0
    messages: list[RecordMessage] = []
    tools: list[Tool] = []
    force: list[str] | None = None
    parallel: bool = True
    schema: dict[str, Any] | None = None
    prefix: str = ""
    prompt: str = ""
    suffix: str = ""
    limit: int | None = None
    least: int = 0
    stop: list[str] = []
    sampling: Sampling = Sampling()
    count: int = 1
    inputs: list[ClassifierRecord] = []


class Answered(msgspec.Struct, kw_only=True):
    """How an answer ended: the last line for each.

    Attributes:
        index: Which of several.
        content: All of its text.
        calls: What is called.
        finish: Why it ended.
        prompt_tokens: Tokens that were read.
        completion_tokens: Tokens that were written.
    """

    index: int
    content: str
    calls: list[dict[str, Any]]
    finish: str
    prompt_tokens: int
    completion_tokens: int


class Declined(Exception):
    """A question that can't be answered: HTTP status and a sentence."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


class Engine:
    """Answers questions; holds one base at a time.

    Args:
        write: Takes each line that goes out.
    """

    def __init__(self, write: Callable[[dict[str, Any]], None]) -> None:
        self._write = write
        self._shared: Shared | None = None
        self._cancelled: set[str] = set()

    def cancel(self, question_id: str) -> None:
        """Write no more of an answer that nobody waits for."""
        self._cancelled.add(question_id)

    def answer(self, question: Question) -> None:
        """Answer, in as many lines as it takes."""
        try:
            if question.id not in self._cancelled:
                self._answer(question)
        except Declined as error:
            self._refuse(question, error.status, error.detail)
        except FinetuneError as error:
            self._refuse(question, 422, error.message)
        except Exception as error:  # noqa: BLE001 (the process goes on with the next question)
            name = type(error).__name__
            status = 503 if "OutOfMemory" in name else 500
            self._refuse(question, status, f"The model could not answer: {name}.")
        finally:
            self._cancelled.discard(question.id)

    def _refuse(self, question: Question, status: int, detail: str) -> None:
        self._write({"id": question.id, "refused": {"status": status, "detail": detail}})

    def _answer(self, question: Question) -> None:
        if self._shared is None or self._shared.ref != question.model:
            self._shared = None  # its memory is needed
            self._shared = Shared(question.model)
        tokenizer = self._shared.tokenizer
        if question.kind == "classify":
            self._classify(question, self._shared)
            return
        prompt = encode(question, tokenizer)
        room = question.context - len(prompt)
        if room <= 0:
            raise Declined(
                400,
                f"Prompt contains {len(prompt)} tokens,"
                f" too large for model with {question.context} maximum context length",
            )
        adapter = Path(question.adapter) if question.adapter else None
        with self._shared.using(adapter) as model:
            for index in range(question.count):
                self._one(question, index, model, tokenizer, prompt, room)
        self._write({"id": question.id, "end": True})

    def _classify(self, question: Question, shared: Shared) -> None:
        adapter = Path(question.adapter or "")
        head = load_head(adapter)
        encode = shared.tokenizer.encode_input
        items = [encode(record).input_ids for record in question.inputs]
        longest = max(map(len, items), default=0)
        if longest > question.context:
            raise Declined(
                400, f"Input contains {longest} tokens, of {question.context} that the model takes"
            )
        with shared.using(adapter) as model:
            scores = classify(model, head, items)
        self._write({"id": question.id, "scores": scores, "tokens": sum(map(len, items))})
        self._write({"id": question.id, "end": True})

    def _one(
        self,
        question: Question,
        index: int,
        model: Any,
        tokenizer: Tokenizer,
        prompt: list[int],
        room: int,
    ) -> None:
        sampling = question.sampling
        if sampling.seed is not None:
            sampling = sampling._replace(seed=sampling.seed + index)
        limit = min(room, DEFAULT_LIMIT if question.limit is None else question.limit)
        ids: list[int] = []
        controls = tokenizer.call_controls if question.tools else None
        writer = _Writer(tokenizer, question.stop, calls=controls.calls if controls else None)
        finish = "stop"
        if question.prefix:
            self._write({"id": question.id, "index": index, "text": question.prefix})
        tokens = stream(
            model,
            prompt,
            sampling,
            eos_id=tokenizer.eos_id,
            limit=limit,
            least=question.least,
            constraint=_constrain(question, tokenizer),
        )
        for token in tokens:
            ids.append(token)
            if text := writer.add(token):
                self._write({"id": question.id, "index": index, "text": text})
            if writer.stopped or question.id in self._cancelled:
                break
        else:
            if len(ids) >= limit:
                finish = "model_length" if limit == room else "length"
        answer = tokenizer.parse(ids) if question.tools else AssistantMessage(content="")
        calls = _calls(answer)[: None if question.parallel else 1]
        content = text_of(answer.content) if calls else writer.all()
        if rest := ("" if calls else writer.rest()):
            self._write({"id": question.id, "index": index, "text": rest})
        done = Answered(
            index=index,
            content=question.prefix + content,
            calls=calls,
            finish="tool_calls" if calls else finish,
            prompt_tokens=len(prompt),
            completion_tokens=len(ids),
        )
        self._write({"id": question.id, "done": msgspec.to_builtins(done)})


class _Writer:
    """Turns tokens into text that can be sent: whole characters, nothing of a stop text.

    Args:
        tokenizer: The model's.
        stop: Texts that end the answer.
        calls: The token that begins calls: nothing behind it is sent before the end.
    """

    def __init__(self, tokenizer: Tokenizer, stop: list[str], *, calls: int | None) -> None:
        self._tokenizer, self._stop, self._calls = tokenizer, [s for s in stop if s], calls
        self._ids: list[int] = []
        self._text = ""
        self._sent = 0
        self._held = False
        self.stopped = False

    def add(self, token: int) -> str:
        """Return what can be sent now."""
        self._ids.append(token)
        self._text = self._tokenizer.decode(self._ids)
        ends = [place for stop in self._stop if (place := self._text.find(stop)) >= 0]
        if ends:
            self._text, self.stopped = self._text[: min(ends)], True
        if token == self._calls and not self._held:
            self._held = True
            return self._take(len(self._text))
        if self._held or self._text.endswith("\ufffd"):
            return ""
        longest = (
            0 if self.stopped else max((_overlap(self._text, s) for s in self._stop), default=0)
        )
        return self._take(len(self._text) - longest)

    def rest(self) -> str:
        """Return what was held back."""
        return self._take(len(self._text))

    def all(self) -> str:
        """Return all of the text."""
        return self._text

    def _take(self, end: int) -> str:
        text = self._text[self._sent : end]
        self._sent = max(self._sent, end)
        return text


def _overlap(text: str, stop: str) -> int:
    """Return how long an end of the text is with which a stop text may begin."""
    sizes = range(min(len(stop) - 1, len(text)), 0, -1)
    return next((size for size in sizes if text.endswith(stop[:size])), 0)


def encode(question: Question, tokenizer: Tokenizer) -> list[int]:
    """Return the tokens that the model goes on with."""
    if question.kind == "fim":
        if question.suffix:
            return tokenizer.fim_prompt(question.prompt, question.suffix)
        start = [tokenizer.bos_id] if tokenizer.bos_id >= 0 else []
        return [*start, *tokenizer.text_ids(question.prompt)]
    tools = question.tools or msgspec.UNSET
    ids = tokenizer.encode_prompt(question.messages, tools)
    return [*ids, *tokenizer.text_ids(question.prefix)] if question.prefix else ids


def _constrain(question: Question, tokenizer: Tokenizer) -> Grammar | None:
    if question.force is not None:
        tools = [
            {"name": tool.function.name, "parameters": tool.function.parameters}
            for tool in question.tools
            if tool.function.name in question.force
        ]
        return force_calls(tokenizer, tools, parallel=question.parallel)
    return None if question.schema is None else follow_schema(tokenizer, question.schema)


def _calls(answer: AssistantMessage) -> list[dict[str, Any]]:
    if isinstance(answer.tool_calls, msgspec.UnsetType):
        return []
    return [
        {
            "id": "".join(secrets.choice(_LETTERS) for _ in range(9))
            if call.id is msgspec.UNSET
            else call.id,
            "type": "function",
            "function": msgspec.to_builtins(call.function),
            "index": index,
        }
        for index, call in enumerate(answer.tool_calls)
    ]


def _read(engine: Engine, questions: queue.Queue[Question], lines: Iterator[bytes]) -> None:
    try:
        for line in lines:
            question = msgspec.json.decode(line, type=Question)
            if question.kind == "cancel":
                engine.cancel(question.id)
            else:
                questions.put(question)
    finally:  # the server is gone, or can't be understood: it starts another process
        os._exit(0)


def main() -> None:
    """Answer until standard input ends."""
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what libraries print is no answer

    def write(line: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):
            out.write(to_json(line) + b"\n")

    engine = Engine(write)
    questions: queue.Queue[Question] = queue.Queue()
    lines = iter(sys.stdin.buffer.readline, b"")
    threading.Thread(target=_read, args=(engine, questions, lines), daemon=True).start()
    write({"id": "", "ready": True})
    while True:
        engine.answer(questions.get())


if __name__ == "__main__":
    main()
