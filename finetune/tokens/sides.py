"""Records that compare answers, as conversations: each answer after the same prompt."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import msgspec

from finetune.errors import DataError
from finetune.records import (
    AssistantMessage,
    ChatRecord,
    Compared,
    Message,
    PreferenceRecord,
    RatingRecord,
    Record,
)


def name_answers(record: Record) -> tuple[str, ...]:
    """Return the keys of the answers that a record compares, the better one first."""
    if isinstance(record, PreferenceRecord):
        return ("chosen", "rejected")
    return ("completion",) if isinstance(record, RatingRecord) else ()


def make_conversations(record: Compared) -> dict[str, ChatRecord]:
    """Return each answer as a conversation, by its key.

    What the assistant says in the prompt is not trained; all that it says in the answer is.
    """
    prompt = [_silence(message) for message in record.prompt]
    return {
        name: ChatRecord(messages=[*prompt, *getattr(record, name)], tools=record.tools)
        for name in name_answers(record)
    }


def _silence(message: Message) -> Message:
    if isinstance(message, AssistantMessage):
        return msgspec.structs.replace(message, weight=0.0)
    return message


@contextlib.contextmanager
def placing(record: Compared, name: str) -> Iterator[None]:
    """Let a fault of an answer's conversation name its place in the record."""
    try:
        yield
    except DataError as error:
        path = error.path or name
        if match := re.fullmatch(r"messages(?:\[(\d+)\])?(.*)", path):
            index, asked = int(match[1] or len(record.prompt)), len(record.prompt)
            inside = f"prompt[{index}]" if index < asked else f"{name}[{index - asked}]"
            path = (inside if match[1] else name) + match[2]
        raise DataError(error.fact, path=path, rule=error.rule, hint=error.hint) from None
