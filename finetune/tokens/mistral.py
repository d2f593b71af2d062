"""Mistral tokenizer files, v1 to v15, SentencePiece or tekken.

Only `load_tokenizer` imports this module: mistral-common takes 0.6 s.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mistral_common.protocol.instruct.validator import ValidationMode
from mistral_common.tokens.tokenizers.base import SpecialTokens
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from msgspec import UNSET

from finetune.errors import DataError, FinetuneError, UsageError
from finetune.records import (
    AssistantMessage,
    ChatRecord,
    Compared,
    Message,
    Record,
    TextRecord,
    Tools,
    UserMessage,
)
from finetune.tokens.answers import Part, split_record
from finetune.tokens.engines import Engine, SentencePiece, Tekken, check_text
from finetune.tokens.images import refuse_images
from finetune.tokens.layout import CLOSE, OPEN, Layout, Outline, convert, text_index
from finetune.tokens.parsing import Controls, parse_answer
from finetune.tokens.selfcheck import check_ids, find_miscount
from finetune.tokens.sides import make_conversations, placing
from finetune.tokens.tally import Arithmetic, Numbers, Tally
from finetune.tokens.tokenizer import IGNORED, Prompt, Sample, Tokenizer

_BREAK = "\u263a"  # keeps SentencePiece from putting a space in front; cut off again

# A SentencePiece file of another version gives `<unk>` for control tokens, without a word.
_NEEDED = {
    SpecialTokens.begin_inst: 2,
    SpecialTokens.tool_calls: 2,
    SpecialTokens.begin_system: 7,
    SpecialTokens.args: 11,
}


class MistralFileTokenizer(Tokenizer):
    """A tokenizer file that mistral-common reads.

    Args:
        path: The file; its version stands in the file (tekken) or its name (SentencePiece).
        name: What people call it.
        sha256: The file's digest.
    """

    def __init__(self, path: Path, *, name: str, sha256: str) -> None:
        mistral = MistralTokenizer.from_file(path, mode=ValidationMode.finetuning)
        self._raw: Any = mistral.instruct_tokenizer.tokenizer
        self.version = str(mistral.version.value)
        self._number = int(self.version.removeprefix("v"))
        self._is_tekken = isinstance(self._raw, Tekkenizer)
        for control, since in _NEEDED.items():
            if self._number >= since and self._control(control) is None:
                raise UsageError(
                    f"{path}: no control token `{control.value}`, which {self.version} needs",
                    hint="the file's version is not the one in its name",
                )
        self._layout = Layout(mistral)
        self._engine: Engine = Tekken(self._raw) if self._is_tekken else SentencePiece(self._raw)
        self.name = name
        self.sha256 = sha256
        self._bare = 3 <= self._number <= 11  # calls are trained without their random id
        self.vocab_size = self._raw.n_words
        self.bos_id = self._raw.bos_id
        self.eos_id = self._raw.eos_id
        self.pad_id = self._find_pad()
        images = getattr(mistral.instruct_tokenizer, "image_encoder", None)
        self.image_id = images and images.special_ids.img
        self._controls = Controls(
            calls=self._control(SpecialTokens.tool_calls),
            call_id=self._control(SpecialTokens.call_id),
            arguments=self._control(SpecialTokens.args),
            think=self._control(SpecialTokens.begin_think),
            end_think=self._control(SpecialTokens.end_think),
            bracketed=self._number < 11,
        )
        check_ids(self, mistral)
        self._settings = self._find_settings()
        self._adds_up = True
        self._adds_up = not find_miscount(self)

    def encode_chat(self, record: ChatRecord) -> list[Sample]:
        """Return the samples of a conversation: ids as `encode_chat_completion` gives them."""
        parts = split_record(record, self._number)
        messages = convert(record.messages)
        self._layout.validate(messages, record.tools, bare=self._bare)
        known: dict[str, list[int]] = {}
        samples = []
        for part in parts:
            outline = self._outline(messages, part, record.tools)
            samples.append(self._sample(outline, part, known))
        return samples

    def text_ids(self, text: str) -> list[int]:
        """Return the ids of a text on its own, without BOS and EOS; controls stay plain text."""
        check_text(text)
        return self._engine.encode(text)

    def encode_prompt(self, messages: Sequence[Message], tools: Tools = UNSET) -> list[int]:
        """Return the ids up to where the next assistant message starts.

        Raises:
            DataError: They cannot be encoded (`encoding`), or one holds an image (`image`).
        """
        refuse_images(messages)
        return self.encode_seen(messages, tools).ids

    def encode_seen(self, messages: Sequence[Message], tools: Tools = UNSET) -> Prompt:
        """Return what stands before the next assistant message, images included."""
        outline = self._layout.outline(convert(messages), tools)
        ids: list[int] = []
        for mark in outline.marks:
            if mark >= 0:
                ids.append(mark)
            elif mark not in (OPEN, CLOSE):
                ids += self.text_ids(outline.texts[text_index(mark)])
        return Prompt(ids, outline.pictures)

    def vocabulary(self) -> list[bytes | None]:
        """Return the bytes of each id; None for control tokens."""
        if self._is_tekken:
            special, piece = self._raw.is_special, self._raw.id_to_byte_piece
            return [None if special(token) else piece(token) for token in range(self.vocab_size)]
        return [_bytes(self._raw.id_to_piece(token)) for token in range(self.vocab_size)]

    @property
    def call_controls(self) -> Controls:
        """The control tokens inside an answer."""
        return self._controls

    @property
    def fim_controls(self) -> tuple[int, int]:
        """The control tokens before a suffix and before a prefix."""
        suffix, prefix = (self._control(c) for c in (SpecialTokens.suffix, SpecialTokens.prefix))
        # v2 has a layout, but its files have no such tokens and give `<unk>`.
        if self._number < 3 or suffix is None or prefix is None:
            return super().fim_controls
        return suffix, prefix

    def fim_suffix(self, suffix: str) -> list[int]:
        """Return the ids of the text behind the middle, as `encode_fim` makes them."""
        return self.text_ids(_BREAK + suffix)[len(self.text_ids(_BREAK)) :]

    def fim_middle(self, middle: str) -> list[int]:
        """Return the ids of the middle, without the space that SentencePiece puts in front."""
        return self.text_ids(middle) if self._is_tekken else self.fim_suffix(middle)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`, control tokens left out."""
        text: str = self._raw.decode(list(ids))
        return text

    def parse(self, ids: Sequence[int]) -> AssistantMessage:
        """Return generated ids (with or without EOS) as a message."""
        ids = list(ids)
        if self.eos_id in ids:
            ids = ids[: ids.index(self.eos_id)]
        return parse_answer(ids, self.decode, self._controls)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return one visible string for each id; bytes that are no text alone as `<0xE2>`."""
        if not self._is_tekken:
            return [self._raw.id_to_piece(token) for token in ids]
        return [self._tekken_piece(token) for token in ids]

    def count_many(self, records: Sequence[Record]) -> list[tuple[int, int] | DataError]:
        """Return `count` of each record, or the fault that `encode` would raise.

        The texts of all records go to the engine at once, each distinct one a single time.
        """
        numbers = Numbers()
        arithmetic = Arithmetic(
            self._number,
            thinks=self._controls.think is not None and self._controls.end_think is not None,
            settings=self._settings,
            numbers=numbers,
            dump_tools=self._layout.dump_tools,
        )
        tallies: list[Tally | DataError] = []
        for record in records:
            try:
                tallies.append(self._tally(record, arithmetic, numbers))
            except DataError as error:
                tallies.append(error)
        lengths = self._engine.count(list(numbers))
        return [t if isinstance(t, DataError) else t.total(lengths) for t in tallies]

    def _tally(self, record: Record, arithmetic: Arithmetic, numbers: Numbers) -> Tally:
        tally = Tally()
        if isinstance(record, TextRecord):
            tally.add(1, [], trained=False)
            tally.add(1, [numbers[record.text]], trained=True)
        elif isinstance(record, ChatRecord):
            parts = split_record(record, self._number)
            if self._adds_up:
                quick = arithmetic.tally(record, parts)
                if quick:
                    return quick
            messages = convert(record.messages)
            for part in parts:
                _add(tally, self._outline(messages, part, record.tools), part, numbers)
        elif isinstance(record, Compared):
            for name, conversation in make_conversations(record).items():
                with placing(record, name):
                    tally.join(self._tally(conversation, arithmetic, numbers))
        elif isinstance(record.text, str):
            tally.add(1, [numbers[record.text]], trained=False)
        else:
            before = record.messages or []
            refuse_images(before)
            outline = self._layout.outline(convert(before), UNSET)
            _add(tally, outline, Part(len(before), [0.0] * len(before), ()), numbers)
        return tally

    def _outline(self, messages: Sequence[Any], part: Part, tools: Tools) -> Outline:
        return self._layout.outline(messages[: part.stop], tools, bare=self._bare)

    def _sample(self, outline: Outline, part: Part, known: dict[str, list[int]]) -> Sample:
        ids: list[int] = []
        labels: list[int] = []
        weights: list[float] = []
        answer, weight = -1, 0.0
        for mark in outline.marks:
            if mark == OPEN:
                answer += 1
                weight = part.weights[answer]
                continue
            if mark == CLOSE:
                weight = 0.0
                continue
            new = [mark] if mark >= 0 else self._text_ids(outline.texts[text_index(mark)], known)
            ids += new
            labels += new if weight else [IGNORED] * len(new)
            weights += [weight] * len(new)
        self._check(ids, labels)
        plain = all(weight in (0.0, 1.0) for weight in part.weights)
        return Sample(
            ids, labels, None if plain else weights, part.stop, part.starts, outline.pictures
        )

    def _text_ids(self, text: str, known: dict[str, list[int]]) -> list[int]:
        # The samples of one record share most of their texts.
        ids = known.get(text)
        if ids is None:
            ids = known[text] = self.text_ids(text)
        return ids

    def _check(self, ids: list[int], labels: list[int]) -> None:
        if ids[0] != self.bos_id or ids.count(self.bos_id) != 1 or labels[-1] != self.eos_id:
            raise FinetuneError(
                f"{self.name}: a sample does not begin with its one BOS and end with a trained EOS",
                hint="the tokenizer file does not fit its version: take it from the model again",
            )

    def _control(self, token: SpecialTokens) -> int | None:
        if not self._raw.is_special(token.value):
            return None
        identifier: int = self._raw.get_special_token(token.value)
        return identifier

    def _find_settings(self) -> str | None:
        """Return the text of the settings beside the first user message, which v15 has."""
        turns: list[Message] = [UserMessage(content="a"), AssistantMessage(content="b")]
        texts = self._layout.outline(convert(turns), UNSET).texts
        return texts[0] if len(texts) > len(turns) else None

    def _find_pad(self) -> int:
        if self._is_tekken:
            pad = self._control(SpecialTokens.pad)
            return self.eos_id if pad is None else pad
        ids: tuple[int, int] = (self._raw.pad_id, self._raw.unk_id)
        return ids[1] if ids[0] < 0 else ids[0]  # Mistral's SentencePiece files have no pad

    def _tekken_piece(self, token: int) -> str:
        if self._raw.is_special(token):
            piece: str = self._raw.id_to_piece(token)
            return piece
        raw: bytes = self._raw.id_to_byte_piece(token)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return "".join(f"<0x{byte:02X}>" for byte in raw)


def _bytes(piece: str) -> bytes | None:
    """Return the bytes of a SentencePiece, None for a control token."""
    if piece in ("<unk>", "<s>", "</s>") or (
        piece[0] == "[" and piece[-1] == "]" and len(piece) > 3
    ):
        return None
    if len(piece) == 6 and piece.startswith("<0x"):
        return bytes.fromhex(piece[3:5])
    return piece.replace("\u2581", " ").encode()


def _add(tally: Tally, outline: Outline, part: Part, numbers: Numbers) -> None:
    """Add a sample, laid out, to a tally."""
    answer, trained = -1, False
    for mark in outline.marks:
        if mark == OPEN:
            answer += 1
            trained = part.weights[answer] > 0
        elif mark == CLOSE:
            trained = False
        elif mark >= 0:
            tally.add(1, [], trained=trained)
        else:
            tally.add(0, [numbers[outline.texts[text_index(mark)]]], trained=trained)
