"""Privacy: personal data in records are counted, masked, or replaced by invented ones.

detectors    what has a shape: addresses, numbers, keys
names        what is known: the values of a row's columns, wherever its texts repeat them
pseudonyms   what stands for them afterwards

Labels, the names of functions and the ids of calls are left alone, and images are not looked into.
Names of people that no column gives are not searched: what is left are personal data still.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import msgspec

from finetune.corpus.privacy.detectors import Span, find, is_found
from finetune.corpus.privacy.key import find_folder, fingerprint, provide_key
from finetune.corpus.privacy.names import Known, find_known, read_known
from finetune.corpus.privacy.numbers import checker
from finetune.corpus.privacy.pseudonyms import Pseudonyms
from finetune.corpus.privacy.subjects import Exclusions, Traces, load_exclusions
from finetune.errors import MissingExtra
from finetune.records import (
    AssistantMessage,
    ChatRecord,
    ClassifierRecord,
    ImageChunk,
    Message,
    PreferenceRecord,
    RatingRecord,
    Record,
    TextChunk,
    TextRecord,
    ThinkChunk,
    Tool,
)

__all__ = [
    "Exclusions",
    "Mode",
    "Privacy",
    "Traces",
    "describe",
    "find",
    "find_folder",
    "fingerprint",
    "load_exclusions",
    "mask_name",
    "provide_key",
]

Mode = Literal["report", "mask", "pseudonymize"]
Counts = Counter[tuple[str, str]]

OTHER_NAMES = "not searched"
_ROUNDS = 6  # replacing can make a new number out of what stands beside it
_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*')
_JOINED = re.compile(r"[ \u00a0\u202f.,-]{0,2}")


class Privacy:
    """What is done about personal data. It holds no open files, and can be pickled.

    Applied twice it changes nothing more.

    Args:
        mode: `report` only counts, `mask` writes `[EMAIL]` and the like, `pseudonymize` writes
            invented values, the same everywhere under one key.
        key: 32 secret bytes.

    Raises:
        MissingExtra: python-stdnum is not installed.

    Example:
        >>> record = TextRecord(text="Mail jean@acme.fr")
        >>> Privacy("mask").apply(record)
        Counter({('email', 'text'): 1})
        >>> record.text
        'Mail [EMAIL]'
    """

    def __init__(self, mode: Mode, key: bytes = b"") -> None:
        checker("luhn")
        self.mode = mode
        self._pseudonyms = Pseudonyms(key, is_found)

    def apply(self, record: Record, known_values: Iterable[Any] = ()) -> Counts:
        """Treat every text of a record, in place.

        Args:
            record: Any record.
            known_values: What the known columns of its row or conversation hold.

        Returns:
            (kind, field) → how many were found; a field is such as `messages.user`. Known values
            that are too short to be looked for count as (`too-short`, `known`).
        """
        known, short = read_known(known_values) if known_values else ([], 0)
        counts: Counts = Counter()
        if short:
            counts["too-short", "known"] += short
        _Walk(lambda text, field: self._treat(text, field, known, counts)).record(record)
        return counts

    def _treat(self, text: str, field: str, known: list[Known], counts: Counts) -> str:
        """Return what stands for a text: itself where nothing was found."""
        if text[:1] in ("{", "[") and len(text) > 1:
            treated = self._treat_json(text, field, known, counts)
            if treated is not None:
                return treated
        first = self._round(text, known, counts, field)
        if self.mode == "report" or first is text:
            return text
        treated = first
        for _ in range(_ROUNDS):
            again = self._round(treated, known, None, field)
            if again is treated:
                return treated
            treated = again
        masked = Privacy("mask")
        return masked._round(treated, known, None, field)

    def _round(self, text: str, known: list[Known], counts: Counts | None, field: str) -> str:
        """Replace what is found in one look: the detectors', then the known values around it."""
        spans = find(text)
        pieces: list[str] = []
        end = 0
        for span in [*spans, Span(len(text), len(text), "")]:
            pieces.append(self._known(text[end : span.start], known, counts, field))
            if span.kind:
                if counts is not None:
                    counts[span.kind, field] += 1
                pieces.append(self._replace(span.kind, text[span.start : span.end]))
            end = span.end
        treated = "".join(pieces)
        return text if treated == text else treated

    def _replace(self, kind: str, text: str) -> str:
        # A secret has no use in training: it is masked in either mode.
        if self.mode == "pseudonymize" and kind != "secret":
            return self._pseudonyms.replace(kind, text)
        return f"[{kind.upper()}]"

    def _known(self, text: str, known: list[Known], counts: Counts | None, field: str) -> str:
        if not known or not text:
            return text
        pieces: list[str] = []
        end = 0
        name: set[tuple[str, str]] = set()  # words of the name that is being read
        for match in find_known(text, known):
            between, one = text[end : match.start], match.known
            word = (one.identity, match.word)
            # The words of one name count, and are masked, once.
            joined = _JOINED.fullmatch(between) is not None and one.kind == "name"
            joined = joined and word not in name and any(one.identity == i for i, _ in name)
            name = name | {word} if joined else {word}
            if counts is not None and not joined:
                counts["name" if one.kind == "name" else "known", field] += 1
            if self.mode == "pseudonymize":
                written = text[match.start : match.end]
                pieces += [between, self._pseudonyms.replace_known(one, match.word, written)]
            elif not joined:
                pieces += [between, "[NAME]" if one.kind == "name" else "[KNOWN]"]
            end = match.end
        return "".join([*pieces, text[end:]])

    def _treat_json(self, text: str, field: str, known: list[Known], counts: Counts) -> str | None:
        """Treat the strings and numbers of a JSON text, keys too, so that it stays JSON."""
        try:
            msgspec.json.decode(text, type=msgspec.Raw)
        except (msgspec.DecodeError, UnicodeError):
            return None

        def treat(match: re.Match[str]) -> str:
            token = match[0]
            if token[0] != '"':
                new = self._treat(token, field, known, counts) if len(token) > 6 else token
                return new if new == token or _is_number(new) else json.dumps(new)
            value = json.loads(token, strict=False)
            new = self._treat(value, field, known, counts)
            return token if new == value else json.dumps(new, ensure_ascii=token.isascii())

        return _JSON_TOKEN.sub(treat, text)


