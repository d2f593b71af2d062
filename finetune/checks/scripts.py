"""Scripts: which alphabet a text is mostly written in. A language needs more (extra `clean`)."""

from __future__ import annotations

import re

_SAMPLE = 40  # characters looked at first
_OTHER = 1.5  # bytes of a character, from which most are not in Latin letters
_SURE = 20  # letters that a text must have to be told
# The blocks of the scripts in use; Han, kana and Hangul stand for the languages that mix them.
_SCRIPTS = {
    "Latin": "A-Za-z\u00c0-\u024f\u1e00-\u1eff",
    "Greek": "\u0370-\u03ff\u1f00-\u1fff",
    "Cyrillic": "\u0400-\u052f",
    "Hebrew": "\u0590-\u05ff",
    "Arabic": "\u0600-\u06ff\u0750-\u077f",
    "Indic": "\u0900-\u0dff",
    "Thai": "\u0e00-\u0e7f",
    "East Asian": "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af",
}
_LETTERS = {name: re.compile(f"[{blocks}]+") for name, blocks in _SCRIPTS.items()}


def seem_unlike(one: str, other: str) -> bool:
    """Return whether one of two texts seems to be in Latin letters alone.

    Told from the bytes that their first characters take: quick, and right or to be looked at.
    """
    one, other = one[:_SAMPLE], other[:_SAMPLE]
    if one.isascii() and other.isascii():
        return False
    return (len(one.encode()) > _OTHER * len(one)) != (len(other.encode()) > _OTHER * len(other))


def find_script(text: str) -> str | None:
    """Return the script of most of a text's letters, None where they are few or mixed.

    Example:
        >>> find_script("Добрый день, где мой заказ?")
        'Cyrillic'
    """
    # A letter of East Asia is as much as several of an alphabet.
    counts = {
        name: sum(map(len, pattern.findall(text))) * (3 if name == "East Asian" else 1)
        for name, pattern in _LETTERS.items()
    }
    script = max(counts, key=lambda name: counts[name])
    total = sum(counts.values())
    return script if total >= _SURE and counts[script] >= 0.8 * total else None
