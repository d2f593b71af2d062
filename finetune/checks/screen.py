"""The quick look: conversations that no rule could find anything in, told in one pass.

Most lines of most files are such. What is not told here is looked at by every rule.
"""

from __future__ import annotations

from itertools import compress

from finetune.checks.conversation import is_sound
from finetune.checks.scripts import seem_unlike
from finetune.checks.texts import check_all, check_answer, has_details, has_marks
from finetune.records import AssistantMessage, ChatRecord, ToolMessage, UserMessage

_MEMO_SIZE = 4096


class Screen:
    """Tells clean conversations: texts alone, in an order that was found to be sound before."""

    def __init__(self) -> None:
        self._answers: dict[tuple[type, ...], list[bool]] = {}  # which messages are answers

    def measure_clean(self, record: ChatRecord, line: bytes) -> int | None:
        """Return the characters of a record's answers, None where a rule may find something.

        Args:
            record: The record.
            line: What it was decoded from.
        """
        messages = record.messages
        kinds = tuple(map(type, messages))
        which = self._answers.get(kinds) or self._learn(kinds)
        if which is None:
            return None
        contents: list[str] = [message.content for message in messages]  # type: ignore[misc]
        try:
            texts = "\n".join(contents)
        except TypeError:  # chunks, or calls without a content
            return None
        if not all(contents) or any(map(str.isspace, contents)):
            return None
        # As many colons as `messages`, a role and a content for each, and the texts have: no other
        # key stands on the line, and none twice. A colon spelled as an escape would hide one.
        inner = texts.count(":")
        keys = line.count(b":") - inner
        if keys != 1 + 2 * len(messages) and keys != 1 + 2 * len(messages) + _count_ones(record):
            return None
        if inner and b"\\u003" in line:
            return None
        answers = list(compress(contents, which))
        if has_details(texts, answers) and any(check_answer("", answer) for answer in answers):
            return None
        if has_marks(texts) and check_all(record, texts):
            return None
        if (
            not texts.isascii()
            and kinds[-2] is UserMessage
            and seem_unlike(contents[-2], contents[-1])
        ):
            return None
        return sum(map(len, answers))

    def _learn(self, kinds: tuple[type, ...]) -> list[bool] | None:
        if not is_sound(kinds) or ToolMessage in kinds or len(self._answers) >= _MEMO_SIZE:
            return None
        which = self._answers[kinds] = [kind is AssistantMessage for kind in kinds]
        return which


def _count_ones(record: ChatRecord) -> int:
    """Return how many answers have the weight that they have without one."""
    return sum(type(m) is AssistantMessage and m.weight == 1 for m in record.messages)
