"""Numbers that authorities and banks give out, told apart by their checksums.

python-stdnum (the extra `clean`) knows the checksums; it is imported when they are asked for.
"""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Callable, Iterator

from finetune.errors import MissingExtra

_REGISTRY = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 "
    "DK18 DO28 EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 "
    "IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 "
    "MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 "
    "SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30"
)
# Letters and digits of an IBAN a country (SWIFT IBAN registry, release 99, December 2024).
_IBAN_LENGTHS = {entry[:2]: int(entry[2:]) for entry in _REGISTRY.split()}
_AUSWEIS = re.compile(
    r"(?i)(?:ausweis|reisepass|identity card)[^\W\d_]{0,10}[^\w]{1,4}"
    r"(?:(?:nr|nummer|no|lautet|ist|is)\b[^\w]{1,3}){0,2}([CFGHJKLMNPRTVWXYZ\d]{9}\d)(?!\w)"
)


@functools.cache
def checker(module: str) -> Callable[[str], bool]:
    """Return the check of a module of python-stdnum, such as `fr.nir`.

    Raises:
        MissingExtra: python-stdnum is not installed.
    """
    try:
        check: Callable[[str], bool] = importlib.import_module(f"stdnum.{module}").is_valid
    except ImportError:
        raise MissingExtra("clean", "python-stdnum") from None
    return check


def compact(text: str) -> str:
    """Return the letters and digits of `text`, in upper case."""
    return "".join(filter(str.isalnum, text)).upper()


def iban_length(country: str) -> int:
    """Return how many characters an IBAN of a country has, 0 where it has none."""
    return _IBAN_LENGTHS.get(country.upper(), 0)


def is_iban(number: str) -> bool:
    """Tell whether a compact number has the length and the checksum (ISO 7064, 97) of an IBAN."""
    if len(number) != _IBAN_LENGTHS.get(number[:2]) or not number.isascii():
        return False
    turned = number[4:] + number[:4]
    return int("".join(str(int(letter, 36)) for letter in turned)) % 97 == 1


def is_card(number: str) -> bool:
    """Tell whether digits are a payment card's: an issuer's range and length, and Luhn's sum.

    Ranges: ISO/IEC 7812 as published by the schemes, 2024.
    """
    size, two, four = len(number), int(number[:2]), int(number[:4])
    known = (
        (number[0] == "4" and size in (13, 16, 19))
        or (size == 16 and (51 <= two <= 55 or 2221 <= four <= 2720))
        or (size == 15 and two in (34, 37))
        or (size == 16 and (four == 6011 or two == 65 or 644 <= int(number[:3]) <= 649))
        or (size == 14 and (two in (36, 38, 39) or 300 <= int(number[:3]) <= 305))
        or (size == 16 and two == 35)
        or (size == 15 and four in (1800, 2131))
        or (12 <= size <= 19 and (two in (50, 67) or 56 <= two <= 58 or four in (6304, 6759)))
    )
    return known and is_luhn(number)


def is_luhn(number: str) -> bool:
    """Tell whether digits have Luhn's check digit."""
    odd = sum(map(int, number[-1::-2]))
    return (odd + sum(map(int, "".join(str(2 * int(d)) for d in number[-2::-2])))) % 10 == 0


def is_nir(number: str) -> bool:
    """Tell whether a compact number is a French NIR: sex, month and checksum are right."""
    month = number[3:5]
    plausible = (
        number[0] in "123478" and month.isdigit() and (1 <= int(month) <= 12 or month > "19")
    )
    return plausible and checker("fr.nir")(number)


def is_siret(number: str) -> bool:
    """Tell whether digits are a SIRET: both it and the SIREN in it have their checksum."""
    return is_luhn(number[:9]) and checker("fr.siret")(number)


def find_ausweise(text: str) -> Iterator[tuple[int, int]]:
    """Yield the numbers of German identity cards and passports: nine characters and a digit.

    They follow a word that says so, and have the check digit of ICAO 9303 (weights 7, 3, 1).
    """
    lower = text.lower()
    if "ausweis" not in lower and "reisepass" not in lower and "identity card" not in lower:
        return
    for match in _AUSWEIS.finditer(text):
        number = match[1].upper()
        total = sum(int(c, 36) * (7, 3, 1)[i % 3] for i, c in enumerate(number[:9]))
        if total % 10 == int(number[9]):
            yield match.span(1)


def is_nino(number: str) -> bool:
    """Tell whether a compact number can be a British National Insurance number.

    Its prefixes: HMRC, NIM39110, 2024. It has no checksum.
    """
    return (
        number[0] not in "DFIQUV"
        and number[1] not in "DFIOQUV"
        and number[:2] not in ("BG", "GB", "NK", "KN", "TN", "NT", "ZZ")
        and number[8] in "ABCD"
    )
