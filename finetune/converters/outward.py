r"""Outward: a record → a row of another tool. What that format cannot hold is refused by name.

| record                      | openai        | sharegpt           | alpaca | trl                |
|-----------------------------|---------------|--------------------|--------|--------------------|
| a text on each side in turn | yes           | yes                | yes    | yes                |
| system message              | yes           | yes                | first  | yes                |
| tools, calls, results       | yes           | in order, no ids   | no     | `arguments` object |
| `weight` of an answer       | 0 or 1        | if it has no calls | no     | 0, then 1 (a)      |
| images                      | of the user   | no                 | no     | no                 |
| reasoning chunks            | no            | no                 | no     | no                 |
| a preference record         | yes (b)       | no                 | no     | yes                |
| a text or rating record     | no            | no                 | no     | yes                |
| a classifier record         | no            | no                 | no     | no                 |

(a) `prompt` and `completion`: TRL trains the completion alone. (b) `input`, `preferred_output` and
`non_preferred_output`.

Written alike and meaning the same: one chunk of text and the text alone, an image's address and
an object that holds it, a weight of 1 and none, JSON texts of arguments with other white space.

Sources: OpenAI's guide to fine-tuning (its chat and preference files), LLaMA-Factory's
`data/README.md`, TRL's "Dataset formats and types", as of 2026-11.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from finetune.converters.reading import ConvertError
from finetune.errors import UsageError
from finetune.records import KINDS, ChatRecord, PreferenceRecord, Record
from finetune.text import did_you_mean

Message = dict[str, Any]
_SHAREGPT_ROLES = {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}
_ENCODER = msgspec.json.Encoder()


class Outward(NamedTuple):
    """One row of OUTWARD.

    Attributes:
        make: Record → row; raises `ConvertError` with the rule `not-in-format`.
        kinds: The kinds of record that it can hold.
    """

    make: Callable[[Any], Any]
    kinds: tuple[str, ...]

    def encode(self, record: Record) -> bytes:
        """Return the record's line in this format, without its line end.

        Raises:
            ConvertError: The format cannot hold all of it.
        """
        return _ENCODER.encode(self.make(record))


def find_outward(name: str) -> Outward:
    """Return a format that records can be written in.

    Raises:
        UsageError: There is none of this name.
    """
    if name not in OUTWARD:
        hint = did_you_mean(name, OUTWARD) or f"formats to write: {', '.join(OUTWARD)}"
        raise UsageError(f"{name}: no format to write", hint=hint)
    return OUTWARD[name]


def _refused(path: str, fact: str) -> ConvertError:
    return ConvertError(fact, path=path, rule="not-in-format")


def _openai(record: ChatRecord | PreferenceRecord) -> dict[str, Any]:
    plain = msgspec.to_builtins(record)
    tools = {"tools": plain["tools"]} if "tools" in plain else {}
    if "messages" in plain:
        return {"messages": _openai_messages(plain, "messages"), **tools}
    return {
        "input": {"messages": _openai_messages(plain, "prompt"), **tools},
        "preferred_output": _openai_messages(plain, "chosen"),
        "non_preferred_output": _openai_messages(plain, "rejected"),
    }


def _openai_messages(plain: dict[str, Any], key: str) -> list[Message]:
    for number, message in enumerate(plain[key]):
        path = f"{key}[{number}]"
        if isinstance(message.get("content"), list):
            message["content"] = [
                _openai_chunk(chunk, message, path) for chunk in message["content"]
            ]
        if (weight := message.get("weight")) is not None:
            if weight not in (0, 1):
                raise _refused(f"{path}.weight", "`openai` has a weight of 0 or 1 only")
            message["weight"] = int(weight)
        for call in message.get("tool_calls", ()):
            if "id" not in call:
                raise _refused(f"{path}.tool_calls", "`openai` has no call without an id")
            if not isinstance(call["function"]["arguments"], str):
                call["function"]["arguments"] = _ENCODER.encode(
                    call["function"]["arguments"]
                ).decode()
        if message["role"] == "tool" and "tool_call_id" not in message:
            raise _refused(path, "`openai` has no result without the id of its call")
    return list(plain[key])


def _openai_chunk(chunk: dict[str, Any], message: Message, path: str) -> dict[str, Any]:
    if chunk["type"] == "thinking":
        raise _refused(f"{path}.content", "`openai` has no reasoning chunks")
    if chunk["type"] == "image_url":
        if message["role"] != "user":
            raise _refused(f"{path}.content", "`openai` has images in user messages only")
        if isinstance(chunk["image_url"], str):
            return {"type": "image_url", "image_url": {"url": chunk["image_url"]}}
    return chunk


def _sharegpt(record: ChatRecord) -> dict[str, Any]:
    plain = msgspec.to_builtins(record)
    turns: list[dict[str, Any]] = []
    waiting: list[str | None] = []
    for number, message in enumerate(plain["messages"]):
        path = f"messages[{number}]"
        calls = message.get("tool_calls")
        if message["role"] == "tool":
            _check_result(message, waiting, path)
        if calls:
            if "content" in message or "weight" in message:
                key = "content" if "content" in message else "weight"
                raise _refused(f"{path}.{key}", f"`sharegpt` has no {key} beside calls")
            waiting += [call.get("id") for call in calls]
            turns.append({"from": "function_call", "value": _call_text(calls, path)})
            continue
        turn = {"from": _SHAREGPT_ROLES[message["role"]], "value": _text(message, path, "sharegpt")}
        if message.get("weight", 1) != 1:
            turn["weight"] = message["weight"]
        turns.append(turn)
    row: dict[str, Any] = {"conversations": turns}
    if "tools" in plain:
        functions = [tool["function"] for tool in plain["tools"]]
        row["tools"] = _ENCODER.encode(functions).decode()
    return row


def _check_result(message: Message, waiting: list[Any], path: str) -> None:
    """Make sure that the order says which call a result answers, as there are no ids."""
    if "name" in message:
        raise _refused(f"{path}.name", "`sharegpt` has no name in a result")
    if not waiting or waiting.pop(0) != message.get("tool_call_id"):
        raise _refused(path, "`sharegpt` has no ids: results must follow the order of their calls")


def _call_text(calls: list[Any], path: str) -> str:
    made = [{**call["function"], "arguments": _arguments(call, path, "sharegpt")} for call in calls]
    return _ENCODER.encode(made if len(made) > 1 else made[0]).decode()


def _arguments(call: dict[str, Any], path: str, name: str) -> Any:
    arguments = call["function"]["arguments"]
    if not isinstance(arguments, str):
        return arguments
    try:
        value = msgspec.json.decode(arguments)
        if isinstance(value, dict) and msgspec.json.decode(_ENCODER.encode(value)) == value:
            return value
    except (msgspec.MsgspecError, OverflowError, RecursionError):
        pass
    raise _refused(f"{path}.tool_calls", f"`{name}` has arguments as an object, and these are none")


def _text(message: Message, path: str, name: str) -> str:
    match message.get("content"):
        case str(text) | [{"type": "text", "text": text}]:
            return text
    raise _refused(f"{path}.content", f"`{name}` has text only in a message, in one piece")


def _alpaca(record: ChatRecord) -> dict[str, Any]:
    plain = msgspec.to_builtins(record)
    messages: list[Message] = plain["messages"]
    if "tools" in plain:
        raise _refused("tools", "`alpaca` has no tools")
    first = 1 if messages and messages[0]["role"] == "system" else 0
    texts = []
    for number, message in enumerate(messages):
        path = f"messages[{number}]"
        if "tool_calls" in message:
            raise _refused(f"{path}.tool_calls", "`alpaca` has no tool calls")
        if message.get("weight", 1) != 1:
            raise _refused(f"{path}.weight", "`alpaca` has no weights")
        wanted = ("user", "assistant")[(number - first) % 2] if number >= first else "system"
        if message["role"] != wanted:
            raise _refused(f"{path}.role", "`alpaca` has a user and an assistant in turn")
        texts.append(_text(message, path, "alpaca"))
    turns = [list(pair) for pair in zip(texts[first::2], texts[first + 1 :: 2], strict=False)]
    if not turns or len(texts) - first != 2 * len(turns):
        raise _refused("messages", "`alpaca` ends with an answer")
    row: dict[str, Any] = {"instruction": turns[-1][0], "input": "", "output": turns[-1][1]}
    if first:
        row["system"] = texts[0]
    if turns[:-1]:
        row["history"] = turns[:-1]
    return row


def _trl(record: Record) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(record)
    for key in ("messages", "prompt", "chosen", "rejected", "completion"):
        for number, message in enumerate(plain.get(key, ())):
            _trl_message(message, f"{key}[{number}]")
            if key != "messages" and message.get("weight", 1) != 1:
                raise _refused(f"{key}[{number}].weight", "`trl` has no weights here")
    if "messages" not in plain:
        return plain
    messages = plain.pop("messages")
    weights = [m.pop("weight", 1) for m in messages if m["role"] == "assistant"]
    if all(weight == 1 for weight in weights):
        return {"messages": messages, **plain}
    # TRL trains the completion alone: what comes before it has a weight of 0.
    untrained = weights.index(1) if 1 in weights else len(weights)
    if set(weights[:untrained]) != {0} or set(weights[untrained:]) != {1}:
        raise _refused(
            "messages", "`trl` has no weights but 0 for all answers before the last ones"
        )
    answers = [number for number, m in enumerate(messages) if m["role"] == "assistant"]
    start = answers[untrained]
    return {"prompt": messages[:start], "completion": messages[start:], **plain}


def _trl_message(message: Message, path: str) -> None:
    if "content" in message:
        message["content"] = _text(message, path, "trl")
    for call in message.get("tool_calls", ()):
        call["function"]["arguments"] = _arguments(call, path, "trl")


OUTWARD: dict[str, Outward] = {
    "laplateforme": Outward(lambda record: record, tuple(KINDS)),
    "openai": Outward(_openai, ("chat", "preference")),
    "sharegpt": Outward(_sharegpt, ("chat",)),
    "alpaca": Outward(_alpaca, ("chat",)),
    "trl": Outward(_trl, ("chat", "text", "preference", "rating")),
}
