"""Words of a record, normalised and hashed: what cleaning compares.

Texts that differ in case, accents, white space or punctuation alone are the same here. A word is
a run of letters and digits; in scripts that put no space between words, each character is one.
"""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from finetune.checks.profile import messages_of
from finetune.files import to_json
from finetune.records import (
    AssistantMessage,
    ClassifierRecord,
    ImageChunk,
    Message,
    RatingRecord,
    Record,
    SystemMessage,
    TextChunk,
    TextRecord,
    ThinkChunk,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Hashes = NDArray[np.uint64]

# Odd, so that multiplying by them can be undone; one for bytes of words, one for words.
_BASE = 0x9E3779B97F4A7C15
FACTOR = 0xC2B2AE3D27D4EB4F
_BLOCK = 2**18  # bytes hashed at once
# Letters that no accent explains, and signs so frequent that they are worth a short way.
_PLAIN = {"œŒ": "oe", "æÆ": "ae", "øØ": "o", "łŁ": "l", "đĐ": "d", "ħĦ": "h", "ı": "i", "ßẞ": "ss"}
_PLAIN |= {"µ": "u", "¼½¾‘’“”„–—…•€\u202f": " "}
_REPLACED = tuple((letter, plain) for letters, plain in _PLAIN.items() for letter in letters)
_SIMPLE = bytes(code for code in range(256) if chr(code) not in dict(_REPLACED))
# Scripts that put no space between words: Thai, Lao, Myanmar, Khmer, kana, Han.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"
)
_MARKS = re.compile("[\u00c0-\u037f]+")
_SIGNS = re.compile("[\u0080-\u00bf\u2000-\u2fff\u3000-\u303f\U00010000-\U0010ffff]+")
# Capitals become small; of ASCII, all but letters and digits parts words.
_ASCII = bytes(
    code | 32 if 65 <= code <= 90 else code if code > 127 or chr(code).isalnum() else 32
    for code in range(256)
)
# The same as `_MARKS` and `_SIGNS` on UTF-8, for text of Latin letters, signs and pictures: these
# begin with the bytes of `_LATIN`.
_LATIN = bytes([*range(0xC0), *range(0xC2, 0xCE), 0xE2, *range(0xF0, 0xF5)])
_UTF8 = bytes(32 if code in (0xC2, 0xE2) or code >= 0xF0 else _ASCII[code] for code in range(256))
_DROPPED = bytes([*range(0x80, 0xC0), *range(0xC3, 0xCE)])


def texts_of(record: Record) -> Iterator[str]:
    """Yield the texts of a record, but for system prompts and declared tools.

    Those are the same in many records and say nothing about what a record teaches.
    """
    if isinstance(record, TextRecord):
        yield record.text
        return
    if isinstance(record, ClassifierRecord) and isinstance(record.text, str):
        yield record.text
    for message in messages_of(record):
        if not isinstance(message, SystemMessage):
            yield from _texts_of_message(message)


def _texts_of_message(message: Message) -> Iterator[str]:
    content = message.content
    if isinstance(content, str):
        yield content
    elif content:
        for chunk in content:
            if isinstance(chunk, TextChunk):
                yield chunk.text
            elif isinstance(chunk, ThinkChunk):
                yield from (part.text for part in chunk.thinking)
    if isinstance(message, AssistantMessage):
        for call in message.tool_calls or ():
            arguments = call.function.arguments
            yield call.function.name
            yield arguments if isinstance(arguments, str) else to_json(arguments).decode()


def salt_of(record: Record) -> int:
    """Return 64 bits for what sets records of equal texts apart: images, and a rating's verdict."""
    parts = [to_json(record.label)] if isinstance(record, RatingRecord) else []
    for message in messages_of(record):
        content = message.content
        if isinstance(content, list):
            parts += [to_json(chunk) for chunk in content if isinstance(chunk, ImageChunk)]
    if not parts:
        return 0
    return int.from_bytes(hashlib.blake2b(b"\n".join(parts), digest_size=8).digest(), "big")


