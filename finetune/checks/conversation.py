"""Rules on the turns of a conversation: order, contents, weights.

The order is that of mistral-common's request validators (1.13.1, fine-tuning mode).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import UNSET

from finetune.checks.report import Fault
from finetune.checks.targets import Target
from finetune.records import (
    AssistantMessage,
    ImageChunk,
    Message,
    SystemMessage,
    TextChunk,
    ToolMessage,
    UserMessage,
)

Place = Callable[[int], str]

_ROLES: dict[type, str] = {
    SystemMessage: "system",
    UserMessage: "user",
    AssistantMessage: "assistant",
    ToolMessage: "tool",
}
_FOLLOWERS: dict[type, frozenset[type]] = {
    SystemMessage: frozenset({UserMessage, AssistantMessage, SystemMessage}),
    UserMessage: frozenset({AssistantMessage, SystemMessage, UserMessage}),
    AssistantMessage: frozenset({AssistantMessage, UserMessage, ToolMessage}),
    ToolMessage: frozenset({AssistantMessage, ToolMessage, UserMessage}),
}
_TEXT = {str}
# The orders of roles that were found to be without fault: most conversations have one of a few.
_SOUND: set[tuple[type, ...]] = set()
_MEMO_SIZE = 4096


def in_messages(index: int) -> str:
    """Return the path of a message of a chat record."""
    return f"messages[{index}]"


def check_turns(  # noqa: C901, PLR0912 (one loop keeps clean records cheap)
    messages: Sequence[Message], target: Target, place: Place = in_messages, *, trained: bool = True
) -> list[Fault]:
    """Return the faults of a conversation, tools aside.

    Args:
        messages: The conversation.
        target: What it is for.
        place: Gives a message's path from its index.
        trained: Whether its answers are trained, so that it must end with one.
    """
    if not messages:
        return [Fault("no-messages", place(0).partition("[")[0], "no messages")]
    kinds = tuple(map(type, messages)) if trained else ()
    if kinds in _SOUND and _is_plain(messages):
        return []
    faults: list[Fault] = []
    previous: Message | None = None
    learned = asked = False
    answers = systems = 0
    for index, message in enumerate(messages):
        kind = type(message)
        if previous is not None:
            before = type(previous)
            if kind not in _FOLLOWERS[before]:
                _add(
                    faults,
                    "turn-order",
                    f"{place(index)}.role",
                    f"`{_ROLES[kind]}` cannot follow `{_ROLES[before]}`",
                )
            elif kind is before and kind is not ToolMessage:
                faults += _check_neighbours(previous, message, place(index))
            if kind is SystemMessage and before is not SystemMessage:
                _add(faults, "system-position", place(index), "the system message is not the first")
        content = message.content
        if kind is AssistantMessage:
            answers += 1
            learned = learned or message.weight != 0  # type: ignore[union-attr]
            if content.__class__ is not str or not content or content.isspace():
                faults += _check_answer(message, target, place(index))  # type: ignore[arg-type]
            if message.weight is not UNSET and message.weight % 1:  # type: ignore[union-attr]
                _add(faults, "weight-fraction", f"{place(index)}.weight", "a fraction")
        elif content.__class__ is not str:
            faults += _check_chunks(message, target, place(index))
        elif not content and kind is not ToolMessage:
            _add(faults, "empty-message", f"{place(index)}.content", "no text")
        if kind is UserMessage:
            asked = True
        elif kind is SystemMessage:
            systems += 1
        previous = message
    if systems > 1:
        second = [i for i, message in enumerate(messages) if type(message) is SystemMessage][1]
        _add(faults, "system-count", place(second), f"{systems} system messages")
    if trained:
        _check_end(messages, faults, place, answers=answers, learned=learned, asked=asked)
    if not faults and trained and len(_SOUND) < _MEMO_SIZE and _is_plain(messages):
        _SOUND.add(kinds)
    return faults


def is_sound(kinds: tuple[type, ...]) -> bool:
    """Return whether conversations of this order of messages are known to be without fault.

    Where they are texts alone, without weights.
    """
    return kinds in _SOUND


def _is_plain(messages: Sequence[Message]) -> bool:
    """Return whether every message has a text, and no answer has a weight."""
    contents = [message.content for message in messages]
    return (
        {*map(type, contents)} == _TEXT
        and all(contents)
        and not any(map(str.isspace, contents))  # type: ignore[arg-type]
        and not any(
            type(message) is AssistantMessage and message.weight is not UNSET
            for message in messages
        )
    )


def _add(faults: list[Fault], rule: str, path: str, message: str) -> None:
    faults.append(Fault(rule, path, message))


def _check_end(
    messages: Sequence[Message],
    faults: list[Fault],
    place: Place,
    *,
    answers: int,
    learned: bool,
    asked: bool,
) -> None:
    last = messages[-1]
    if type(last) is not AssistantMessage:
        path = f"{place(len(messages) - 1)}.role"
        _add(faults, "last-message", path, f"ends with `{_ROLES[type(last)]}`")
    elif len(messages) == 1:
        _add(faults, "no-prompt", place(0), "an answer to nothing")
    elif not asked:
        _add(faults, "no-user", place(0), "no user message")
    if answers and not learned:
        _add(faults, "nothing-to-train", place(len(messages) - 1), "every weight is 0")


def _check_neighbours(before: Message, message: Message, path: str) -> list[Fault]:
    role = _ROLES[type(message)]
    faults = [Fault("same-role", f"{path}.role", f"two `{role}` messages in a row")]
    if isinstance(before, AssistantMessage) and isinstance(message, AssistantMessage):
        weights = [1 if m.weight is UNSET else m.weight for m in (before, message)]
        if weights[0] != weights[1]:
            _add(faults, "joined-weights", f"{path}.weight", "another weight than its neighbour's")
        elif (before.content and message.tool_calls) or (before.tool_calls and message.content):
            _add(faults, "joined-calls", path, "an answer and a tool call in a row")
    return faults


def _check_answer(message: AssistantMessage, target: Target, path: str) -> list[Fault]:
    content = message.content
    faults: list[Fault] = []
    if isinstance(content, list):
        faults += _check_chunks(message, target, path)
        texts = [chunk.text for chunk in content if isinstance(chunk, TextChunk)]
        empty = len(texts) == len(content) and not any(texts)
        text = "".join(texts) if len(texts) == len(content) else "x"
    else:
        text = content if isinstance(content, str) else ""
        empty = not text
    if empty and not message.tool_calls:
        _add(faults, "empty-assistant", path, "neither content nor tool calls")
    elif text.isspace() and not message.tool_calls:
        _add(faults, "blank-answer", f"{path}.content", "only white space")
    return faults


def _check_chunks(message: Message, target: Target, path: str) -> list[Fault]:
    faults: list[Fault] = []
    role = _ROLES[type(message)]
    allowed = target.chunks[role]
    if not isinstance(message.content, list):
        return faults
    for number, chunk in enumerate(message.content):
        place = f"{path}.content[{number}]"
        if type(chunk) not in allowed:
            kind = "an image" if isinstance(chunk, ImageChunk) else "reasoning"
            _add(faults, "chunk-type", f"{place}.type", f"{kind} in a `{role}` message")
        elif isinstance(chunk, ImageChunk):
            url = chunk.image_url
            if isinstance(url, dict) and (not url.get("url") or url.keys() - {"url", "detail"}):
                _add(
                    faults,
                    "image-url",
                    f"{place}.image_url",
                    "expected `url`, and `detail` at most",
                )
            elif not url:
                _add(faults, "image-url", f"{place}.image_url", "empty")
    if type(message) in (SystemMessage, UserMessage) and not any(
        not isinstance(chunk, TextChunk) or chunk.text for chunk in message.content
    ):
        _add(faults, "empty-message", f"{path}.content", "no text")
    return faults
