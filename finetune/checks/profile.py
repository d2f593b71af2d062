"""Profile: what a set of records looks like, in figures and never in content."""

from __future__ import annotations

import bisect
import math
import random
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from finetune.checks.languages import CHARACTERS, find_language
from finetune.errors import MissingExtra
from finetune.records import (
    AssistantMessage,
    ClassifierRecord,
    ImageChunk,
    Message,
    PreferenceRecord,
    RatingRecord,
    Record,
    TextChunk,
    TextRecord,
    ThinkChunk,
)

PERCENTILES = (("median", 0.5), ("p95", 0.95), ("p99", 0.99), ("longest", 1.0))
MAX_NAMES = 50  # tools, and labels of a target, that are named
_MOST_TURNS = 10  # conversations with more are counted together
_SAMPLE = 2000  # records whose language is looked at, drawn from all alike
_ROLES = {"SystemMessage": "system", "UserMessage": "user", "ToolMessage": "tool"}


def percentile(ascending: Sequence[int], share: float) -> int:
    """Return the value that `share` of the values, in ascending order, do not exceed."""
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)]


def bins(ascending: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return `(from, up to, how many)` of bins that grow by √2."""
    low = int(2 * math.log2(max(1, ascending[0])))
    high = int(2 * math.log2(max(1, ascending[-1])))
    # A set, because the first powers of √2 round up to the same number.
    edges = sorted({math.ceil(2 ** (number / 2)) for number in range(low, high + 2)})
    places = [bisect.bisect_left(ascending, edge) for edge in edges]
    return [(edges[i], edges[i + 1] - 1, places[i + 1] - places[i]) for i in range(len(edges) - 1)]


class Profile:
    """Counts what records hold: roles, turns, tools, labels, lengths, languages.

    Memory: 8 bytes a record, and the beginnings of at most 2,000 texts.
    """

    def __init__(self) -> None:
        self._records = 0
        self._roles: Counter[str] = Counter()
        self._turns: Counter[int] = Counter()
        self._labels: dict[str, Counter[str]] = {}
        self._called: Counter[str] = Counter()
        self._with: Counter[str] = Counter()
        self._characters = array("Q")
        self._texts: list[str] = []
        self._random = random.Random(0)  # noqa: S311 (a sample, the same on each repeat)

    def add(self, record: Record) -> None:
        """Take note of a record."""
        self._records += 1
        texts: list[str] = []
        if isinstance(record, TextRecord):
            texts.append(record.text)
        else:
            if isinstance(record, ClassifierRecord):
                self._add_labels(record)
                if isinstance(record.text, str):
                    texts.append(record.text)
            elif record.tools:
                self._with["tools"] += 1
            answers = sum(self._add_message(message, texts) for message in messages_of(record))
            self._turns[min(answers, _MOST_TURNS)] += 1
        self._characters.append(sum(map(len, texts)))
        place = self._random.randrange(self._records)
        if self._records <= _SAMPLE:
            self._texts.append(_head(texts))
        elif place < _SAMPLE:
            self._texts[place] = _head(texts)

    def _add_message(self, message: Message, texts: list[str]) -> bool:
        """Count a message, put its texts with the others, and tell whether it is an answer."""
        content = message.content
        if isinstance(content, str):
            texts.append(content)
        elif content:
            for chunk in content:
                if isinstance(chunk, TextChunk):
                    texts.append(chunk.text)
                elif isinstance(chunk, ImageChunk):
                    self._with["images"] += 1
                elif isinstance(chunk, ThinkChunk):
                    self._with["reasoning"] += 1
                    texts.extend(part.text for part in chunk.thinking)
        if not isinstance(message, AssistantMessage):
            self._roles[_ROLES[type(message).__name__]] += 1
            return False
        self._roles["assistant"] += 1
        for call in message.tool_calls or ():
            self._called[call.function.name] += 1
        return True

    def _add_labels(self, record: ClassifierRecord) -> None:
        for target, value in record.labels.items():
            values = [value] if isinstance(value, str) else value
            self._labels.setdefault(target, Counter()).update(values)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain values.

        `turns` counts records by their answers (10 stands for 10 and more), `calls` the calls by
        function; `images` and `reasoning` are chunks, `tools` records that declare some.
        `languages` is a count of `sampled` records, absent without the extra `clean`.
        """
        lengths = sorted(self._characters)
        known: dict[str, Any] = {
            "records": self._records,
            "characters": {name: percentile(lengths, share) for name, share in PERCENTILES}
            if lengths
            else {},
            "roles": dict(sorted(self._roles.items())),
            "turns": {str(turns): count for turns, count in sorted(self._turns.items())},
            "calls": dict(self._called.most_common(MAX_NAMES)),
            "labels": {
                target: dict(counts.most_common(MAX_NAMES))
                for target, counts in sorted(self._labels.items())
            },
            **{name: self._with[name] for name in ("tools", "images", "reasoning")},
        }
        languages = count_languages(self._texts)
        if languages is not None:
            known |= {"languages": languages, "sampled": len(self._texts)}
        return known


def _head(texts: Iterable[str]) -> str:
    return "\n".join(texts)[:CHARACTERS]


def messages_of(record: Record) -> list[Message]:
    """Return the messages of a record, those of a pair's answers too."""
    if isinstance(record, TextRecord):
        return []
    if isinstance(record, PreferenceRecord):
        return [*record.prompt, *record.chosen, *record.rejected]
    if isinstance(record, RatingRecord):
        return [*record.prompt, *record.completion]
    return record.messages or []


def count_languages(texts: Iterable[str]) -> dict[str, int] | None:
    """Return how many texts are in which language (ISO 639-1), the most frequent first.

    A text that is short or mixed is `unknown`. None where py3langid (extra `clean`) is missing.
    """
    counts: Counter[str] = Counter()
    try:
        counts.update(find_language(text) or "unknown" for text in texts)
    except MissingExtra:
        return None
    return dict(counts.most_common())
