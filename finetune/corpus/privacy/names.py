"""Known values: what the columns of a row say about a person, found wherever a text repeats it.

Case and accents are ignored. A name is also found in parts: a first or last name alone, turned
round, with an initial beside it, in the genitive.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

# Letters that no decomposition takes apart.
_LETTERS = str.maketrans(
    {"ß": "ss", "ø": "o", "ł": "l", "æ": "ae", "œ": "oe", "đ": "d", "ð": "d", "þ": "th", "ı": "i",
     "’": "'", "ʼ": "'", "‐": "-", "‑": "-", "\u00a0": " ", "\u202f": " "}
)  # fmt: skip
_TO_FOLD = re.compile(f"[{''.join(map(chr, _LETTERS))}]")
_COMBINING = re.compile("[\u0300-\u036f]+")
_NAME = re.compile(r"[^\W\d_](?:[^\W\d_]|['’.\-‑])*(?:,? [^\W\d_](?:[^\W\d_]|['’.\-‑])*){0,6}")
_WORD = re.compile(r"[^\W\d_]+")
_RUN = re.compile(r"\d(?:[ .\-/\u00a0\u202f()]{0,3}\d)+")
# Parts of names that say nothing about anybody.
_PARTICLE_LIST = (
    "de du des la le les der den dem die das van von vom zu zum zur da do dos di del della "
    "della el al bin ben ibn und et and mr mrs ms dr prof herr frau mme mlle monsieur madame m "
    "ir ing st saint sir jr sr"
)
# Names that are ordinary words too: replaced only where they begin with a capital.
_ORDINARY_LIST = (
    "petit grand blanc noir brun rose roman marin meunier boucher berger klein gross lang kurz "
    "jung alt neu schwarz weiss roth braun may will mark bill rich long short young king hope "
    "grace faith joy art case best page price rey flores reyes cruz leon rossi bianco bruno "
    "costa pont bois moulin roy leroy roi baron bon bonnet blanche claire aimee désirée franc "
    "sage marchand vidal winter sommer sonntag freitag montag engel koch bauer richter wolf "
    "stein berg wagen vogel de jong groot bos prins mai avril juin"
)
_PARTICLES = frozenset(_PARTICLE_LIST.split())
_ORDINARY = frozenset(_ORDINARY_LIST.split())
_MIN_VALUE = 4  # characters of a value that is no name


class Known(NamedTuple):
    """A value of a known column.

    Attributes:
        kind: `name`, or `known` for anything else.
        identity: The same for every way to write it.
        words: For a name, its folded words; else the whole folded value.
    """

    kind: str
    identity: str
    words: tuple[str, ...]


class Match(NamedTuple):
    """A known value in a text.

    Attributes:
        start: Where it begins.
        end: Where it ends.
        known: The value.
        word: Which of its words; an initial of it where the match has one letter.
    """

    start: int
    end: int
    known: Known
    word: str


def fold(text: str) -> str:
    """Return `text` in lower case and without accents; its length may differ."""
    if text.isascii():
        return text.lower()
    lower = text.lower()
    if _TO_FOLD.search(lower):
        lower = lower.translate(_LETTERS)
    return _COMBINING.sub("", unicodedata.normalize("NFD", lower))


def fold_places(text: str) -> tuple[str, list[int] | None]:
    """Return the folded text, and where each of its characters stands in `text`.

    The places are None where they are the same.
    """
    if text.isascii():
        return text.lower(), None
    whole = fold(text)
    if len(whole) == len(text) and unicodedata.is_normalized("NFC", text):
        return whole, None
    parts, places = [], []
    for place, letter in enumerate(text):
        folded = fold(letter)
        parts.append(folded)
        places += [place] * len(folded)
    return "".join(parts), [*places, len(text)]


def read_known(values: Iterable[Any]) -> tuple[list[Known], int]:
    """Return the known values worth looking for, and how many are too short to be."""
    known: dict[tuple[str, str], Known] = {}
    short = 0
    for value in _leaves(values):
        text = unicodedata.normalize("NFC", " ".join(value.split()))
        if not text:
            continue
        one = _read_name(text) if _NAME.fullmatch(text) else _read_value(text)
        if one is None:
            short += 1
        else:
            known.setdefault((one.kind, one.identity), one)
    return list(known.values()), short


def _leaves(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            yield from _leaves(value.values())
        elif isinstance(value, list | tuple):
            yield from _leaves(value)
        elif value is not None and not isinstance(value, bool):
            yield str(value)


def _read_name(text: str) -> Known | None:
    words = list(dict.fromkeys(_WORD.findall(fold(text))))
    kept = tuple(w for w in words if w not in _PARTICLES and len(w) > 1)
    return Known("name", " ".join(sorted(words)), kept) if kept else None


def _read_value(text: str) -> Known | None:
    digits = re.sub(r"\D", "", text)
    folded = fold(text)
    if len(folded) < _MIN_VALUE:
        return None
    if not _WORD.search(text):
        return Known("number", digits, (digits,)) if len(digits) >= _MIN_VALUE else None
    parts = [part.strip() for part in re.split(r"[,;]", folded)]
    long = [part for part in parts if len(part) >= 8 and " " in part]
    return Known("known", folded, tuple(dict.fromkeys([folded, *long])))


def find_known(text: str, known: list[Known]) -> list[Match]:
    """Return where a text repeats known values, in order, without overlaps."""
    folded, places = fold_places(text)
    matches: list[Match] = []
    taken: set[int] = set()
    for one in known:
        found = _find_number(folded, one) if one.kind == "number" else _find_words(folded, one)
        for start, end, word in found:
            here = (start, end) if places is None else _widen(places, start, end)
            letters = text[here[0] : here[1]]
            if taken.isdisjoint(range(*here)) and _is_meant(letters, one, word):
                taken.update(range(*here))
                matches.append(Match(*here, one, word))
    for match in list(matches):
        matches += _initials(text, match, taken)
    return sorted(matches)


def _widen(places: list[int], start: int, end: int) -> tuple[int, int]:
    # Up to the next character, so that combining accents go too.
    last = places[end - 1]
    return places[start], next(p for p in places[end:] if p > last)


def _find_words(folded: str, one: Known) -> Iterator[tuple[int, int, str]]:
    for word in sorted(one.words, key=len, reverse=True):
        for written in _spellings(word):
            start = folded.find(written)
            while start >= 0:
                end = start + len(written)
                if not folded[start - 1 : start].isalpha() and _ends(folded, end, word):
                    yield start, end, word
                start = folded.find(written, end)


def _spellings(word: str) -> list[str]:
    """Return a folded word as it may be written: with and without the e of an umlaut."""
    spellings = [word]
    spellings += [word.replace(pair, pair[0]) for pair in ("ae", "oe", "ue") if pair in word]
    spellings += [word.replace(v, f"{v}e") for v in "aou" if v in word and f"{v}e" not in word]
    return spellings


def _ends(folded: str, end: int, word: str) -> bool:
    following = folded[end : end + 2]
    if not following[:1].isalpha():
        return True
    # Müllers Auftrag, Annas Konto
    return len(word) >= 4 and following[0] == "s" and not following[1:].isalpha()


def _find_number(folded: str, one: Known) -> Iterator[tuple[int, int, str]]:
    """Find digits however they are grouped; a number's country code or 0 may be left out."""
    digits = one.words[0]
    tail = digits[-9:] if len(digits) > 9 else digits
    for run in _RUN.finditer(folded):
        places = [i for i in range(*run.span()) if folded[i].isdigit()]
        compact = "".join(folded[i] for i in places)
        for wanted in dict.fromkeys((digits, tail)):
            at = compact.find(wanted)
            if at >= 0:
                first, last = places[at], places[at + len(wanted) - 1] + 1
                if wanted == tail and not _is_whole(folded, first, last, len(digits) > 9):
                    continue
                yield first, last, digits
                break


