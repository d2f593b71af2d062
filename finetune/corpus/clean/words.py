"""Words of a record, normalised and hashed: what cleaning compares.

Texts that differ in case, accents, white space or punctuation alone are the same here. A word is
a run of letters and digits; in scripts that put no space between words, each character is one.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
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

_PIECE = 2**18  # characters normalised at once: bounds the memory of a long document
# Letters and digits of ASCII stay, in lower case; all else in ASCII parts words.
_ASCII = bytes(
    code | 32 if 65 <= code <= 90 else code if code > 127 or chr(code).isalnum() else 32
    for code in range(256)
)
_MARKS = re.compile("[\u0300-\u036f]+")
_SIGNS = re.compile(
    "[\u00a0-\u00bf\u00d7\u00f7\u2000-\u206f\u20a0-\u20cf\u2190-\u2bff\u3000-\u303f]+"
)
# Thai, Lao, Myanmar, Khmer, kana and Han.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)
PRIME = 0x9E3779B97F4A7C15  # odd, so that multiplying loses nothing


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


def split_words(text: str) -> list[bytes]:
    """Return the words of a text, normalised, as UTF-8.

    Example:
        >>> split_words("L’été, l'ete")
        [b'l', b'ete', b'l', b'ete']
    """
    if not text.isascii():
        text = _MARKS.sub("", unicodedata.normalize("NFKD", text.casefold()))
        text = _SIGNS.sub(" ", text)
        if _UNSPACED.search(text):
            text = _UNSPACED.sub(r" \g<0> ", text)
    # A lone half of a surrogate pair is a fault of the record's, found elsewhere.
    return text.encode(errors="surrogatepass").translate(_ASCII).split()


def hash_words(texts: Iterable[str]) -> Hashes:
    """Return the hash of each word, in order; shape (words,)."""
    import numpy as np

    found = []
    for text in texts:
        for piece in _pieces(text):
            words = split_words(piece)
            found.append(np.fromiter(map(zlib.crc32, words), np.uint64, len(words)))
    return np.concatenate(found) if found else np.zeros(0, np.uint64)


def _pieces(text: str) -> Iterator[str]:
    """Cut a text where words end."""
    start = 0
    while len(text) - start > _PIECE:
        end = text.rfind(" ", start, start + _PIECE)
        end = start + _PIECE if end <= start else end
        yield text[start:end]
        start = end
    yield text[start:] if start else text


def hash_sequences(words: Hashes, length: int) -> Hashes:
    """Return the hash of each sequence of `length` words; shape (words - length + 1,).

    Args:
        words: From `hash_words`.
        length: At least 1; where there are fewer words, there is no sequence.
    """
    count = max(0, len(words) - length + 1)
    total = words[:count].copy()
    for place in range(1, length):
        total *= _scalar(PRIME)
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
