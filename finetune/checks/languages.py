"""The language of a text, through py3langid (extra `clean`): no network, no download."""

from __future__ import annotations

import functools
from typing import Any

from finetune.errors import MissingExtra

CHARACTERS = 1000  # of a text that are looked at
CERTAIN = 0.8  # a language less probable than this is not named


@functools.cache
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise MissingExtra("clean", "py3langid") from None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def find_language(text: str) -> str | None:
    """Return the language of a text (ISO 639-1), None where it is too short or mixed to tell.

    Raises:
        MissingExtra: py3langid is not installed.
    """
    language, probability = _identifier().classify(text[:CHARACTERS])
    return str(language) if probability >= CERTAIN else None


def known_languages() -> frozenset[str]:
    """Return the languages that can be told (ISO 639-1).

    Raises:
        MissingExtra: py3langid is not installed.
    """
    return frozenset(_identifier().labels)
