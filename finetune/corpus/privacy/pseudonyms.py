"""Pseudonyms: invented values that stand for real ones, the same everywhere under one key.

They are drawn by a keyed hash, so that nobody without the key can try values out, from ranges that
belong to nobody: `.invalid` domains, numbers for fiction, documentation networks, checksums that
fail. The detectors find none of them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

from finetune.corpus.privacy import numbers
from finetune.corpus.privacy.names import Known, fold
from finetune.corpus.privacy.phones import FICTION, Phone, find_phones

# Syllables of invented names: no list of real people stands behind them.
_STARTS = (
    "Al Bel Cor Dav El Fer Gal Hel Iv Jor Kal Lor Mar Nor Ol Per Quin Ral Sel Tor Ul Val Wil Yl"
)
_MIDDLES = "a e i o ar el in or an is ev ul"
_ENDS = "bric dane fil grin hale juno kiel len mond neth pher quil rast sien tave vien wick yo zel"
# Kinds that are taken as drawn. Were a phone number drawn again because its digits happen to pass
# some checksum, its two spellings would get two pseudonyms.
_AS_DRAWN = frozenset({"email", "ip", "birth_date", "address", "phone"})


class _Draw:
    """An endless row of choices that follows from a hash."""

    def __init__(self, seed: bytes) -> None:
        self._state = int.from_bytes(hashlib.blake2b(seed, digest_size=64).digest(), "big")

    def below(self, count: int) -> int:
        self._state, choice = divmod(self._state, count)
        return choice

    def pick(self, words: str) -> str:
        options = words.split()
        return options[self.below(len(options))]

    def digits(self, count: int) -> str:
        return f"{self.below(10**count):0{count}d}"


class Pseudonyms:
    """The pseudonyms of one key.

    Args:
        key: 32 secret bytes.
        is_found: Tells whether the detectors would take a text for personal data.
    """

    def __init__(self, key: bytes, is_found: Callable[[str], bool]) -> None:
        self._key = key
        self._is_found = is_found

    def replace(self, kind: str, text: str) -> str:
        """Return the pseudonym of a detected value, written as the value was."""
        make = getattr(self, f"_{kind}", self._number)
        pseudonym = text
        for attempt in range(64):
            pseudonym = make(text, attempt)
            if pseudonym != text and (kind in _AS_DRAWN or not self._is_found(pseudonym)):
                break
        return pseudonym

    def replace_known(self, known: Known, word: str, text: str) -> str:
        """Return the pseudonym of a known value, or of a word of a name, written as `text` is."""
        if known.kind == "number":
            return self._fill(text, self._draw("number", known.identity), keep=0)
        if known.kind == "known":
            return self._fill(text, self._draw("known", known.identity + "\0" + fold(word)), keep=0)
        for attempt in range(64):
            name = self._name(f"{known.identity}\0{word}", attempt)
            if fold(name) not in known.words:
                break
        if len(text) == 1:
            return name[0] if text.isupper() else name[0].lower()
        if text.isupper():
            return name.upper()
        return name.lower() if text.islower() else name

    def _draw(self, kind: str, value: str, attempt: int = 0) -> _Draw:
        seed = f"{kind}\0{value}\0{attempt}".encode("utf-8", "surrogatepass")
        return _Draw(hashlib.blake2b(seed, key=self._key, digest_size=32).digest())

    def _name(self, value: str, attempt: int = 0) -> str:
        draw = self._draw("name", value, attempt)
        return draw.pick(_STARTS) + draw.pick(_MIDDLES) + draw.pick(_ENDS)

    def _email(self, text: str, attempt: int) -> str:
        value = text.lower()
        draw = self._draw("email", value, attempt)
        tag = "".join("abcdefghjkmnpqrstuvwxyz23456789"[draw.below(31)] for _ in range(8))
        return f"{self._name(value, attempt).lower()}.{tag}@mail.invalid"

    def _phone(self, text: str, attempt: int) -> str:
        found = next((p for p in find_phones(f"tel {text}", 4, 4 + len(text))), None)
        phone = found or Phone(0, len(text), "", re.sub(r"\D", "", text).lstrip("0"))
        draw = self._draw("phone", f"{phone.country} {phone.digits}", attempt)
        prefixes = FICTION.get(phone.country)
        size = len(phone.digits)
        if prefixes:
            same = [p for p in prefixes if p[0] == phone.digits[0]] or [prefixes[0]]
            prefix = same[draw.below(len(same))]
            size = 9 if phone.country == "33" else 10
        else:
            prefix = "00"
        digits = prefix + draw.digits(size - len(prefix))
        return _write(text, phone, digits)

    def _ip(self, text: str, attempt: int) -> str:
        draw = self._draw("ip", text.lower(), attempt)
        if ":" in text:
            return f"2001:db8:{draw.below(2**16):x}:{draw.below(2**16):x}::{draw.below(2**16):x}"
        block = ("192.0.2", "198.51.100", "203.0.113")[draw.below(3)]
        return f"{block}.{draw.below(254) + 1}"

    def _birth_date(self, text: str, attempt: int) -> str:
        draw = self._draw("birth_date", text, attempt)
        day, month = f"{draw.below(28) + 1:02}", f"{draw.below(12) + 1:02}"
        if match := re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            return f"1900-{month}-{day}"
        if match := re.fullmatch(r"\d{1,2}(\D)\d{1,2}\D\d{2,4}", text):
            return f"{day}{match[1]}{month}{match[1]}1900"
        return re.sub(r"(?:19|20)\d\d", "1900", re.sub(r"\b\d{1,2}(?!\d)", day.lstrip("0"), text))

    def _address(self, text: str, attempt: int) -> str:
        draw = self._draw("address", fold(text), attempt)
        number, street, city = draw.below(200) + 1, self._name(text, attempt), "Nullevia"
        if re.search(r"[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2}\Z", text):
            return f"{number} {street} Street, {city} ZZ99 9ZZ"
        if re.match(r"\d", text):
            kind = re.search(
                r"(?i)[^\W\d_]{2,}\.?(?= )", text.replace("bis", "").replace("ter", "")
            )
            return f"{number} {kind[0] if kind else 'rue'} {street}, 00000 {city}"
        if re.match(r"(?i)(?:calle|c/|avenida|avda|plaza|paseo|ronda|camino|via|viale|piazza|corso|"
                    r"largo|vicolo)\b", text):  # fmt: skip
            return f"{text.split(maxsplit=1)[0]} {street} {number}, 00000 {city}"
        if re.search(r"\d{4} ?[A-Z]{2} ", text):
            return f"{street}straat {number}, 0000 ZZ {city}"
        return f"{street}weg {number}, 00000 {city}"

    def _nino(self, text: str, attempt: int) -> str:
        # QQ is given to nobody (HMRC, NIM39110, 2024).
        draw = self._draw("nino", numbers.compact(text), attempt)
        lower = text[:2].islower()
        return ("qq" if lower else "QQ") + self._fill(text[2:-1], draw, keep=0) + text[-1]

    def _number(self, text: str, attempt: int, kind: str = "number") -> str:
        """Numbers with checksums: as many digits and letters, drawn until the checksum fails."""
        draw = self._draw(kind, numbers.compact(text), attempt)
        keep = len(text) - len(text.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"))
        return self._fill(text, draw, keep=keep if keep <= 2 else 0)

    def _card(self, text: str, attempt: int) -> str:
        draw = self._draw("card", numbers.compact(text), attempt)
        return self._fill(text, draw, keep=1)

    @staticmethod
    def _fill(text: str, draw: _Draw, *, keep: int) -> str:
        """Return `text` with other digits and letters, but for its first `keep` characters."""
        filled = []
        for letter in text[keep:]:
            if letter.isdigit():
                filled.append(str(draw.below(10)))
            elif letter.isalpha():
                drawn = "abcdefghijklmnopqrstuvwxyz"[draw.below(26)]
                filled.append(drawn.upper() if letter.isupper() else drawn)
            else:
                filled.append(letter)
        return text[:keep] + "".join(filled)


def _write(text: str, phone: Phone, digits: str) -> str:
    """Return a number's digits in the form of `text`, plainly where their count differs."""
    if len(digits) == len(phone.digits):
        result, left = list(text), list(digits)
        for place in range(len(text) - 1, -1, -1):
            if left and text[place].isdigit():
                result[place] = left.pop()
        # A 0 in brackets is no digit of the number: it takes none.
        at = text.find("(0)", 1)
        if at > 0:
            head = _write(text[: at + 1] + text[at + 2 :], phone, digits)
            return f"{head[: at + 1]}0{head[at + 1 :]}"
        return "".join(result)
    if text.startswith(("+", "(+", "00")):
        return f"+{phone.country} {digits}"
    return f"0{digits}"
