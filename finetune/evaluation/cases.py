"""Cases: the held-out records of a dataset as questions with a reference answer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from finetune.errors import DataError, RunError
from finetune.evaluation.answers import Answer, Reference, read_reference
from finetune.files import open_bytes, read_lines
from finetune.methods import METHODS
from finetune.recipe import Recipe
from finetune.records import (
    AssistantMessage,
    ChatRecord,
    Compared,
    Message,
    PreferenceRecord,
    RatingRecord,
    Record,
    TextRecord,
    Tools,
    decode,
)
from finetune.tokens import Prompt, Sample, Tokenizer, cut_text, fit


class Conversation(NamedTuple):
    """A question in messages: those before the answer, and the declared tools."""

    messages: list[Message]
    tools: Tools

    def encode(self, tokenizer: Tokenizer) -> Prompt:
        """Return what stands before the answer."""
        return tokenizer.encode_seen(self.messages, self.tools)


class Gap(NamedTuple):
    """A question in a document: what stands before and behind the middle to fill in."""

    prefix: str
    suffix: str

    def encode(self, tokenizer: Tokenizer) -> Prompt:
        """Return what stands before the middle."""
        return Prompt(tokenizer.fim_prompt(self.prefix, self.suffix))


class Case(NamedTuple):
    """One held-out record.

    Attributes:
        number: Its line in the split's file, from 1.
        samples: What the loss is measured on.
        question: What comes before its last trained answer, or around the middle of a document;
            None where the record was shortened to fit, so that nobody is asked what no longer
            stands there, and for documents that are not trained as a middle to fill in.
        reference: That answer, or that middle.
        worse: What an answer that should not be given is, where the record has one.
    """

    number: int
    samples: list[Sample]
    question: Conversation | Gap | None
    reference: Reference
    worse: Sequence[Sample] = ()

    @property
    def has_images(self) -> bool:
        """Whether it holds images."""
        return any(sample.images for sample in self.samples)


class Cases(NamedTuple):
    """All cases of a split.

    Attributes:
        cases: In the order of the file.
        too_long: Records left out because they are longer than `training.seq_len`.
    """

    cases: list[Case]
    too_long: int


def read_cases(path: Path, tokenizer: Tokenizer, recipe: Recipe) -> Cases:
    """Return the cases of a split's file, as long as training samples at most.

    Raises:
        DataError: A record is too long and `data.too_long` is `error`.
        RunError: No record is left.
    """
    cases, too_long = [], 0
    with open_bytes(path) as file:
        for line in read_lines(file):
            record = decode(METHODS[recipe.method].record, line.data or b"")
            try:
                case = _make_case(line.number, record, tokenizer, recipe)
            except DataError as error:
                raise error.at(path.name, line.number) from None
            too_long += case is None
            cases += [case] if case else []
    if not cases:
        raise RunError(f"{path}: holds no record to measure on")
    return Cases(cases, too_long)


def choose_cases(
    cases: Sequence[Case], limit: int | None, seed: int, *, images: bool = True
) -> list[Case]:
    """Return the cases that answers are generated for: `limit` of them by chance, in order.

    Args:
        cases: All of them.
        limit: Most of them; all where absent.
        seed: Of the chance.
        images: Whether those are asked that hold images.
    """
    asked = [case for case in cases if case.question and (images or not case.has_images)]
    if limit is None or limit >= len(asked):
        return asked
    drawn = random.Random(seed).sample(range(len(asked)), limit)  # noqa: S311 (statistics)
    return [asked[index] for index in sorted(drawn)]


def _make_case(number: int, record: Record, tokenizer: Tokenizer, recipe: Recipe) -> Case | None:
    if isinstance(record, TextRecord):
        return _make_document(number, record, tokenizer, recipe)
    if isinstance(record, Compared):
        return _make_comparison(number, record, tokenizer, recipe)
    assert isinstance(record, ChatRecord)  # noqa: S101 (the other kinds have no local trainer)
    fitted = fit(tokenizer, record, recipe.training.seq_len, recipe.data.too_long)
    if not fitted.samples:
        return None
    last, answer = [
        (index, message)
        for index, message in enumerate(record.messages)
        if isinstance(message, AssistantMessage) and message.weight != 0
    ][-1]
    before = record.messages[:last]
    whole = not (fitted.dropped or fitted.shortened)
    question = Conversation(before, record.tools) if whole else None
    reference = read_reference(answer, before, record.tools)
    return Case(number, fitted.samples, question, reference)


def _make_document(
    number: int, record: TextRecord, tokenizer: Tokenizer, recipe: Recipe
) -> Case | None:
    """Return a document as it is for the loss, and the middle of it that is asked for."""
    fitted = fit(tokenizer, record, recipe.training.seq_len, recipe.data.too_long)
    if not fitted.samples:
        return None
    cut = cut_text(record.text, f"{recipe.seed}/evaluation") if recipe.training.fim_ratio else None
    question = Gap(cut.prefix, cut.suffix) if cut else None
    return Case(number, fitted.samples, question, Reference(Answer(cut.middle if cut else "")))


def _make_comparison(
    number: int, record: Compared, tokenizer: Tokenizer, recipe: Recipe
) -> Case | None:
    """Return the better answer as the one to give, and the worse one beside it."""
    fitted = fit(tokenizer, record, recipe.training.seq_len, recipe.data.too_long)
    if not fitted.samples:
        return None
    if isinstance(record, RatingRecord) and not record.label:
        return Case(number, [], None, Reference(Answer("")), fitted.samples)
    said = record.chosen if isinstance(record, PreferenceRecord) else record.completion
    answer = next(message for message in said if isinstance(message, AssistantMessage))
    question = None if fitted.shortened else Conversation(record.prompt, record.tools)
    reference = read_reference(answer, record.prompt, record.tools)
    better = [sample for sample in fitted.samples if sample.side == 0]
    worse = [sample for sample in fitted.samples if sample.side == 1]
    return Case(number, better, question, reference, worse)
