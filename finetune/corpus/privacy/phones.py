"""Phone numbers: international, and as they are written in European countries."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from finetune.corpus.privacy.context import lists_numbers, topic_before, topics_after

_SEPARATOR = (
    r"(?:[ .\-/\u00a0\u202f\u2011]|[-/] |[ \u00a0]?\(0?\d{0,4}\)[ \u00a0-]?|\)[ -]?| [-/] )"
)
# Digits in one breath; how many of them are the number is decided by the country's lengths.
_INTERNATIONAL = re.compile(
    rf"(?:\(?\+|\b00)(?<![\w+]\+)(?<!\w\(\+)(?<![.,]00)(?<!\d[ /\-]00)"
    rf"[ \u00a0]?[1-9](?:{_SEPARATOR}?\d){{6,16}}"
)
_BRACKETED = re.compile(
    rf"\(([1-9]\d{{1,2}})\)(?<!\w\(\d\d\))(?<!\w\(\d\d\d\))[ \u00a0]?"
    rf"[1-9](?:{_SEPARATOR}?\d){{7,12}}"
)
_TRUNK = re.compile(
    rf"(?:\(0[1-9]\d{{0,4}}\)[ \u00a0-]?\d|0[1-9])(?<![\w+]0\d)(?<!\d[.\-/,:]0\d)(?<!\w\(0\d)"
    rf"(?:{_SEPARATOR}?\d){{3,14}}"
)
_PLAIN = re.compile(
    r"[2-9]\d(?<![\w+.,:\-/]\d\d)(?<!\d[ \u00a0\u202f]\d\d)(?:[ .\-\u00a0\u202f]?\d){7,8}(?![\w])"
)
_DATE = re.compile(r"\d{1,2}([./-])\d{1,2}\1(?:19|20)?\d\d(?!\d)")
_AFTER_DIGIT = re.compile(r"\d[ \u00a0\u202f]\Z")
_PAIRS = re.compile(r"0\d(?:([ .\-\u00a0\u202f])\d\d)(?:\1\d\d){3}")
_FOURS = re.compile(r"\d{4}[ .\-]\d{4}[ .\-]\d")
_ES_PAIRS = re.compile(r"[6-9]\d\d([ .\-\u00a0\u202f])\d\d\1\d\d\1\d\d")

# Digits after the country code (ITU-T E.164 and the national numbering plans, 2024).
_LENGTHS: dict[str, range] = {
    "1": range(10, 11), "7": range(10, 11), "30": range(10, 11), "31": range(9, 10),
    "32": range(8, 10), "33": range(9, 10), "34": range(9, 10), "36": range(8, 10),
    "39": range(6, 12), "40": range(9, 10), "41": range(9, 10), "43": range(7, 13),
    "44": range(9, 11), "45": range(8, 9), "46": range(7, 11), "47": range(8, 9),
    "48": range(9, 10), "49": range(6, 13), "351": range(9, 10), "352": range(6, 10),
    "353": range(7, 10), "358": range(6, 11), "420": range(9, 10),
}  # fmt: skip
_OTHERS = range(7, 13)
_TRUNK_LENGTHS = (13, 12, 11, 10, 9)  # with the 0

# Ranges that regulators keep for fiction, without the country code:
# FR Arcep, decision 2018-0881, section 2.5.12 · GB Ofcom, numbers for use in TV and radio drama,
# 2024 · DE Bundesnetzagentur, Mitteilung 148/2021.
FICTION: dict[str, tuple[str, ...]] = {
    "33": ("19900", "26191", "35301", "46571", "53649", "63998"),
    "44": ("7700900", "2079460", "1632960"),
    "49": ("3023125", "17139200"),
}


class Phone(NamedTuple):
    """A phone number in a text.

    Attributes:
        start: Where it begins.
        end: Where it ends.
        country: Its country code, "" where its shape does not tell.
        digits: What follows the country code or the 0, digits only.
    """

    start: int
    end: int
    country: str
    digits: str

    @property
    def reserved(self) -> bool:
        """Whether nobody has this number: it is kept for fiction, or begins with 00."""
        return is_reserved(self.country, self.digits)


def is_reserved(country: str, digits: str) -> bool:
    """Tell whether a number is kept for fiction, or begins as no number in any plan does."""
    plans = [country] if country else list(FICTION)
    return digits.startswith("00") or any(digits.startswith(FICTION.get(p, ())) for p in plans)


def find_phones(text: str, start: int, end: int) -> Iterator[Phone]:
    """Yield the phone numbers in a stretch of text; they may overlap."""
    position = start
    while match := _INTERNATIONAL.search(text, position, end):
        phone = _international(text, match)
        position = phone.end if phone else match.start() + 2
        if phone:
            yield phone
    for match in _BRACKETED.finditer(text, start, end):
        if phone := _bracketed(text, match):
            yield phone
    position = start
    while match := _TRUNK.search(text, position, end):
        phone = _trunk(text, match)
        position = phone.end if phone else match.start() + 2
        if phone:
            yield phone
    for match in _PLAIN.finditer(text, start, end):
        if phone := _plain(text, match):
            yield phone


def _digits(text: str, start: int, end: int) -> list[int]:
    """Return the places of the digits that count: a 0 in brackets does not."""
    places = [i for i in range(start, end) if "0" <= text[i] <= "9"]
    at = text.find("(0)", start + 1, end)
    return [i for i in places if i != at + 1] if at > 0 else places


def _cut(text: str, places: list[int], size: int) -> int | None:
    """Return the end of a number of `size` digits, None where it would cut a number in two."""
    if size > len(places):
        return None
    end = places[size - 1] + 1
    following = text[end : end + 1]
    return None if following.isalnum() or following == "_" else end


def _international(text: str, match: re.Match[str]) -> Phone | None:
    skipped = 2 if match[0].startswith("00") else 0
    places = _digits(text, match.start() + skipped, match.end())
    number = "".join(text[i] for i in places)
    country = next((number[:n] for n in (1, 2, 3) if number[:n] in _LENGTHS), number[:2])
    lengths = _LENGTHS.get(country, _OTHERS)
    if skipped and (country not in _LENGTHS or not _is_dialled(text, match.start(), match[0])):
        return None
    # Many keep the 0 of the national form: +49 0151 2345678.
    extra = int(number[len(country) :].startswith("0") and country != "39")
    for size in reversed(lengths):
        end = _cut(text, places, size + len(country) + extra)
        if end is not None:
            digits = number[len(country) + extra : size + len(country) + extra]
            if not extra or not digits.startswith("0"):
                phone = Phone(match.start(), end, country, digits)
                return None if phone.reserved else phone
    return None


def _bracketed(text: str, match: re.Match[str]) -> Phone | None:
    """Return the number behind a country code in brackets, `(351) 912 345 678`."""
    country, places = match[1], _digits(text, match.end(1), match.end())
    if country not in _LENGTHS or not _is_dialled(
        text, match.start(), text[places[0] : match.end()]
    ):
        return None
    for size in reversed(_LENGTHS[country]):
        if end := _cut(text, places, size):
            digits = "".join(text[i] for i in places[:size])
            return (
                None if is_reserved(country, digits) else Phone(match.start(), end, country, digits)
            )
    return None


def _is_dialled(text: str, start: int, written: str) -> bool:
    """Tell whether digits after 00 or a country in brackets are dialled, not an article's."""
    topic = topic_before(text, start)
    spaced = any(separator in written for separator in " \u00a0.-/(")
    return topic == "phone" or (topic != "order" and (spaced or not lists_numbers(text)))


