"""What every tokenizer offers, whatever stands behind it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from finetune.errors import DataError, UsageError
from finetune.records import (
    AssistantMessage,
    ChatRecord,
    ClassifierRecord,
    Compared,
    Message,
    Record,
    TextRecord,
    Tools,
)
from finetune.tokens.images import Picture
from finetune.tokens.parsing import Controls
from finetune.tokens.sides import make_conversations, placing

IGNORED = -100
"""The label of a position that is not trained (the `ignore_index` of torch's cross entropy)."""


class Sample(msgspec.Struct):
    """A tokenized record, or the part of it that one pass trains.

    Attributes:
        input_ids: Token ids, T of them.
        labels: T ids: the token itself where it is trained, else `IGNORED`.
        weights: T loss weights (0 where nothing is trained), or None where each trained one is 1.
        stop: How many of the record's messages the sample holds.
        trained: Index of each message that the sample trains (the first, where some are joined).
        images: Its images, in the order of their tokens.
        side: Which of the answers that a record compares it trains: 0 the better or only one.
    """

    input_ids: list[int]
    labels: list[int]
    weights: list[float] | None = None
    stop: int = 0
    trained: tuple[int, ...] = ()
    images: list[Picture] = []
    side: int = 0

    def __len__(self) -> int:
        return len(self.input_ids)

    def count_trained(self) -> int:
        """Return how many of its tokens are trained."""
        return len(self.labels) - self.labels.count(IGNORED)


class Prompt(NamedTuple):
    """What stands before an answer.

    Attributes:
        ids: Its tokens.
        images: Its images, in the order of their tokens.
    """

    ids: list[int]
    images: Sequence[Picture] = ()


class Tokenizer(ABC):
    """Encodes records exactly as the model saw them in its own training.

    Attributes:
        name: What it was loaded as, for people.
        version: `v1` … `v15`, or `hf` where a chat template decides the layout.
        sha256: Digest of the tokenizer's files.
        vocab_size: Number of ids.
        bos_id: Id that begins every sample (-1 where the tokenizer has none).
        eos_id: Id that ends every answer: generation stops there.
        pad_id: Id to fill with; never trained.
        image_id: Id that stands for a patch of an image; None where there is none.
    """

    name: str
    version: str
    sha256: str
    vocab_size: int
    bos_id: int
    eos_id: int
    pad_id: int
    image_id: int | None = None

    def encode(self, record: Record) -> list[Sample]:
        """Return the record's samples: one, or one for each trained answer.

        More than one where a single pass would train an answer in a context that it does not
        have at inference, for example because the system prompt stands before the last user
        message. A record that compares answers has those of each answer, one after the other.

        Raises:
            DataError: The conversation cannot be encoded (`encoding`, `joined-weights`,
                `nothing-to-train`, `image`, `surrogate`, `control-token`), or the answers that
                are compared become the same tokens (`same-answers`).
        """
        if isinstance(record, ChatRecord):
            return self.encode_chat(record)
        if isinstance(record, TextRecord):
            return [self.encode_text(record.text)]
        if isinstance(record, Compared):
            return self._encode_answers(record)
        return [self.encode_input(record)]

    def _encode_answers(self, record: Compared) -> list[Sample]:
        sides: list[list[Sample]] = []
        for side, (name, conversation) in enumerate(make_conversations(record).items()):
            with placing(record, name):
                samples = self.encode_chat(conversation)
            for sample in samples:
                sample.side = side
            sides.append(samples)
        ids = [[(sample.input_ids, sample.labels) for sample in samples] for samples in sides]
        if len(ids) > 1 and ids[0] == ids[1]:
            raise DataError("the same tokens as `chosen`", path="rejected", rule="same-answers")
        return [sample for samples in sides for sample in samples]

    @abstractmethod
    def encode_chat(self, record: ChatRecord) -> list[Sample]:
        """Return the samples of a conversation."""

    @abstractmethod
    def text_ids(self, text: str) -> list[int]:
        """Return the ids of a text on its own, without BOS and EOS; controls stay plain text."""

    @abstractmethod
    def encode_prompt(self, messages: Sequence[Message], tools: Tools = msgspec.UNSET) -> list[int]:
        """Return the ids up to where the next assistant message starts; images are refused."""

    def encode_seen(self, messages: Sequence[Message], tools: Tools = msgspec.UNSET) -> Prompt:
        """Return what stands before the next assistant message, images included.

        Raises:
            DataError: It cannot be encoded (`encoding`), or the tokenizer has no tokens for
                images (`image`).
        """
        return Prompt(self.encode_prompt(messages, tools))

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`, control tokens left out."""

    @abstractmethod
    def parse(self, ids: Sequence[int]) -> AssistantMessage:
        """Return generated ids (with or without the end token) as a message.

        What cannot be read as tool calls stays in `content`, as generated.
        """

    @abstractmethod
    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return one visible string for each id, control tokens by their name."""

    def vocabulary(self) -> list[bytes | None]:
        """Return the bytes of each id; None for control tokens.

        Raises:
            UsageError: The tokenizer does not tell them.
        """
        raise UsageError(
            f"{self.name}: the bytes of its ids are not known",
            hint="it takes one of Mistral's tokenizer files",
        )

    @property
    def tokenizer_json(self) -> str | None:
        """Itself as the library `tokenizers` writes it, None where it is no tokenizer of that."""
        return None

    @property
    def call_controls(self) -> Controls | None:
        """The control tokens inside an answer, None where a template lays calls out as text."""
        return None

    @property
    def fim_controls(self) -> tuple[int, int]:
        """The control tokens before a suffix and before a prefix.

        Raises:
            UsageError: The tokenizer has no layout to fill in a middle.
        """
        raise UsageError(
            f"{self.name}: no layout to fill in a middle (it begins with v3 of Mistral's files)",
            hint="set `training.fim_ratio` to 0",
        )

    def fim_prompt(self, prefix: str, suffix: str) -> list[int]:
        """Return the ids after which the model writes the middle: `encode_fim`'s.

        Raises:
            UsageError: See `fim_controls`.
        """
        before_suffix, before_prefix = self.fim_controls
        tail = self.fim_suffix(suffix) if suffix else []
        return [self.bos_id, before_suffix, *tail, before_prefix, *self.text_ids(prefix)]

    def fim_suffix(self, suffix: str) -> list[int]:
        """Return the ids of the text behind the middle."""
        return self.text_ids(suffix)

    def fim_middle(self, middle: str) -> list[int]:
        """Return the ids of the middle, which goes on from the prefix."""
        return self.text_ids(middle)

    def encode_text(self, text: str) -> Sample:
        """Return a document as BOS, its tokens, EOS; everything but BOS is trained."""
        body = [*self.text_ids(text), self.eos_id]
        if self.bos_id < 0:
            return Sample(body, list(body))
        return Sample([self.bos_id, *body], [IGNORED, *body])

    def encode_input(self, record: ClassifierRecord) -> Sample:
        """Return what a classifier reads of a record; none of its tokens is trained.

        A text stands behind BOS, a conversation as it does before the next answer.
        """
        if isinstance(record.text, str):
            begin = [] if self.bos_id < 0 else [self.bos_id]
            ids, stop = [*begin, *self.text_ids(record.text)], 0
        else:
            messages = record.messages or []
            ids, stop = self.encode_prompt(messages), len(messages)
        return Sample(ids, [IGNORED] * len(ids), stop=stop)

    def count(self, record: Record) -> tuple[int, int]:
        """Return how many tokens the record's samples have, and how many are trained.

        Equal to the totals of `encode`, without its request validation.

        Raises:
            DataError: As in `encode`.
        """
        result = self.count_many([record])[0]
        if isinstance(result, DataError):
            raise result
        return result

    def count_many(self, records: Sequence[Record]) -> list[tuple[int, int] | DataError]:
        """Return `count` of each record, or the fault that `encode` would raise.

        Faster than one by one: hand over some hundred records at a time.
        """
        counts: list[tuple[int, int] | DataError] = []
        for record in records:
            try:
                samples = self.encode(record)
            except DataError as error:
                counts.append(error)
            else:
                trained = sum(sample.count_trained() for sample in samples)
                counts.append((sum(map(len, samples)), trained))
        return counts
