"""Filters: what is told from one record alone, its length and its language."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING

from finetune.checks.languages import CHARACTERS, find_language, known_languages
from finetune.corpus.clean.words import texts_of
from finetune.errors import UsageError
from finetune.records import Record
from finetune.text import did_you_mean, safe

if TYPE_CHECKING:
    from finetune.recipe.tree import Clean

UNKNOWN = "unknown"
_NO_LANGUAGE = "zxx"  # numbers, code, signs (ISO 639-2)
_FEWEST = 20  # characters; no language is told from less
_HEAD = 300  # characters of one text, so that a long first message is not all that is looked at


class Filters:
    """The filters of `data.clean` that look at one record.

    The same record always gets the same answer, in any process. A text whose language cannot be
    told (short, mixed, code) stays and is counted as `unknown`.

    Args:
        clean: The recipe's section.

    Attributes:
        active: Whether anything is filtered; where not, `reason` need not be called.
        languages: Language → records that were looked at; empty where languages are not filtered.

    Raises:
        UsageError: A language is not known.
        MissingExtra: Languages are filtered and py3langid is not installed.
    """

    def __init__(self, clean: Clean) -> None:
        self._least = clean.min_characters or 0
        self._most = clean.max_characters
        self._wanted = frozenset(clean.languages)
        self.active = bool(self._least or self._most or self._wanted)
        self.languages: Counter[str] = Counter()
        for language in sorted(self._wanted - known_languages()) if self._wanted else ():
            raise UsageError(
                f"data.clean.languages: {safe(language, 40)}: no language that is known here",
                hint=did_you_mean(language, known_languages())
                or "languages are written as in ISO 639-1, such as `fr`",
            )

    def reason(self, record: Record) -> str | None:
        """Return the rule by which a record is removed, or None where it stays."""
        texts = list(texts_of(record))
        characters = sum(map(len, texts))
        if characters < self._least:
            return "min-characters"
        if self._most is not None and characters > self._most:
            return "max-characters"
        if self._wanted:
            language = _language(texts)
            self.languages[language] += 1
            if language not in self._wanted and language != UNKNOWN:
                return "languages"
        return None


def _language(texts: list[str]) -> str:
    heads = "\n".join(itertools.islice((text[:_HEAD] for text in texts if text), 8))
    if len(heads) < _FEWEST:
        return UNKNOWN
    language = find_language(heads[:CHARACTERS])
    return UNKNOWN if language in (None, _NO_LANGUAGE) else language
