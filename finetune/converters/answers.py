"""Prompts and answers of foreign rows: a text, one turn, a list of turns, or a transcript."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from finetune.converters import openai, sharegpt
from finetune.converters.reading import ConvertError, Detection, type_name
from finetune.records import (
    AssistantMessage,
    ChatRecord,
    Message,
    SystemMessage,
    ToolMessage,
    UserMessage,
)

# The transcripts of Anthropic's HH-RLHF: a blank line, the speaker, a colon.
_TRANSCRIPT = re.compile(r"\s*Human:(?=[\s\S]*\n\nAssistant:)|\n\nHuman:")
_SPEAKER = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}
_OPENAI = Detection("openai")
_SHAREGPT = Detection("sharegpt")
_MESSAGES: dict[str, type[SystemMessage | UserMessage | AssistantMessage]] = {
    "system": SystemMessage,
    "user": UserMessage,
    "assistant": AssistantMessage,
}
_PLACE = re.compile(r"(?:messages|conversations)\[(\d+)\](.*)", re.DOTALL)


class Part(NamedTuple):
    """The turns that a value of a row holds.

    Attributes:
        turns: As OpenAI or as ShareGPT write them.
        paths: The place of each in the row.
        made: They were made from a text, so that there is no place inside them.
    """

    turns: list[Any]
    paths: list[str]
    made: bool = False

    @property
    def is_whole(self) -> bool:
        """Tell whether it begins before the first answer: a whole conversation."""
        first = self.turns[0] if self.turns else None
        return isinstance(first, dict) and first.get("role", first.get("from")) in _BEFORE


_BEFORE = ("system", "developer", "user", "human")


def read_part(value: Any, role: str, path: str) -> Part:
    """Return the turns of a value.

    Args:
        value: A text, a turn, a list of turns, or a transcript.
        role: Whose a text is: `user` or `assistant`.
        path: Its place in the row.

    Raises:
        ConvertError: It is something else.
    """
    if isinstance(value, str):
        turns = split_transcript(value) or [{"role": role, "content": value}]
        if role == "user" and turns[-1]["role"] == "assistant" and not turns[-1]["content"].strip():
            turns.pop()  # a prompt breaks off where the model is to go on
        return Part(turns, [path] * len(turns), made=True)
    if isinstance(value, dict):
        return Part([value], [path])
    if isinstance(value, list):
        return Part(value, [f"{path}[{number}]" for number in range(len(value))])
    raise ConvertError(f"expected text or messages, got {type_name(value)}", path=path, rule="type")


def is_transcript(value: Any) -> bool:
    r"""Tell whether a value is a text such as `\n\nHuman: …\n\nAssistant: …`."""
    return isinstance(value, str) and _TRANSCRIPT.match(value) is not None


def split_transcript(text: str) -> list[dict[str, str]]:
    """Return the turns of a transcript, without the one space behind each colon.

    A text that is no transcript has none.
    """
    if not is_transcript(text):
        return []
    pieces = _SPEAKER.split("\n\n" + text.lstrip())[1:]
    return [
        {"role": _ROLES[speaker], "content": said.removeprefix(" ")}
        for speaker, said in zip(pieces[::2], pieces[1::2], strict=True)
    ]


def converse(parts: Sequence[Part], tools: Any = None) -> ChatRecord:
    """Return the conversation that parts make one after another.

    Raises:
        ConvertError: A turn is none that the format `openai` or `sharegpt` takes.
    """
    turns = [turn for part in parts for turn in part.turns]
    if not tools and all(part.made for part in parts):
        return ChatRecord(
            messages=[_MESSAGES[turn["role"]](content=turn["content"]) for turn in turns]
        )
    try:
        if any(isinstance(turn, dict) and "from" in turn for turn in turns):
            row = {"conversations": [_as_sharegpt(turn) for turn in turns], "tools": tools}
            made = sharegpt.convert(row, _SHAREGPT)
        else:
            made = openai.convert({"messages": turns, "tools": tools}, _OPENAI)
    except ConvertError as error:
        raise _placed(error, parts) from None
    return made[0]  # type: ignore[return-value]


def _as_sharegpt(turn: Any) -> Any:
    if isinstance(turn, dict) and "role" in turn and "from" not in turn:
        return {"from": turn["role"], "value": turn.get("content")}
    return turn


def _placed(error: ConvertError, parts: Sequence[Part]) -> ConvertError:
    """Return the error with its place in the row, instead of in the joined conversation."""
    places = [(path, part.made) for part in parts for path in part.paths]
    if (found := _PLACE.fullmatch(error.path or "")) and int(found[1]) < len(places):
        path, made = places[int(found[1])]
        return ConvertError(error.fact, path=path if made else path + found[2], rule=error.rule)
    return error


def prompt_length(messages: list[Message]) -> int:
    """Return how many messages come before the last answer: up to the last one of the user."""
    length = len(messages)
    while length and not isinstance(messages[length - 1], UserMessage | ToolMessage):
        length -= 1
    return length


def shared_length(one: list[Message], other: list[Message]) -> int:
    """Return the length of the prompt that two conversations begin with."""
    shared = 0
    for first, second in zip(one, other, strict=False):
        if first != second:
            break
        shared += 1
    return prompt_length(one[:shared])


class Prompt(NamedTuple):
    """What a row says before its answers.

    Attributes:
        system: The system prompt of a column of its own.
        prompt: The prompt, with its context.
        tools: As the row declares them.
    """

    system: list[Part]
    prompt: list[Part]
    tools: Any

    def messages(self) -> list[Message]:
        """Return the messages before the answer."""
        return converse([*self.system, *self.prompt], self.tools).messages

    def with_answer(self, answer: Part) -> ChatRecord:
        """Return the conversation that ends with an answer, or is that answer's where it is whole.

        Raises:
            ConvertError: A turn is of no known form, or there is no prompt.
        """
        if answer.is_whole:
            return converse([*self.system, answer], self.tools)
        return converse([*self.system, *self.prompt, answer], self.tools)


def read_prompt(row: dict[str, Any], source: Detection) -> Prompt:
    """Return what stands before the answers of a row: system prompt, prompt, context.

    Raises:
        ConvertError: The prompt is neither text nor messages.
    """
    system, prompt = [], []
    if text := source.optional_text(row, "system"):
        turn = {"role": "system", "content": text}
        system.append(Part([turn], [source.column("system")], made=True))
    value = value_at(row, source, "prompt")
    if value is not None:
        if isinstance(value, str) and (extra := source.optional_text(row, "context")).strip():
            value = f"{value}\n\n{extra}"
        prompt.append(read_part(value, "user", source.column("prompt")))
    return Prompt(system, prompt, row.get(source.column("tools")))


def value_at(row: dict[str, Any], source: Detection, name: str) -> Any:
    """Return what a row holds for `name`: a template's text, or a value of any type."""
    column = source.column(name)
    return row.get(column) if source.keys(name) == (column,) else source.text(row, name)


_PROMPTS = ("prompt", "instruction", "question", "query", "input", "conversations", "messages")
_CONTEXTS = ("context", "input")


def find_prompt(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, str] | None:
    """Return the columns of a row that hold its prompt; None where more than one could.

    `prompt` goes before all other names, and `instruction` may have an `input` or `context`.
    """
    found = dict(columns)
    if "prompt" not in found:
        there = [name for name in _PROMPTS if name in row and name not in found.values()]
        if "instruction" in there and "input" in there:
            there.remove("input")
        if len(there) > 1 and there[0] != "prompt":
            return None
        if there:
            found["prompt"] = there[0]
    if found.get("prompt") in ("instruction", "question") and "context" not in found:
        extra = [name for name in _CONTEXTS if name in row]
        found |= {"context": extra[0]} if extra else {}
    if "system" not in found and "system_prompt" in row:
        found["system"] = "system_prompt"
    return found
