"""How many tokens a conversation's samples have, without laying them out.

Each version puts a fixed number of control tokens around the texts of a message, and each text is
encoded on its own. So a sample's length is a sum over its messages, and what stands in several
samples is counted once. Where this arithmetic is not sure, it leaves the record to the encoder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from msgspec import UNSET

from finetune.errors import DataError
from finetune.records import (
    AssistantMessage,
    ChatRecord,
    Message,
    SystemMessage,
    TextChunk,
    ThinkChunk,
    Tool,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from finetune.tokens.answers import Part
from finetune.tokens.engines import check_text

_BETWEEN = "\n\n"  # messages that are joined
_write = json.JSONEncoder(ensure_ascii=False).encode


class Tally:
    """What a record's samples are made of: control tokens, counted, and texts, by number."""

    __slots__ = ("fixed", "fixed_trained", "texts", "trained_texts")

    def __init__(self) -> None:
        self.fixed = self.fixed_trained = 0
        self.texts: list[int] = []
        self.trained_texts: list[int] = []

    def add(self, fixed: int, texts: list[int], *, trained: bool) -> None:
        """Add control tokens and texts."""
        self.fixed += fixed
        self.texts += texts
        if trained:
            self.fixed_trained += fixed
            self.trained_texts += texts

    def join(self, other: Tally) -> None:
        """Add what another one holds."""
        self.fixed += other.fixed
        self.fixed_trained += other.fixed_trained
        self.texts += other.texts
        self.trained_texts += other.trained_texts

    def total(self, lengths: Sequence[int]) -> tuple[int, int]:
        """Return tokens and trained tokens, given the length of each text."""
        tokens = self.fixed + sum([lengths[number] for number in self.texts])
        return tokens, self.fixed_trained + sum([lengths[n] for n in self.trained_texts])


class Numbers(dict[str, int]):
    """Numbers distinct texts in the order in which they come; refuses halves of surrogates."""

    def __missing__(self, text: str) -> int:
        if not text.isascii():
            check_text(text)
        number = self[text] = len(self)
        return number


class _Run(NamedTuple):
    """Messages of one role that follow one another; `text` is what users say together."""

    stop: int
    role: type
    messages: list[Any]
    fixed: int
    texts: list[int]
    text: str = ""


