"""Samples that are longer than a limit: refused, left out, or shortened at the front."""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from finetune.errors import DataError
from finetune.recipe import Recipe
from finetune.records import (
    AssistantMessage,
    ChatRecord,
    ClassifierRecord,
    Compared,
    Message,
    Record,
    SystemMessage,
    TextRecord,
    UserMessage,
)
from finetune.tokens.fim import encode_document
from finetune.tokens.tokenizer import Sample, Tokenizer

_HINTS = (
    "raise `training.seq_len`, or set `data.too_long` to `drop` or `truncate-history`",
    "cut documents with `chunks: {by: window}`, raise `training.seq_len`, or set `data.too_long`",
)
TooLong = Literal["error", "drop", "truncate-history"]


class Fit(NamedTuple):
    """The samples of a record that fit, and what it took.

    Attributes:
        samples: Samples of at most the limit.
        dropped: Samples that were left out because they are too long; answers that are compared
            count as one.
        shortened: Samples whose oldest turns were left out, counted alike.
        lost_messages: Messages left out of shortened samples.
        lost_trained: Trained tokens lost with dropped samples and left-out turns.
    """

    samples: list[Sample]
    dropped: int = 0
    shortened: int = 0
    lost_messages: int = 0
    lost_trained: int = 0


def make_samples(
    tokenizer: Tokenizer, record: Record, recipe: Recipe, epoch: int = 0
) -> list[Sample]:
    """Return a record's samples as a recipe trains them in an epoch (from 0), of any length.

    Epochs differ only where documents are cut to fill in the middle.

    Raises:
        DataError: The record cannot be encoded.
        UsageError: The tokenizer has no layout to fill in a middle.
    """
    ratio = recipe.training.fim_ratio
    if not (ratio and isinstance(record, TextRecord)):
        return tokenizer.encode(record)
    return [encode_document(tokenizer, record.text, ratio, f"{recipe.seed}/{epoch}")]


def fit_record(tokenizer: Tokenizer, record: Record, recipe: Recipe, epoch: int = 0) -> Fit:
    """Return `make_samples`, none longer than `training.seq_len`, as `data.too_long` says.

    Raises:
        DataError: See `fit`.
        UsageError: See `make_samples`.
    """
    samples = make_samples(tokenizer, record, recipe, epoch)
    return fit(tokenizer, record, recipe.training.seq_len, recipe.data.too_long, samples)


def fit(
    tokenizer: Tokenizer,
    record: Record,
    limit: int,
    policy: TooLong = "error",
    samples: list[Sample] | None = None,
) -> Fit:
    """Return the record's samples, none longer than `limit` tokens.

    Args:
        tokenizer: The model's tokenizer.
        record: The record.
        limit: Most tokens of a sample, such as `training.seq_len`.
        policy: `error` refuses the record, `drop` leaves too long samples out,
            `truncate-history` leaves out the oldest whole turns of a conversation (never system
            prompt, tools or the last trained turn), and drops what still does not fit. Answers
            that are compared keep the same turns, and are dropped together.
        samples: The record's samples, where they are made already.

    Raises:
        DataError: A sample is too long and the policy is `error` (`too-long`), or the record
            cannot be encoded.
    """
    samples = tokenizer.encode(record) if samples is None else samples
    longest = max(map(len, samples))
    if longest <= limit:
        return Fit(samples)
    if policy == "error":
        raise DataError(
            f"too long: {longest:,} tokens, at most {limit:,}",
            rule="too-long",
            hint=_HINTS[isinstance(record, TextRecord)],
        )
    if isinstance(record, Compared | ClassifierRecord):
        return _fit_together(tokenizer, record, limit, policy, samples)
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


def _fit_together(
    tokenizer: Tokenizer,
    record: Compared | ClassifierRecord,
    limit: int,
    policy: TooLong,
    samples: list[Sample],
) -> Fit:
    """Leave out the fewest turns with which all answers (or what is labelled) fit, or drop all."""
    field = "messages" if isinstance(record, ClassifierRecord) else "prompt"
    messages: list[Message] = getattr(record, field) or []
    starts = [i for i, message in enumerate(messages) if _begins_turn(messages, i, message)]
    low, high = 1, len(starts) - 1 if policy == "truncate-history" else 0
    best: Fit | None = None
    while low <= high:
        middle = (low + high) // 2
        rest = _cut(messages, starts[middle])
        short = tokenizer.encode(msgspec.structs.replace(record, **{field: rest}))
        if max(map(len, short)) <= limit:
            lost = len(messages) - len(rest)
            best, high = Fit(short, shortened=1, lost_messages=lost), middle - 1
        else:
            low = middle + 1
    trained = sum(sample.count_trained() for sample in samples)
    return best or Fit([], dropped=1, lost_trained=trained)


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
    short = ChatRecord(messages=_cut(messages, start), tools=record.tools)
    (sample,) = tokenizer.encode(short)
    return sample


def _cut(messages: list[Message], start: int) -> list[Message]:
    systems = [message for message in messages[:start] if isinstance(message, SystemMessage)]
    return [*systems, *messages[start:]]
