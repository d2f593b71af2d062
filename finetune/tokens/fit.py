"""Samples that are longer than a limit: refused, left out, or shortened at the front."""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from finetune.errors import DataError
from finetune.records import (
    AssistantMessage,
    ChatRecord,
    Message,
    Record,
    SystemMessage,
    UserMessage,
)
from finetune.tokens.tokenizer import Sample, Tokenizer

TooLong = Literal["error", "drop", "truncate-history"]


class Fit(NamedTuple):
    """The samples of a record that fit, and what it took.

    Attributes:
        samples: Samples of at most the limit.
        dropped: Samples that were left out because they are too long.
        shortened: Samples whose oldest turns were left out.
        lost_messages: Messages left out of shortened samples.
        lost_trained: Trained tokens lost with dropped samples and left-out turns.
    """

    samples: list[Sample]
    dropped: int = 0
    shortened: int = 0
    lost_messages: int = 0
    lost_trained: int = 0


def fit(tokenizer: Tokenizer, record: Record, limit: int, policy: TooLong = "error") -> Fit:
    """Return the record's samples, none longer than `limit` tokens.

    Args:
        tokenizer: The model's tokenizer.
        record: The record.
        limit: Most tokens of a sample, such as `training.seq_len`.
        policy: `error` refuses the record, `drop` leaves too long samples out,
            `truncate-history` leaves out the oldest whole turns of a conversation (never system
            prompt, tools or the last trained turn), and drops what still does not fit.

    Raises:
        DataError: A sample is too long and the policy is `error` (`too-long`), or the record
            cannot be encoded.
    """
    samples = tokenizer.encode(record)
    longest = max(map(len, samples))
    if longest <= limit:
        return Fit(samples)
    if policy == "error":
        raise DataError(
            f"too long: {longest:,} tokens, at most {limit:,}",
            rule="too-long",
            hint="raise `training.seq_len`, or set `data.too_long` to `drop` or `truncate-history`",
        )
    kept: list[Sample] = []
    dropped = shortened = lost_messages = lost_trained = 0
    for sample in samples:
        if len(sample) <= limit:
            kept.append(sample)
            continue
        short = None
        if policy == "truncate-history" and isinstance(record, ChatRecord):
            short = _shorten(tokenizer, record, sample, limit)
        lost_trained += sample.count_trained() - (short.count_trained() if short else 0)
        if short is None:
            dropped += 1
        else:
            kept.append(short)
            shortened += 1
            lost_messages += sample.stop - short.stop
    return Fit(kept, dropped, shortened, lost_messages, lost_trained)


def _shorten(tokenizer: Tokenizer, record: ChatRecord, sample: Sample, limit: int) -> Sample | None:
    """Return the sample without its oldest turns, or None where even the last is too long.

    `stop` and `trained` of the result count the messages that are left.
    """
    messages = _train_only(record.messages[: sample.stop], sample.trained)
    starts = [i for i, message in enumerate(messages) if _begins_turn(messages, i, message)]
    low, high = 1, len([start for start in starts if start < sample.trained[-1]]) - 1
    best: Sample | None = None
    while low <= high:  # the fewest turns to leave out
        middle = (low + high) // 2
        short = _encode_from(tokenizer, record, messages, starts[middle])
        if len(short) <= limit:
            best, high = short, middle - 1
        else:
            low = middle + 1
    return best


def _begins_turn(messages: list[Message], index: int, message: Message) -> bool:
    return isinstance(message, UserMessage) and (
        index == 0 or not isinstance(messages[index - 1], UserMessage)
    )


def _train_only(messages: list[Message], trained: tuple[int, ...]) -> list[Message]:
    """Give weight 0 to the answers that this sample does not train."""
    result: list[Message] = []
    keep = False
    for index, message in enumerate(messages):
        if isinstance(message, AssistantMessage):
            follows = index > 0 and isinstance(messages[index - 1], AssistantMessage)
            keep = index in trained or (follows and keep)
            result.append(message if keep else msgspec.structs.replace(message, weight=0.0))
        else:
            result.append(message)
    return result


def _encode_from(
    tokenizer: Tokenizer, record: ChatRecord, messages: list[Message], start: int
) -> Sample:
    systems = [message for message in messages[:start] if isinstance(message, SystemMessage)]
    short = ChatRecord(messages=[*systems, *messages[start:]], tools=record.tools)
    (sample,) = tokenizer.encode(short)
    return sample
