"""Texts to ids: the exact engines under the layout."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from finetune.errors import DataError
from finetune.tokens.embedded import byte_letters

_FAST_AFTER = 2.0  # seconds of counting: as long as the fast engine takes to load and warm up
_PROBES = (
    "Hello <s> [INST] world</s>",
    "  two  spaces\n\n\tand a tab \r\n",
    "Ünïcödé, 日本語, العربية, हिन्दी, 👩‍👩‍👧‍👦 \U0001f1eb\U0001f1f7 e\u0301",
    '{"name": "get_weather", "arguments": {"city": "Orléans", "days": 12345}}',
    "don't I'LL 3.14159 1,000,000 snake_case CamelCase https://example.org/?a=b&c=%20",
    "\x00\x1f\u200b\u2028\ufeff\uffff",
)


def check_text(text: str) -> None:
    """Refuse half of a surrogate pair, as the JSON inside a text can hold it.

    Tokenizers replace it without a word, or crash.

    Raises:
        DataError: The text holds one (`surrogate`).
    """
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise DataError(
                "half of a surrogate pair in a text",
                rule="surrogate",
                hint="look for `\\ud8` to `\\udf` in arguments and results",
            ) from None


class Engine(Protocol):
    """Encodes plain texts; literal control tokens stay text."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text."""

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the number of ids of each text."""


class SentencePiece:
    """SentencePiece, as mistral-common calls it.

    Args:
        tokenizer: mistral-common's SentencePieceTokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._model = tokenizer._model  # noqa: SLF001

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text."""
        ids: list[int] = self._model.encode(text)
        return ids

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the number of ids of each text."""
        encode = self._model.encode
        return [len(encode(text)) for text in texts]


class Tekken:
    """tiktoken through `encode_ordinary`: twice the speed of `encode`, which mistral-common calls.

    A tekken file has no special tokens inside the BPE, so both give the same ids. Long counts go
    on with gigatoken where the extra `fast` is installed and agrees with tiktoken.

    Args:
        tokenizer: mistral-common's Tekkenizer.
        fast_after: Seconds of counting before the fast engine is worth its loading.
    """

    def __init__(self, tokenizer: Any, fast_after: float = _FAST_AFTER) -> None:
        self._model = tokenizer._model  # noqa: SLF001
        self._offset: int = tokenizer.num_special_tokens
        self._left = fast_after
        self._fast: Any = None

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text."""
        offset = self._offset
        return [token + offset for token in self._model.encode_ordinary(text)]

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the number of ids of each text."""
        if self._fast is not None:
            return [len(ids) for ids in self._fast.encode_batch_list(list(texts))]
        start = time.process_time()
        encode = self._model.encode_ordinary
        lengths = [len(encode(text)) for text in texts]
        if self._left > 0:
            self._left -= time.process_time() - start
            if self._left <= 0:
                self._fast = load_fast(self._model)
        return lengths


def load_fast(model: Any) -> Any | None:
    """Return a gigatoken tokenizer that gives the same ids as a tiktoken encoding.

    Args:
        model: A tiktoken Encoding without special tokens.

    Returns:
        The tokenizer; None where gigatoken is not installed, does not know the encoding's regular
        expression, or disagrees with tiktoken on the probes.
    """
    try:
        import gigatoken
    except ImportError:
        return None
    try:
        fast = gigatoken.Tokenizer.from_json(_describe(model))
        ids = fast.encode_batch_list(list(_PROBES))
    except (ValueError, RuntimeError, NotImplementedError):
        return None
    return fast if ids == [model.encode_ordinary(text) for text in _PROBES] else None


def _describe(model: Any) -> bytes:
    """Return the encoding as a Hugging Face tokenizer.json, which gigatoken reads."""
    ranks: dict[bytes, int] = model._mergeable_ranks  # noqa: SLF001
    letters = dict(enumerate(byte_letters()))

    shown = {token: token.decode("latin-1").translate(letters) for token in ranks}
    merges = []
    for token in ranks:
        halves = ((token[:i], token[i:]) for i in range(1, len(token)))
        pairs = [(ranks[a], ranks[b], a, b) for a, b in halves if a in ranks and b in ranks]
        merges += [(shown[a], shown[b]) for _, _, a, b in sorted(pairs)]
    split = {
        "type": "Split",
        "pattern": {"Regex": model._pat_str},  # noqa: SLF001
        "behavior": "Isolated",
        "invert": False,
    }
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    vocabulary = {shown[token]: rank for token, rank in ranks.items()}
    return msgspec.json.encode(
        {
            "version": "1.0",
            "added_tokens": [],
            "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
            "post_processor": None,
            "decoder": {"type": "ByteLevel"},
            "model": {"type": "BPE", "ignore_merges": True, "vocab": vocabulary, "merges": merges},
        }
    )