def fold(text: str) -> bytes:
    """Return a text normalised: small letters without accents, spaces for all that parts words.

    Example:
        >>> fold("L’ÉTÉ, l'ete").split()
        [b'l', b'ete', b'l', b'ete']
    """
    if text.isascii():
        return text.encode().translate(_ASCII)
    try:
        data = text.encode("latin-1")
        if not data.translate(None, _SIMPLE):
            return data.translate(*_latin_1())
    except UnicodeEncodeError:
        pass
    for letter, plain in _REPLACED:
        text = text.replace(letter, plain)
    try:
        return text.encode("latin-1").translate(*_latin_1())
    except UnicodeEncodeError:
        return _fold_any(text)


def _fold_any(text: str) -> bytes:
    text = unicodedata.normalize("NFKD", text.casefold())
    # A lone half of a surrogate pair is a fault of the record's, found elsewhere.
    data = text.encode(errors="surrogatepass")
    if not data.translate(None, _LATIN):
        return data.translate(_UTF8, _DROPPED)
    text = _SIGNS.sub(" ", _MARKS.sub("", text))
    text = _UNSPACED.sub(r" \g<0> ", text)
    return text.encode(errors="surrogatepass").translate(_ASCII)


@functools.cache
def _latin_1() -> tuple[bytes, bytes]:
    """Return what Latin-1 becomes, and what of it is dropped."""
    folded = [_fold_any(chr(code)) for code in range(256)]
    table = bytes(one[0] if len(one) == 1 else 32 for one in folded)
    return table, bytes(code for code, one in enumerate(folded) if not one)


def hash_words(data: bytes) -> tuple[Hashes, NDArray[np.int64]]:
    """Return the hash of each word of a folded text, and where it begins; shapes (words,)."""
    import numpy as np

    hashes, starts = [], []
    for begin, end in _blocks(data):
        codes = np.frombuffer(b" " + data[begin:end] + b" ", np.uint8)
        blank = codes == 32
        edges = np.flatnonzero(blank[1:] != blank[:-1]) + 1
        first, last = edges[0::2], edges[1::2] - 1
        # The sum of code × _BASE ** place over a word, moved to where the text begins.
        powers, inverses = _powers()
        sums = np.cumsum(codes * powers[: len(codes)])
        hashes.append((sums[last] - sums[first - 1]) * inverses[first])
        starts.append(first + (begin - 1))
    return np.concatenate(hashes), np.concatenate(starts)


def _blocks(data: bytes) -> Iterator[tuple[int, int]]:
    """Cut a folded text where words end."""
    begin = 0
    while len(data) - begin > _BLOCK:
        end = data.rfind(b" ", begin, begin + _BLOCK)
        end = begin + _BLOCK if end <= begin else end
        yield begin, end
        begin = end
    yield begin, len(data)


@functools.cache
def _powers() -> tuple[Hashes, Hashes]:
    """Return _BASE ** place and its inverse, modulo 2 ** 64."""
    import numpy as np

    factors = np.ones((2, _BLOCK + 2), np.uint64)
    factors[0, 1:], factors[1, 1:] = _BASE, pow(_BASE, -1, 2**64)
    powers, inverses = np.cumprod(factors, axis=1)
    return powers, inverses


def words_of(record: Record) -> Hashes:
    """Return the hash of each word of a record, in order; shape (words,)."""
    return hash_words(fold_record(record))[0]


def fold_record(record: Record) -> bytes:
    """Return all texts of a record, folded."""
    return b" ".join(map(fold, texts_of(record)))


def hash_sequences(words: Hashes, length: int) -> Hashes:
    """Return the hash of each sequence of `length` words; shape (words - length + 1,).

    Args:
        words: The hash of each.
        length: At least 1; where there are fewer words, there is no sequence.
    """
    count = max(0, len(words) - length + 1)
    total = words[:count].copy()
    for place in range(1, length):
        total *= _scalar(FACTOR)
        total += words[place : place + count]
    return mix(total)


def mix(values: Hashes) -> Hashes:
    """Spread 64-bit values over the whole range, one to one (the end of MurmurHash3)."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        values ^= values >> _scalar(33)
        values *= _scalar(factor)
    values ^= values >> _scalar(33)
    return values


def _scalar(value: int) -> Any:
    import numpy as np

    return np.uint64(value)
