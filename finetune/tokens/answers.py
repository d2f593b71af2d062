"""Which messages a sample trains, and where one pass over a conversation is not faithful."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from msgspec import UNSET

from finetune.errors import DataError
from finetune.records import AssistantMessage, ChatRecord, Message, SystemMessage


class Answer(NamedTuple):
    """Assistant messages that follow one another: the encoder joins them under one EOS.

    Attributes:
        start: Index of the first message.
        stop: Index after the last one.
        weight: Loss weight, 0 to 1.
        calls: Whether any of them calls a tool.
    """

    start: int
    stop: int
    weight: float
    calls: bool


class Part(NamedTuple):
    """What one sample holds: messages up to `stop`, of which it trains some answers.

    Attributes:
        stop: Index after the last message.
        weights: Loss weight of each answer up to there; 0 = not trained by this sample.
        starts: Index of the first message of each trained answer.
    """

    stop: int
    weights: list[float]
    starts: tuple[int, ...]


def find_answers(messages: Sequence[Message]) -> list[Answer]:
    """Return the runs of assistant messages.

    Raises:
        DataError: Messages that the encoder joins have different weights (`joined-weights`).
    """
    answers: list[Answer] = []
    for index, message in enumerate(messages):
        if not isinstance(message, AssistantMessage):
            continue
        weight = 1.0 if message.weight is UNSET else message.weight
        calls = bool(message.tool_calls)
        last = answers[-1] if answers else None
        if last is None or last.stop < index:
            answers.append(Answer(index, index + 1, weight, calls))
        elif last.weight == weight:
            answers[-1] = last._replace(stop=index + 1, calls=last.calls or calls)
        else:
            raise DataError(
                f"joined with the message before it, but weighs {weight:g} after {last.weight:g}",
                path=f"messages[{index}].weight",
                rule="joined-weights",
                hint="give both the same weight: consecutive assistant messages are one answer",
            )
    return answers


def split_record(record: ChatRecord, version: int) -> list[Part]:
    """Return the samples that train the record's answers, each in its context at inference.

    Args:
        record: The conversation.
        version: Version of the Mistral tokenizer, such as 7.

    Raises:
        DataError: `joined-weights`, or no answer is trained (`nothing-to-train`).
    """
    answers = find_answers(record.messages)
    trained = find_trained(answers)
    if _is_faithful(record, answers, trained, version):
        groups = [trained]
    else:
        groups = [[index] for index in trained]
    return [_part(answers, group) for group in groups]


def find_trained(answers: Sequence[Answer]) -> list[int]:
    """Return which answers are trained.

    Raises:
        DataError: None is (`nothing-to-train`).
    """
    trained = [index for index, answer in enumerate(answers) if answer.weight > 0]
    if not trained:
        raise DataError(
            "no assistant message is trained",
            path="messages",
            rule="nothing-to-train",
            hint="give one of them a weight above 0, or leave the record out",
        )
    return trained


def _part(answers: Sequence[Answer], group: Sequence[int]) -> Part:
    last = group[-1]
    weights = [a.weight if i in group else 0.0 for i, a in enumerate(answers[: last + 1])]
    return Part(answers[last].stop, weights, tuple(answers[i].start for i in group))


def _is_faithful(
    record: ChatRecord, answers: Sequence[Answer], trained: Sequence[int], version: int
) -> bool:
    """Tell whether one pass gives every trained answer the context that it has at inference."""
    if version >= 13 or len(trained) == 1:
        return True
    seen = answers[: trained[-1] + 1]
    before = enumerate(record.messages[: seen[-1].start])
    systems = [i for i, m in before if isinstance(m, SystemMessage) and m.content]
    if version == 1:  # the system prompt stands in the first user message, wherever it was given
        return not any(system > answers[trained[0]].start for system in systems)
    if record.tools:  # the tools stand before the last user message
        return False
    if version <= 3 and any(system < answers[trained[-2]].start for system in systems):
        return False  # and so does the system prompt
    if version == 2:  # calls and results before the last user message are left out
        return not any(answer.calls for answer in seen)
    # A trained call carries no id, but a call of the history does.
    return not any(answers[index].calls for index in trained[:-1])