def _trunk(text: str, match: re.Match[str]) -> Phone | None:
    start = match.start()
    pairs = _PAIRS.match(text, start) is not None
    after_digit = _AFTER_DIGIT.search(text[max(0, start - 2) : start])
    if not pairs and (after_digit or _DATE.match(text, start)):
        return None
    places = [i for i in range(start, match.end()) if "0" <= text[i] <= "9"]
    topic = topic_before(text, start)
    lengths = (10,) if pairs else _TRUNK_LENGTHS if topic != "phone" else (*_TRUNK_LENGTHS, 8, 7)
    size, end = next(
        ((n, cut) for n in lengths if (cut := _cut(text, places, n))),
        (0, 0),
    )
    if not size:
        return None
    number = "".join(text[i] for i in places[:size])
    phone = Phone(start, end, _guess(number, text[start:end]), number[1:])
    if phone.reserved or number.startswith("00"):
        return None
    if pairs:
        return phone
    if topic == "phone":
        return phone
    if topic == "order":
        return None
    # 0151 2345 6789 is a mobile's, 0623 8732 9011 an article's.
    spaced = end - start > size and not (
        _FOURS.match(text, start) and number[:3] not in ("015", "016", "017")
    )
    usual = (
        (size == 10 and number[1] in "1234567")
        or (size == 11 and number.startswith(("07", "015", "016", "017")))
        or (size == 12 and number.startswith(("015", "016", "017")))
    )
    return phone if spaced or (usual and not lists_numbers(text)) else None


def _plain(text: str, match: re.Match[str]) -> Phone | None:
    """Numbers without a leading 0, as in Spain, Poland, Portugal and on Italian mobiles."""
    places = _digits(text, *match.span())
    number = "".join(text[i] for i in places)
    if len(number) == 10 and number[0] != "3":
        return None
    if number.startswith("00") or _DATE.match(text, match.start()):
        return None
    phone = Phone(*match.span(), "", number)
    if _ES_PAIRS.fullmatch(match[0]):
        return phone if topic_before(text, match.start()) != "order" else None
    topic = topic_before(text, match.start())
    around = topics_after(text, match.end()) if topic is None else set()
    return phone if topic == "phone" or "phone" in around else None


def _guess(number: str, written: str) -> str:
    """Return the country that a number with its 0 shows by its shape, "" where several do."""
    if _PAIRS.fullmatch(written):
        return "33"
    if len(number) == 11 and number.startswith(("07", "020")):
        return "44"
    if number.startswith(("015", "016", "017")) and len(number) >= 11:
        return "49"
    return "33" if len(number) == 10 and written.isdigit() else ""
