"""Subjects: the people whose data are found again, and kept out of later datasets.

A value leaves traces: its words in order, its digits, the number that a detector sees in it. They
are compared as they are, or by keyed hash where nobody may read them: the exclusion list holds
hashes only.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from finetune.corpus.privacy.detectors import find, is_found
from finetune.corpus.privacy.key import fingerprint
from finetune.corpus.privacy.names import fold, read_known
from finetune.corpus.privacy.pseudonyms import Pseudonyms
from finetune.errors import UsageError
from finetune.files import read_json, to_json, write_atomic
from finetune.records import Record

EXCLUDED = "excluded-subjects.json"
_WORD = re.compile(r"\w+")
_RUN = re.compile(r"\d(?:[ .\-/\u00a0\u202f()]{0,3}\d){5,}")
_SHARED = ("phone", "ip", "birth_date", "address")  # kinds of few pseudonyms
_MIN_LETTERS = 3  # a value with less is in every text
_GROUP = re.compile(r"\d+")
_WORDS_ONLY = ("email", "address", "birth_date", "secret", "ip")  # digits do not tell them
_DIGITS = 9  # of a number's end: the country code and the 0 before it may be missing


def trace(value: str) -> set[str]:
    """Return the traces of a value.

    Raises:
        UsageError: It is too short to stand for one person.

    Example:
        >>> sorted(trace("Jean Dupont"))
        ['2 dupont jean', '2 jean dupont']
        >>> sorted(trace("+33 6 12 34 56 78"))
        ['#612345678', '6 33 6 12 34 56 78']
    """
    words = _WORD.findall(fold(value))
    if sum(map(len, words)) < _MIN_LETTERS:
        raise UsageError("a value of the subject has less than three letters or digits")
    traces = {f"{len(words)} {' '.join(words)}"}
    if len(words) <= 4 and all(map(str.isalpha, words)):
        traces.add(f"{len(words)} {' '.join([words[-1], *words[:-1]])}")
    digits = "".join(filter(str.isdigit, value))
    number = not any(map(str.isalpha, value)) or any(
        span.end - span.start == len(value.strip()) and span.kind not in _WORDS_ONLY
        for span in find(value)
    )
    return traces | ({f"#{digits[-_DIGITS:]}"} if number and len(digits) >= 6 else set())


def traces_in(text: str, sizes: Sequence[int], is_first: Callable[[str], bool]) -> Iterator[str]:
    """Yield the traces of what a text holds.

    Args:
        text: Any text.
        sizes: How many words those have that are looked for.
        is_first: Tells whether one of them begins with a word.
    """
    words = _WORD.findall(fold(text))
    for start, word in enumerate(words):
        if is_first(word):
            for size in sizes:
                yield f"{size} {' '.join(words[start : start + size])}"
    for run in _RUN.finditer(text):
        digits = ""
        for group in _GROUP.findall(run[0]):  # another number may follow at once
            digits += group
            if len(digits) >= 6:
                yield f"#{digits[-_DIGITS:]}"


def texts_of(value: Any) -> Iterator[str]:
    """Yield every text in a JSON value, keys too; of texts that are JSON, what they hold."""
    if isinstance(value, str):
        if value.startswith("data:"):
            return
        if value[:1] in ("{", "[") and (inner := _decode(value)) is not None:
            yield from texts_of(inner)
        else:
            yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from texts_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts_of(inner)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield str(value)


def _decode(text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None


class Traces:
    """What is looked for in texts.

    Args:
        wanted: Traces, or their hashes.
        sizes: How many words the traces of words have.
        first: The words that those begin with, or their hashes.
        form: How a trace or a word is written in `wanted` and `first`.
    """

    def __init__(
        self,
        wanted: Iterable[str],
        sizes: Iterable[int],
        first: Iterable[str],
        form: Callable[[str], str] | None = None,
    ) -> None:
        self.wanted = frozenset(wanted)
        self._sizes = sorted(sizes)
        self._form = form or str
        heads = frozenset(first)
        # Few words make up a text: their hashes are remembered.
        self._is_first = (
            functools.lru_cache(maxsize=2**15)(lambda word: form(word) in heads)
            if form
            else heads.__contains__
        )

    @classmethod
    def of(cls, values: Iterable[str]) -> Traces:
        """Return the traces of plain values."""
        wanted = {one for value in values for one in trace(value)}
        return cls(wanted, sizes_of(wanted), first_of(wanted))

    def found_in(self, value: Any) -> set[str]:
        """Return which of them the texts of a JSON value hold."""
        return {
            written
            for text in texts_of(value)
            for one in traces_in(text, self._sizes, self._is_first)
            if (written := self._form(one)) in self.wanted
        }


def sizes_of(traces: Iterable[str]) -> set[int]:
    """Return how many words the traces of words have."""
    return {int(one.split(" ", 1)[0]) for one in traces if one[0].isdigit()}


def first_of(traces: Iterable[str]) -> set[str]:
    """Return the words that the traces of words begin with."""
    return {one.split(" ", 2)[1] for one in traces if one[0].isdigit()}


class Exclusions:
    """The subjects that no dataset may hold any more: a list of keyed hashes.

    It can be pickled before it is used. Without subjects it excludes nothing and has no
    fingerprint.

    Args:
        key: The key of the hashes.
        subjects: What the list holds.
    """

    def __init__(self, key: bytes, subjects: list[_Subject]) -> None:
        self._key = key
        self.subjects = subjects

    @functools.cached_property
    def _traces(self) -> Traces:
        return Traces(
            {mark for one in self.subjects for mark in one.marks},
            {size for one in self.subjects for size in one.sizes},
            {word for one in self.subjects for word in one.first},
            self._hash,
        )

    def __bool__(self) -> bool:
        return bool(self.subjects)

    @property
    def fingerprint(self) -> str | None:
        """What tells one list from another; None where it is empty."""
        marks = "".join(sorted(self._traces.wanted))
        return hashlib.sha256(marks.encode()).hexdigest()[:16] if marks else None

    def holds(self, record: Record, known_values: Iterable[Any] = ()) -> bool:
        """Tell whether a record, or what its row's known columns hold, is about one of them."""
        value = [msgspec.to_builtins(record), *known_values]
        return bool(self.subjects) and bool(self._traces.found_in(value))

    def add(self, values: Iterable[str], folder: Path) -> Exclusions:
        """Return the list with one more subject, written into the user's data directory.

        Args:
            values: What the subject is known by.
            folder: The directory.
        """
        traces = {one for value in values for one in trace(value)}
        marks = sorted(self._hash(one) for one in traces)
        if any(set(marks) <= set(subject.marks) for subject in self.subjects):
            return self
        since = dt.datetime.now(dt.UTC).strftime("%Y-%m-%d")
        first = sorted(map(self._hash, first_of(traces)))
        subjects = [*self.subjects, _Subject(since, sorted(sizes_of(traces)), first, marks)]
        document = {
            "key": fingerprint(self._key),
            "subjects": [subject._asdict() for subject in subjects],
        }
        write_atomic(folder / EXCLUDED, to_json(document, indent=True))
        (folder / EXCLUDED).chmod(0o600)
        return Exclusions(self._key, subjects)

    def _hash(self, text: str) -> str:
        return hashlib.blake2b(text.encode(), key=self._key, digest_size=16).hexdigest()