class Arithmetic:
    """Counts the conversations of a batch, as a version of the tokenizer lays them out.

    Args:
        version: Version of the tokenizer, such as 7.
        thinks: Whether the file has the control tokens of reasoning.
        settings: The text between control tokens beside the first user message, in v15.
        dump_tools: Gives the JSON of a list of tools.
        numbers: The batch's texts; new ones are added.
    """

    def __init__(
        self,
        version: int,
        *,
        thinks: bool,
        settings: str | None,
        dump_tools: Callable[[list[Tool]], str],
        numbers: Numbers,
    ) -> None:
        self._version = version
        self._thinks = thinks
        self._settings = settings
        self._dump_tools = dump_tools
        self._numbers = numbers
        self._between_chunks = "" if version >= 15 else _BETWEEN

    def tally(self, record: ChatRecord, parts: Sequence[Part]) -> Tally | None:
        """Return what a record's samples consist of, or None where only the encoder can tell."""
        tally = Tally()
        try:
            tools = self._dump_tools(record.tools) if record.tools else None
            stop = parts[-1].stop
            for message in record.messages[stop:]:  # in no sample, but images are refused there too
                self._text(message.content or "")
            runs = self._find_runs(record.messages[:stop])
            for part in parts:
                self._add(tally, [run for run in runs if run.stop <= part.stop], part, tools)
        except (ValueError, RecursionError, DataError):
            return None
        return tally

    def _add(self, tally: Tally, runs: list[_Run], part: Part, tools: str | None) -> None:
        numbers = self._numbers
        users = [run for run in runs if run.role is UserMessage]
        tally.fixed += 1  # BOS
        for text in (tools, self._settings):
            if text and users and self._version > 1:
                tally.add(2, [numbers[text]], trained=False)
        asked, prompt = None, ""
        if self._version <= 3 and users:
            asked, prompt = users[0 if self._version == 1 else -1], self._prompt(runs)
        weights = iter(part.weights)
        for run in runs:
            fixed, texts, trained = run.fixed, run.texts, False
            if run.role is AssistantMessage:
                trained = next(weights) > 0
                last = run is runs[-1] and 3 <= self._version <= 11
                if last and any(message.tool_calls for message in run.messages):
                    fixed, texts = self._answer(run.messages, bare=True)  # without random ids
            elif run is asked and prompt:
                texts = [self._question(prompt + _BETWEEN + run.text)]
            tally.add(fixed, texts, trained=trained)

    def _find_runs(self, messages: Sequence[Message]) -> list[_Run]:
        runs = []
        stop = 0
        for role, group in groupby(messages, type):
            run = list(group)
            stop += len(run)
            text = ""
            if role is AssistantMessage:
                fixed, texts = self._answer(run, bare=False)
            elif role is UserMessage:
                text = self._join([message.content for message in run])
                fixed, texts = 0 if self._version == 1 else 2, [self._question(text)]
            elif role is ToolMessage:
                fixed, texts = self._results(run)
            elif self._version <= 3:
                fixed, texts = 0, []  # the system prompt stands in a user message
            else:
                contents = [self._text(message.content) for message in run]
                fixed, texts = 2 * len(run), [self._numbers[content] for content in contents]
            runs.append(_Run(stop, role, run, fixed, texts, text))
        spoken = [run.role for run in runs if run.role is not SystemMessage]
        if self._version <= 3 and spoken[0] is not UserMessage:  # an empty one goes before
            fixed = 0 if self._version == 1 else 2
            runs.insert(0, _Run(0, UserMessage, [], fixed, [self._question("")]))
        return runs

    def _question(self, text: str) -> int:
        return self._numbers[f"[INST] {text} [/INST]" if self._version == 1 else text]

    def _prompt(self, runs: list[_Run]) -> str:
        systems = [m for run in runs if run.role is SystemMessage for m in run.messages]
        return _BETWEEN.join([self._text(m.content) for m in systems if m.content])

    def _answer(self, run: list[Any], *, bare: bool) -> tuple[int, list[int]]:
        """Return control tokens and texts of the assistant's messages, EOS included."""
        text = run[0].content
        if len(run) == 1 and text and text.__class__ is str and not run[0].tool_calls:  # most
            return 1, [self._numbers[text if self._version == 1 else text.rstrip(" ")]]
        contents = [m.content for m in run if m.content is not UNSET and m.content]
        calls = [call for m in run for call in m.tool_calls or ()]
        fixed = 1
        texts: list[int] = []
        if any(map(_thinks, contents)):
            fixed, texts = self._reasoning(contents)
        elif text := self._join(contents):
            texts = [self._numbers[text if self._version == 1 else text.rstrip(" ")]]
        elif not calls:
            raise ValueError("no answer")
        if not calls:
            return fixed, texts
        if self._version < 3 or (self._version < 7 and contents):
            raise ValueError("calls that the version has no arithmetic for")
        control, more = self._calls(calls, bare=bare)
        return fixed + control, texts + more

    def _reasoning(self, contents: list[Any]) -> tuple[int, list[int]]:
        if self._version < 13 or not self._thinks or len(contents) > 1:
            raise ValueError("reasoning in another version, or joined")
        fixed, texts = 1, []
        for kind, chunks in groupby(contents[0], type):
            if kind is ThinkChunk:
                for chunk in chunks:
                    fixed += 1 + chunk.closed
                    texts.append(self._numbers["".join([part.text for part in chunk.thinking])])
            elif text := self._text(list(chunks)):
                texts.append(self._numbers[text])
        return fixed, texts

    def _calls(self, calls: list[ToolCall], *, bare: bool) -> tuple[int, list[int]]:
        numbers = self._numbers
        ids = ["" if bare or call.id in (UNSET, "null") else call.id for call in calls]
        names = [call.function.name for call in calls]
        arguments = [_read(call.function.arguments) for call in calls]
        if self._version < 11:
            items = []
            for identifier, name, value in zip(ids, names, arguments, strict=True):
                item = {"name": name, "arguments": value}
                items.append(item | {"id": identifier} if identifier else item)
            return 1, [numbers[_write(items)]]
        fixed, texts = 0, []
        for identifier, name, value in zip(ids, names, arguments, strict=True):
            fixed += 2
            texts += [numbers[name], numbers[_write(value)]]
            if self._version == 11 and identifier:
                fixed += 1
                texts.append(numbers[identifier])
            elif self._version > 11 and not identifier:
                raise ValueError("a call without an id")
        return fixed, texts

    def _results(self, run: Sequence[Any]) -> tuple[int, list[int]]:
        numbers = self._numbers
        if self._version < 3 or any(message.tool_call_id is UNSET for message in run):
            raise ValueError("results that the version has no arithmetic for")
        contents = [self._text(message.content) for message in run]
        if self._version >= 13:
            return 2 * len(run), [numbers[content] for content in contents]
        ids: list[Any] = [message.tool_call_id for message in run]
        pairs = list(zip(contents, ids, strict=True))
        if self._version >= 7:
            return 3 * len(run), [numbers[text] for pair in pairs for text in pair]
        items = [
            {"content": _read(content), "call_id": identifier} for content, identifier in pairs
        ]
        return 2 * len(run), [numbers[_write(item)] for item in items]

    def _join(self, contents: Sequence[Any]) -> str:
        if len(contents) == 1:
            return self._text(contents[0])
        return _BETWEEN.join(filter(None, map(self._text, contents)))

    def _text(self, content: Any) -> str:
        if isinstance(content, str):
            return content
        if any(type(chunk) is not TextChunk for chunk in content):
            raise ValueError("more than text")
        return self._between_chunks.join([chunk.text for chunk in content if chunk.text])


def _thinks(content: Any) -> bool:
    return content.__class__ is list and any(type(chunk) is ThinkChunk for chunk in content)


def _read(value: Any) -> Any:
    """Return the value of arguments or a result; a text that is no JSON stands for itself."""
    text = value if isinstance(value, str) else json.dumps(value)
    try:
        return json.loads(text or "{}")
    except json.JSONDecodeError:
        return text