def _is_whole(folded: str, first: int, last: int, national: bool) -> bool:
    before = folded[first - 1 : first] if first else ""
    return not folded[last : last + 1].isdigit() and (national or not before.isdigit())


def _is_meant(letters: str, one: Known, word: str) -> bool:
    """Tell whether a match is the name, and not an ordinary word that is written alike."""
    if one.kind != "name":
        return True
    if word in _ORDINARY or len(word) < 3:
        return letters[:1].isupper()
    return True


def _initials(text: str, match: Match, taken: set[int]) -> Iterator[Match]:
    """Yield the initial beside a last name: `J. Dupont`, `Dupont J.`."""
    if match.known.kind != "name" or len(match.known.words) < 2:
        return
    before = re.search(r"(?<!\w)([^\W\d_])(?:\.-?[^\W\d_])?\.? ?\Z", text[: match.start][-6:])
    after = re.match(r",? ([^\W\d_])(?:\.|(?!\w))", text[match.end :][:4])
    for found, offset in ((before, max(0, match.start - 6)), (after, match.end)):
        if found is None or not found[1].isupper():
            continue
        place = offset + found.start(1)
        word = next((w for w in match.known.words if w[0] == fold(found[1])), None)
        if word and word != match.word and place not in taken:
            taken.add(place)
            yield Match(place, place + 1, match.known, word)