class _Subject(NamedTuple):
    since: str
    sizes: list[int]
    first: list[str]
    marks: list[str]


def load_exclusions(key: bytes, folder: Path) -> Exclusions:
    """Return the exclusion list of a user's data directory; an empty one where there is none.

    Raises:
        UsageError: It was made with another key, or is damaged.
    """
    path = folder / EXCLUDED
    if not path.exists():
        return Exclusions(key, [])
    document = read_json(path)
    try:
        subjects = [_Subject(**subject) for subject in document["subjects"]]
        same = document["key"] == fingerprint(key)
    except (KeyError, TypeError):
        raise UsageError(f"{path}: not an exclusion list") from None
    if not same:
        raise UsageError(
            f"{path}: was made with another key",
            hint="restore `privacy.key` beside it; nobody on the list could be kept out",
        )
    return Exclusions(key, subjects)


def stand_ins(value: str, key: bytes) -> list[tuple[str, bool]]:
    """Return the pseudonyms of a value under a key, and whether each stands for one value only.

    The ranges that are kept for fiction are small: two phone numbers can share a pseudonym.
    """
    pseudonyms = Pseudonyms(key, is_found)
    end = len(value) + 4
    whole = [one for one in find(f"tél {value}") if one.start == 4 and one.end == end]
    made = [
        (pseudonyms.replace(one.kind, value), one.kind not in _SHARED)
        for one in whole
        if one.kind != "secret"
    ]
    for known in read_known([value])[0]:
        if known.kind == "name":
            words = _WORD.findall(fold(value))
            parts = [
                pseudonyms.replace_known(known, w, w) if w in known.words else w for w in words
            ]
            made.append((" ".join(parts), len(known.words) > 1))
        elif not whole:
            made.append((pseudonyms.replace_known(known, known.words[0], value), True))
    return made
