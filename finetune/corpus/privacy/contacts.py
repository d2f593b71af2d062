"""Where people are found: e-mail and IP addresses, homes, and their dates of birth."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import NamedTuple

Places = Iterator[tuple[int, int]]

_DOMAIN = re.compile(r"@([\w-]{1,63}(?:\.[\w-]{1,63}){1,8})")
_LOCAL = frozenset("!#$%&'*+/=?^_`{|}~.-")
_IPV4 = re.compile(r"\d(?<![\w.]\d)\d{0,2}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?![\w]|\.\d)")
_IPV6 = re.compile(r":(?:[0-9A-Fa-f]{0,4}:){1,7}")
_HEX = frozenset("0123456789abcdefABCDEF:.")
_RESERVED = [
    ipaddress.ip_network(block)
    for block in (  # RFC 5737, RFC 3849 and RFC 9637: documentation
        "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20",
    )
]  # fmt: skip


def find_emails(text: str) -> Places:
    """Yield the e-mail addresses, but those below `.invalid` (RFC 2606: nobody's)."""
    for match in _DOMAIN.finditer(text):
        at = start = match.start()
        # A local part has at most 64 characters (RFC 5321).
        while start > max(0, at - 64) and (text[start - 1].isalnum() or text[start - 1] in _LOCAL):
            start -= 1
        while start < at and text[start] in ".'/=":  # quotes and paths before it
            start += 1
        domain = match[1].rstrip("-_")
        top = domain.rpartition(".")[2]
        if start < at and 2 <= len(top) <= 24 and not top.isdigit() and top.lower() != "invalid":
            yield start, match.start(1) + len(domain)


def find_ipv4(text: str) -> Places:
    """Yield IPv4 addresses that are somebody's; version numbers are left out."""
    for match in _IPV4.finditer(text):
        start = match.start()
        word = text[max(0, start - 9) : start].lower()
        if word.rstrip(" .:").endswith(("version", "release", "build", "section", "§")):
            continue
        if re.search(r"[a-z]/\Z", word) and not word.endswith("//"):  # Chrome/120.0.0.0
            continue
        if _is_somebodys(match[0]):
            yield match.span()


def find_ipv6(text: str) -> Places:
    """Yield IPv6 addresses that are somebody's."""
    end = 0
    for match in _IPV6.finditer(text):
        start = match.start()
        if start < end:
            continue
        while start > max(end, match.start() - 4) and text[start - 1] in _HEX:
            start -= 1
        end = match.end()
        while end < min(len(text), start + 45) and text[end] in _HEX:
            end += 1
        candidate = text[start:end].rstrip(".")
        # `a::b` is a name in several programming languages.
        if not re.search(r"[\w:]\Z", text[max(0, start - 1) : start]) and (
            not re.match(r"\w", text[end : end + 1])
            and len(re.findall(r"[0-9a-fA-F]+", candidate)) >= 3
            and any(map(str.isdigit, candidate))
            and _is_somebodys(candidate)
        ):
            yield start, start + len(candidate)


def _is_somebodys(address: str) -> bool:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    nobodys = ip.is_loopback or ip.is_unspecified or ip.is_multicast or int(ip) == 2**32 - 1
    if ip.version == 4 and (int(ip) >> 24 == 0 or int(ip) & 0xFFFFFF == 0):
        return False  # 0.0.0.0/8, and numbers such as 10.0.0.0 that name a network or a version
    return not nobodys and not any(ip.version == n.version and ip in n for n in _RESERVED)


_MONTHS = (
    r"janvier|février|fevrier|mars|avril|mai|juin|juillet|août|aout|septembre|octobre|novembre|"
    r"décembre|decembre|januar|februar|märz|april|juni|juli|august|september|oktober|november|"
    r"dezember|january|february|march|may|june|july|october|december|enero|febrero|marzo|abril|"
    r"mayo|junio|julio|agosto|septiembre|octubre|noviembre|diciembre|gennaio|febbraio|aprile|"
    r"maggio|giugno|luglio|settembre|ottobre|dicembre|januari|februari|maart|mei|augustus|"
    r"stycznia|lutego|marca|kwietnia|maja|czerwca|lipca|sierpnia|września|października|listopada|"
    r"grudnia|janeiro|fevereiro|março|maio|junho|julho|setembro|outubro|dezembro"
)
_BORN = re.compile(
    r"(?i)\b(?:né(?:\(e\)|e|·e)?|ne\(e\)|date de naissance|geboren|geb\.|geburtsdatum|geburtstag|"
    r"born|date of birth|birth ?date|d\.?o\.?b\b|nacid[oa]|fecha de nacimiento|nat[oa] il|nata|"
    r"nato|data di nascita|geboortedatum|urodzon[ya]|data urodzenia|nascid[oa]|"
    r"data de nascimento|nacimiento|naissance)"
)
_DATE = re.compile(
    r"(?i)(?:\d{1,2}([./\-  ])\d{1,2}\1((?:19|20)\d\d|\d\d)|((?:19|20)\d\d)-\d\d-\d\d|"
    rf"\d{{1,2}}(?:er|\.|º|st|nd|rd|th)?(?: de)? (?:{_MONTHS})(?: de)? ((?:19|20)\d\d)|"
    rf"(?:{_MONTHS}) \d{{1,2}}(?:st|nd|rd|th)?,? ((?:19|20)\d\d))(?!\d)"
)


def find_births(text: str) -> Places:
    """Yield dates that follow a word for birth; the year 1900 stands for nobody's."""
    for word in _BORN.finditer(text):
        match = _DATE.search(text, word.end(), word.end() + 48)
        if match and "1900" not in match.groups():
            between = text[word.end() : match.start()]
            if len(between) <= 24 and not re.search(r"[\n.!?;]\s", between):
                yield match.span()


class _Form(NamedTuple):
    gate: re.Pattern[str]  # a word that such an address has
    whole: re.Pattern[str]  # searched around that word only
    before: int


_NAME = r"[^\W\d_][^\W\d_'’.\-]*(?:[ '’\-.]{1,2}[^\W\d_]+){0,6}"
_CITY = r"[^\W\d_]+(?:[ '’\-][A-ZÉÈÀÂÎÔÄÖÜ][^\W\d_]+){0,3}"
_BREAK = r"(?:,[ \n]?|[ \n])(?:-[ ])?"
_NUMBER = r"\d{1,4}(?:[ -]?(?:bis|ter|[a-zA-Z]))?"
_FIVE = r"(?!00000)\d{5}"
_RUE = (
    r"rue|avenue|av\.|boulevard|bd|place|chemin|allée|impasse|route|quai|cours|square|passage|"
    r"faubourg|sentier|villa|résidence"
)
_FORMS = [
    _Form(  # 12 bis, rue de la Paix, 75002 Paris
        re.compile(rf"(?i)\b(?:{_RUE})\b"),
        re.compile(rf"(?<!\w){_NUMBER},? (?i:{_RUE}) {_NAME}{_BREAK}(?:F-)?{_FIVE} {_CITY}"),
        12,
    ),
    _Form(  # Musterstraße 12a, 10115 Berlin
        re.compile(
            r"(?i)(?:straße|strasse|str\.|weg|platz|allee|gasse|ring|damm|ufer|markt)(?= \d)"
        ),
        re.compile(
            r"(?<!\w)(?:[A-ZÄÖÜ][\w\-]* ){0,2}[A-ZÄÖÜ]?[\w\-]*"
            r"(?i:straße|strasse|str\.|weg|platz|allee|gasse|ring|damm|ufer|markt)"
            rf" {_NUMBER}{_BREAK}(?:D-|A-|CH-)?"
            rf"{_FIVE} {_CITY}"
        ),
        40,
    ),
    _Form(  # Calle de Alcalá 45, 28014 Madrid
        re.compile(r"(?i)\b(?:calle|c/|avenida|avda\.?|plaza|paseo|ronda|camino)\b|C/"),
        re.compile(
            r"(?i:calle|c/|avenida|avda\.?|plaza|paseo|ronda|camino) ?"
            rf"{_NAME},? (?:n\.?º ?)?{_NUMBER}{_BREAK}(?:[^\n\d]{{0,10}}{_BREAK})?{_FIVE} {_CITY}"
        ),
        0,
    ),
    _Form(  # Via Roma 12, 00184 Roma
        re.compile(r"(?i)\b(?:via|viale|piazza|corso|largo|vicolo)\b"),
        re.compile(
            rf"(?i:via|viale|piazza|corso|largo|vicolo) {_NAME},? {_NUMBER}{_BREAK}{_FIVE} {_CITY}"
        ),
        0,
    ),
    _Form(  # Keizersgracht 123, 1015 CJ Amsterdam
        re.compile(r"(?i)(?:straat|weg|laan|plein|gracht|kade|singel|dijk)(?= \d)"),
        re.compile(
            rf"(?<!\w)[^\W\d_][\w.\-]* {_NUMBER}{_BREAK}(?!0000)\d{{4}} ?[A-Z]{{2}} {_CITY}"
        ),
        40,
    ),
    _Form(  # 221B Baker Street, London NW1 6XE
        re.compile(r"(?i)\b(?:street|road|avenue|lane|drive|close|court|gardens|terrace|way)\b"),
        re.compile(
            rf"(?<!\w){_NUMBER} {_NAME},?[ \n](?:[^\W\d_][^\d\n,]{{1,30}},?[ \n])?"
            r"(?!ZZ99)[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2}\b"
        ),
        48,
    ),
]


def find_addresses(text: str) -> Places:
    """Yield postal addresses whose street, number, postcode and city follow each other."""
    for form in _FORMS:
        end = 0
        for word in form.gate.finditer(text):
            start = max(end, word.start() - form.before)
            # The match must hold the word that was found, not only stand near it.
            match = form.whole.search(text, start, word.end() + 110)
            if match and match.start() <= word.start() < match.end():
                end = match.end()
                yield match.span()