def describe(mode: Mode, counts: Mapping[tuple[str, str], int], key: bytes = b"") -> dict[str, Any]:
    """Return what a manifest says about personal data: figures, never values.

    Args:
        mode: What was done.
        counts: (kind, field) → how many were found.
        key: The key of the pseudonyms.
    """
    by_kind: dict[str, dict[str, int]] = {}
    for (kind, field), count in sorted(counts.items()):
        by_kind.setdefault(kind, {})[field] = count
    section = {"mode": mode, "counts": by_kind, "other_names": OTHER_NAMES}
    return section | ({"key": fingerprint(key)} if mode == "pseudonymize" else {})


def mask_name(name: str) -> str:
    """Return the name of a column or key as it may be shown: masked where it is somebody's data.

    Example:
        >>> mask_name("jean@acme.fr")
        '[EMAIL]'
    """
    try:
        record = TextRecord(text=name)
        Privacy("mask").apply(record)
    except MissingExtra:  # nobody can tell: only words are shown
        return name if not any(letter.isdigit() or letter == "@" for letter in name) else "[KEY]"
    return record.text


def _is_number(text: str) -> bool:
    return text.isdecimal() and (text[0] != "0" or len(text) == 1)


class _Walk:
    """Goes through every text of a record and puts what `treat` returns in its place."""

    def __init__(self, treat: Callable[[str, str], str]) -> None:
        self._treat = treat

    def record(self, record: Record) -> None:
        match record:
            case TextRecord():
                record.text = self._treat(record.text, "text")
            case ChatRecord():
                self._messages(record.messages, "messages")
            case ClassifierRecord():
                if isinstance(record.text, str):
                    record.text = self._treat(record.text, "text")
                if isinstance(record.messages, list):
                    self._messages(record.messages, "messages")
            case PreferenceRecord():
                self._messages(record.prompt, "prompt")
                self._messages(record.chosen, "chosen")
                self._messages(record.rejected, "rejected")
            case RatingRecord():
                self._messages(record.prompt, "prompt")
                self._messages(record.completion, "completion")
        tools = getattr(record, "tools", None)
        if isinstance(tools, list):
            self._tools(tools)

    def _messages(self, messages: list[Message], field: str) -> None:
        for message in messages:
            place = f"{field}.{type(message).__name__.removesuffix('Message').lower()}"
            if isinstance(message.content, str):
                message.content = self._treat(message.content, place)
            elif isinstance(message.content, list):
                self._chunks(message.content, place)
            if isinstance(message, AssistantMessage) and isinstance(message.tool_calls, list):
                for call in message.tool_calls:
                    call.function.arguments = self._value(
                        call.function.arguments, f"{field}.tool_calls"
                    )

    def _chunks(self, chunks: Iterable[Any], field: str) -> None:
        for chunk in chunks:
            if isinstance(chunk, TextChunk):
                chunk.text = self._treat(chunk.text, field)
            elif isinstance(chunk, ThinkChunk):
                self._chunks(chunk.thinking, field)
            elif isinstance(chunk, ImageChunk):
                url = chunk.image_url
                if isinstance(url, dict):
                    chunk.image_url = {key: self._url(text, field) for key, text in url.items()}
                else:
                    chunk.image_url = self._url(url, field)

    def _url(self, url: str, field: str) -> str:
        return url if url.startswith("data:") else self._treat(url, field)

    def _tools(self, tools: list[Tool]) -> None:
        for tool in tools:
            tool.function.description = self._treat(tool.function.description, "tools")
            tool.function.parameters = self._value(tool.function.parameters, "tools")

    def _value(self, value: Any, field: str) -> Any:
        """Return a JSON value with every string and key in it treated, and long numbers."""
        if isinstance(value, str):
            return self._treat(value, field)
        if isinstance(value, dict):
            return {self._treat(k, field): self._value(v, field) for k, v in value.items()}
        if isinstance(value, list):
            return [self._value(one, field) for one in value]
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**5:
            new = self._treat(str(value), field)
            return value if new == str(value) else int(new) if _is_number(new) else new
        return value
