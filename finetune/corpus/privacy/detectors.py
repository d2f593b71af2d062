"""Detectors: where a text holds personal data, and of which kind.

NUMBERS is the table of what a pattern and a checksum find, ANYWHERE of what is found otherwise. All
patterns take linear time. Most texts are settled by one look for digits and @.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from finetune.corpus.privacy import numbers
from finetune.corpus.privacy.contacts import (
    find_addresses,
    find_births,
    find_emails,
    find_ipv4,
    find_ipv6,
)
from finetune.corpus.privacy.context import lists_numbers, topic_before, topics_after, topics_of
from finetune.corpus.privacy.credentials import find_secrets
from finetune.corpus.privacy.phones import find_phones


class Span(NamedTuple):
    """A piece of personal data in a text.

    Attributes:
        start: Where it begins.
        end: Where it ends.
        kind: Such as `email`.
    """

    start: int
    end: int
    kind: str


class Detector(NamedTuple):
    """A row of NUMBERS.

    Attributes:
        kind: What it finds.
        pattern: Its shape; a group leaves out what only stands around it.
        check: Given the compact number, tells whether it is one.
        needs: `nothing`; `no-order`, that the nearest word is not about orders or cards; or a
            topic of `context`.
    """

    kind: str
    pattern: re.Pattern[str]
    check: Callable[[str], bool]
    needs: str = "nothing"


def _stdnum(module: str) -> Callable[[str], bool]:
    # Looked up when it is first needed: the library comes with an extra.
    def check(number: str) -> bool:
        return numbers.checker(module)(number)

    return check


def _is_vat(number: str) -> bool:
    return numbers.checker("gb.vat" if number.startswith("GB") else "eu.vat")(number)


_S = r"[ .\-/\u00a0\u202f\u2011]?"  # one separator at most


def _digits(count: int) -> str:
    return rf"\d(?:{_S}\d){{{count - 1}}}"


def _shape(first: str, rest: str) -> re.Pattern[str]:
    """Return a pattern that begins with one character, so that it is looked for fast."""
    return re.compile(
        rf"{first}(?<![\w+]{first})(?<!\d[.\-/]{first})(?:{rest})(?!\w|[.\-/]\d)", re.ASCII
    )


# Matched against text in upper case.
NUMBERS: tuple[Detector, ...] = (
    Detector("nir", _shape(r"[12]", rf"(?:{_S}\d){{4}}{_S}(?:\d{_S}\d|2[AB])(?:{_S}\d){{8}}"),
             numbers.is_nir, "no-order"),
    Detector("codice_fiscale",
             _shape("[A-Z]", r"[A-Z]{2} ?[A-Z]{3} ?[0-9LMNP-V]{2}[A-EHLMPRST][0-9LMNP-V]{2} ?[A-Z]"
                    r"[0-9LMNP-V]{3}[A-Z]"), _stdnum("it.codicefiscale")),
    Detector("vat", _shape("[ABDEFGILNP]",
                           rf"(?<=F)R ?[0-9A-Z]{{2}}{_S}{_digits(9)}|(?:(?<=D)E|(?<=P)T|(?<=G)B) ?"
                           rf"{_digits(9)}|(?<=E)S ?[0-9A-Z]{_S}\d{{7}}{_S}[0-9A-Z]|"
                           rf"(?<=I)T ?{_digits(11)}|(?<=N)L ?{_digits(9)}{_S}B{_S}\d\d|"
                           rf"(?<=P)L ?{_digits(10)}|(?<=B)E ?[01]{_S}{_digits(9)}|(?<=A)TU\d{{8}}|"
                           rf"(?<=L)U ?\d{{8}}|(?<=I)E\d[0-9A-Z]\d{{5}}[A-Z]{{1,2}}"), _is_vat,
             "no-order"),
    Detector("siret", _shape(r"\d", r"\d\d([ .\u00a0\u202f])\d{3}\1\d{3}\1\d{5}"),
             numbers.is_siret, "no-order"),
    Detector("siret", _shape(r"\d", rf"(?:{_S}\d){{13}}"), numbers.is_siret, "siren"),
    Detector("siren", _shape(r"\d", rf"(?:{_S}\d){{8}}"), numbers.is_luhn, "siren"),
    Detector("dni", _shape(r"\d", rf"\d{_S}\d{{3}}{_S}\d{{3}}[.\-]?[A-HJ-NP-TV-Z]"),
             _stdnum("es.dni"), "no-order"),
    Detector("nie", _shape(r"[XYZ]", rf"{_S}\d{{7}}{_S}[A-HJ-NP-TV-Z]"), _stdnum("es.nie")),
    Detector("rijksregister", _shape(r"\d", r"\d\.[01]\d\.[0-3]\d[- ]\d{3}\.\d\d"),
             _stdnum("be.nn"), "no-order"),
    Detector("rijksregister", _shape(r"\d", rf"(?:{_S}\d){{10}}"), _stdnum("be.nn"),
             "rijksregister"),
    Detector("idnr", _shape(r"\d", r"\d([ \u00a0\u202f])\d{3}\1\d{3}\1\d{3}"), _stdnum("de.idnr"),
             "no-order"),
    Detector("idnr", _shape(r"\d", rf"(?:{_S}\d){{10}}"), _stdnum("de.idnr"), "idnr"),
    Detector("pesel", _shape(r"\d", rf"(?:{_S}\d){{10}}"), _stdnum("pl.pesel"), "pesel"),
    Detector("iva", _shape(r"\d", r"\d{10}"), _stdnum("it.iva"), "iva"),
    Detector("bsn", _shape(r"\d", rf"(?:{_S}\d){{8}}"), _stdnum("nl.bsn"), "bsn"),
    Detector("nif", _shape(r"\d", rf"(?:{_S}\d){{8}}"), _stdnum("pt.nif"), "nif"),
    Detector("cc", _shape(r"\d", rf"\d{{7}}{_S}\d{_S}[A-Z]{{2}}\d"), _stdnum("pt.cc")),
    Detector("nhs", _shape(r"\d", rf"(?:{_S}\d){{9}}"), _stdnum("gb.nhs"), "nhs"),
    Detector("nino", _shape(r"[A-Z]", r"[A-Z] ?\d\d ?\d\d ?\d\d ?[A-D]"), numbers.is_nino,
             "no-order"),
)  # fmt: skip

ANYWHERE: tuple[tuple[str, Callable[[str], Iterator[tuple[int, int]]]], ...] = (
    ("secret", find_secrets),
    ("email", find_emails),
    ("address", find_addresses),
    ("birth_date", find_births),
    ("ausweis", numbers.find_ausweise),
    ("ip", find_ipv4),
    ("ip", find_ipv6),
)
_UPPER = str.maketrans("abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_ANY = re.compile(r"[0-9@]")
# Six digits in one breath, a letter between two at most: every number of NUMBERS has them.
_RUN = re.compile(r"\d(?:[ .\-/\u00a0\u202f\u2011()]{0,3}[A-Za-z]?\d){5,}")
_AROUND = 24  # characters around them that may belong to the number
_IBAN = re.compile(r"[A-Z](?<!\w[A-Z])[A-Z]\d\d(?=[ .\-\u00a0\u202f]?[A-Z0-9]{2})")
_CARD = re.compile(
    r"[1-6]\d{3}(?<![\w]\d{4})(?<!\d[ .\-]\d{4})(?:[ .\-\u00a0\u202f\u2011]?\d){8,15}"
)
_GROUPED = re.compile(r"\d{4}(\D)\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?|\d{4}(\D)\d{6}\2\d{4,5}")


def find(text: str) -> list[Span]:
    """Return the personal data of a text, in order, without overlaps.

    Example:
        >>> find("Écrivez à jean@acme.fr")
        [Span(start=10, end=22, kind='email')]
    """
    if _ANY.search(text) is None and "-----BEGIN" not in text:
        return []
    spans: list[Span] = []
    for span in _candidates(text):
        at = bisect.bisect(spans, span)
        free = at == 0 or spans[at - 1].end <= span.start
        if free and (at == len(spans) or spans[at].start >= span.end):
            spans.insert(at, span)
    return spans


def is_found(text: str) -> bool:
    """Tell whether the whole of a text is a number that has its checksum, in any context."""
    number, upper = numbers.compact(text), to_upper(text)
    if any(d.pattern.fullmatch(upper) and d.check(number) for d in NUMBERS):
        return True
    if numbers.is_iban(number) or (
        len(number) > 11 and number.isdecimal() and numbers.is_card(number)
    ):
        return True
    return next(find_phones(f"tel {text}", 4, 4 + len(text)), None) is not None


def to_upper(text: str) -> str:
    """Return `text` in upper case, each character where it was."""
    upper = text.upper()
    return upper if len(upper) == len(text) else text.translate(_UPPER)


def _candidates(text: str) -> Iterator[Span]:
    """Yield what the detectors find, the surest first."""
    for kind, find_places in ANYWHERE:
        for start, end in find_places(text):
            yield Span(start, end, kind)
    windows = list(_windows(text))
    if not windows:
        return
    upper, topics = to_upper(text), topics_of(text)
    for start, end in windows:
        yield from _find_ibans(upper, start, end)
    for detector in NUMBERS:
        if detector.needs in topics:
            for start, end in windows:
                yield from _find_numbers(upper, detector, start, end)
    for start, end in windows:
        yield from _find_cards(text, start, end)
        for phone in find_phones(text, start, end):
            yield Span(phone.start, phone.end, "phone")


def _windows(text: str) -> Iterator[tuple[int, int]]:
    """Yield the stretches of text that may hold a number, apart from each other."""
    start = end = -1
    for match in _RUN.finditer(text):
        first, last = max(0, match.start() - _AROUND), min(len(text), match.end() + _AROUND)
        if first <= end:
            end = last
            continue
        if end > 0:
            yield start, end
        start, end = first, last
    if end > 0:
        yield start, end


def _find_numbers(text: str, detector: Detector, start: int, end: int) -> Iterator[Span]:
    for match in detector.pattern.finditer(text, start, end):
        if match.end() == end < len(text) and (text[end].isalnum() or text[end] == "_"):
            continue  # the window cut it
        number = numbers.compact(match[0])
        if detector.check(number) and _fits(text, match.start(), match.end(), detector.needs):
            yield Span(match.start(), match.end(), detector.kind)


def _fits(text: str, start: int, end: int, needs: str) -> bool:
    if needs == "nothing":
        return True
    if needs == "no-order":
        return topic_before(text, start) not in ("order", "card")
    return topic_before(text, start) == needs or needs in topics_after(text, end)


def _find_ibans(text: str, start: int, end: int) -> Iterator[Span]:
    for match in _IBAN.finditer(text, start, end):
        size = numbers.iban_length(match[0][:2])
        position, letters = match.start(), 0
        while letters < size and position < len(text):
            if text[position].isalnum():
                letters += 1
            elif text[position] not in " .-\u00a0\u202f" or not text[position - 1].isalnum():
                break
            position += 1
        whole = letters == size > 0 and not text[position : position + 1].isalnum()
        if whole and numbers.is_iban(numbers.compact(text[match.start() : position])):
            yield Span(match.start(), position, "iban")


def _find_cards(text: str, start: int, end: int) -> Iterator[Span]:
    position = start
    while match := _CARD.search(text, position, end):
        position = match.start() + 4
        for size in (16, 15, 19, 14, 13, 12, 18, 17):
            last = _end_of(text, match, size)
            if last is None:
                continue
            written = text[match.start() : last]
            if numbers.is_card(numbers.compact(written)) and _is_told(text, match.start(), last):
                position = last
                yield Span(match.start(), last, "card")
                break


def _end_of(text: str, match: re.Match[str], size: int) -> int | None:
    """Return where the first `size` digits of a match end, None where that cuts a number."""
    count = 0
    for position in range(*match.span()):
        count += text[position].isdigit()
        if count == size:
            following = text[position + 1 : position + 2]
            return None if following.isalnum() or following == "_" else position + 1
    return None


def _is_told(text: str, start: int, end: int) -> bool:
    """Tell whether a number with a card's checksum is one: one order number in fifty has it."""
    topic = topic_before(text, start)
    if topic == "card":
        return True
    if topic == "order":
        return False
    if _GROUPED.fullmatch(text, start, end):
        return True
    usual = end - start in (15, 16)
    return usual and ("card" in topics_after(text, end) or not lists_numbers(text))
