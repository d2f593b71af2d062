"""Chunks: documents cut into records, by paragraph or into windows of tokens.

A window is a piece of the text itself, never of ids: pieces joined without what they share are the
text again, and no character is cut. Each piece is counted by the tokenizer before it is taken.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from finetune.records import Record, TextRecord

if TYPE_CHECKING:
    from finetune.recipe.tree import Chunks
    from finetune.tokens import Tokenizer

Span = tuple[int, int]

_EMPTY_LINES = re.compile(r"\r?\n(?:[ \t]*\r?\n)+")
_FENCE = re.compile(r"^[ \t]*(?P<mark>`{3,}|~{3,})(?P<info>[^\r\n]*)", re.MULTILINE)
_FULL = 0.98  # a window that is as full as this is not made longer
_AIM = 0.99  # how full the next guess means to be
_TRIES = 6  # guesses by the length of a token; then the search halves
_NEAR = 10  # a cut moves to white space that is within a tenth of the window


class Cutter:
    """Cuts the documents of a source.

    Args:
        chunks: How.
        model: Its tokenizer counts windows; loaded when the first document comes.
    """

    def __init__(self, chunks: Chunks, model: str) -> None:
        self._chunks = chunks
        self._model = model

    def cut(self, record: Record) -> list[Record]:
        """Return the records that a record is cut into; only documents are cut.

        Raises:
            UsageError: The model's tokenizer is not there.
            DataError: The text cannot be encoded.
        """
        if not isinstance(record, TextRecord) or self._chunks.by == "document":
            return [record]
        if self._chunks.by == "paragraph":
            pieces = [piece for piece in cut_paragraphs(record.text) if piece.strip()]
        else:
            pieces = [record.text[start:end] for start, end in self._windows(record.text)]
        # A document without any text is left for the rules to judge.
        return [TextRecord(text=piece) for piece in pieces] or [record]

    def _windows(self, text: str) -> Iterator[Span]:
        tokenizer = _load(self._model)
        ends = 1 if tokenizer.bos_id < 0 else 2
        return cut_windows(
            text,
            lambda piece: len(tokenizer.text_ids(piece)),
            self._chunks.tokens - ends,
            self._chunks.overlap,
        )


@functools.lru_cache(maxsize=1)
def _load(model: str) -> Tokenizer:
    from finetune.tokens import load_tokenizer

    return load_tokenizer(model)


def cut_paragraphs(text: str) -> Iterator[str]:
    r"""Yield the pieces of a text between empty lines; those of a fenced code block part nothing.

    Example:
        >>> list(cut_paragraphs("Run it:\n\n```\na\n\nb\n```\n\nDone."))
        ['Run it:', '```\na\n\nb\n```', 'Done.']
    """
    blocks = _find_code(text)
    block = next(blocks, None)
    start = 0
    for gap in _EMPTY_LINES.finditer(text):
        while block and block[1] <= gap.start():
            block = next(blocks, None)
        if not block or gap.start() < block[0]:
            yield text[start : gap.start()]
            start = gap.end()
    yield text[start:]


def _find_code(text: str) -> Iterator[Span]:
    """Yield where fenced code blocks begin and end: at the end of the text where nothing closes."""
    opened: re.Match[str] | None = None
    for fence in _FENCE.finditer(text):
        if opened is None:
            # Backticks behind it make it code in a line; tildes below a line underline a title.
            above = text[text.rfind("\n", 0, max(fence.start() - 1, 0)) + 1 : fence.start()]
            if "`" not in fence["info"] and (fence["mark"][0] == "`" or not above.strip()):
                opened = fence
        elif fence["mark"].startswith(opened["mark"]) and not fence["info"].strip():
            yield opened.start(), fence.end()
            opened = None
    if opened:
        yield opened.start(), len(text)


def cut_windows(
    text: str, count: Callable[[str], int], tokens: int, overlap: int
) -> Iterator[Span]:
    """Yield where the windows of a text begin and end.

    Args:
        text: The document.
        count: Text → tokens.
        tokens: The most tokens of a window. A character that alone has more is a window.
        overlap: The most tokens that a window shares with the one before it; less than `tokens`.
    """
    start, done = 0, 0  # done: where the window before ended
    rate = 4.0  # characters a token, as the last window had them
    while done < len(text):
        end = _find_end(text, start, count, tokens, rate)
        if end <= done:  # what it would share leaves no room for more
            start = done
            end = _find_end(text, start, count, tokens, rate)
        yield start, end
        rate = (end - start) / tokens
        start, done = _find_start(text, end, count, overlap, rate), end


def _find_end(text: str, start: int, count: Callable[[str], int], tokens: int, rate: float) -> int:
    """Return where a window ends: behind a word where that costs little."""
    low, high = start, len(text) + 1  # the window that ends at `low` fits, at `high` it does not
    end = start + int(tokens * rate)
    for tries in itertools.count():
        end = min(max(end, low + 1), high - 1)
        size = count(text[start:end])
        if size > tokens:
            high = end
        elif end == len(text):
            return end
        else:
            low = end
        if high - low <= 1 or tokens * _FULL <= size <= tokens:
            break
        guess = start + int((end - start) * tokens * _AIM / max(size, 1))
        end = guess if tries < _TRIES else (low + high) // 2
    end = max(low, start + 1)
    for place in range(end, end - (end - start) // _NEAR, -1):
        if text[place].isspace() and not text[place - 1].isspace():
            return place if count(text[start:place]) <= tokens else end
    return end


def _find_start(text: str, end: int, count: Callable[[str], int], overlap: int, rate: float) -> int:
    """Return where the window behind `end` begins: before a word where that costs little."""
    place = max(end - int(overlap * rate), 0)
    while place < end:
        spaces = range(place, place + (end - place) // _NEAR)
        place = next((near for near in spaces if text[near].isspace()), place)
        size = count(text[place:end])
        if size <= overlap:
            return place
        place += max(1, int((size - overlap) * rate))
    return end
