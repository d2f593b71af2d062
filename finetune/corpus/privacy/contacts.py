"""Where people are found: e-mail and IP addresses, homes, and their dates of birth."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

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


# What stands before four numbers with points that are no address, in the languages of `context`.
_VERSIONS = (
    *("version", "versión", "versione", "versão", "versie", "wersja", "wersji", "wersję"),
    *("release", "build", "firmware", "section", "§"),
)


def find_ipv4(text: str) -> Places:
    """Yield IPv4 addresses that are somebody's; version numbers are left out."""
    for match in _IPV4.finditer(text):
        start = match.start()
        word = text[max(0, start - 12) : start].lower()
        if word.rstrip(" .:").endswith(_VERSIONS):
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
    r"(?i)\b(?:né(?:\(e\)|e|·e)?|ne\(e\)|naissance|geboren|geb\.|geburtsdatum|geburtstag|"
    r"born|birth|birth ?date|d\.?o\.?b\b|nacid[oa]|nacimiento|nat[oa]|nascita|geboortedatum|"
    r"urodzon[ya]|urodzenia|nascid[oa]|nascimento)(?P<gap>[^\n\d!?;]{0,24})\Z"
)
_STEMS = (
    "né",
    "ne(",
    "naiss",
    "geb",
    "bor",
    "birth",
    "dob",
    "d.o.b",
    "nac",
    "nat",
    "nasc",
    "urodz",
)
_DATE = re.compile(
    r"(?i)\d(?<!\w\d)\d?(?:([./\-  ])\d{1,2}\1((?:19|20)\d\d|\d\d)|"
    rf"(?:er|\.|º|st|nd|rd|th)?(?: de)? (?:{_MONTHS})(?: de)? ((?:19|20)\d\d)|"
    r"(?:st|nd|rd|th)?,? ((?:19|20)\d\d))(?!\d)|(?:19|20)\d\d-\d\d-\d\d(?!\d)"
)
_MONTH_FIRST = re.compile(rf"(?i)(?<!\w)(?:{_MONTHS}) \Z")


def find_births(text: str) -> Places:
    """Yield dates that follow a word for birth; the year 1900 stands for nobody's."""
    for match in _DATE.finditer(text):
        start = match.start()
        before = text[max(0, start - 48) : start].lower()
        if not any(stem in before for stem in _STEMS) or "1900" in match[0]:
            continue
        month = _MONTH_FIRST.search(text, max(0, start - 16), start)
        born = _BORN.search(text, max(0, start - 48), start)
        if match[4] and not month:  # `born 12, 1985` is no date
            continue
        if born and not re.search(r"(?<!geb)\.\s", born["gap"]):
            yield (month.start() if month and match[4] else start), match.end()


_NAME = r"[^\W\d_][^\W\d_'’.\-]*(?:[ '’\-.]{1,2}[^\W\d_]+){0,6}"
_BREAK = r"(?:,[ \n]?|[ \n])(?:-[ ])?"
_NUMBER = r"\d{1,4}(?:[ -]?(?:bis|ter|[a-zA-Z]))?"
_POSTCODE = re.compile(  # 75002 · 1015 CJ · the end of NW1 6XE
    r"\d(?:(?<!\d\d)(?:\d{4}(?!\d)|\d{3} ?[A-Z]{2}\b)|[A-Z\d]? \d[A-Z]{2}\b)"
)
_CITY = re.compile(r" [^\W\d_]+(?:[ '’\-][A-ZÉÈÀÂÎÔÄÖÜ][^\W\d_]+){0,3}")
# What stands before a postcode, up to it.
_BEFORE_FIVE = [
    re.compile(  # 12 bis, rue de la Paix, 75002 Paris
        rf"(?<!\w){_NUMBER},? (?i:rue|avenue|av\.|boulevard|bd|place|chemin|allée|impasse|route|"
        rf"quai|cours|square|passage|faubourg|sentier|villa|résidence) {_NAME}{_BREAK}(?:F-)?\Z"
    ),
    re.compile(  # Musterstraße 12a, 10115 Berlin
        r"(?<!\w)(?:[A-ZÄÖÜ][\w\-]* ){0,2}[A-ZÄÖÜ]?[\w\-]{0,40}"
        r"(?:(?i:straße|strasse|str\.|weg|platz|allee|gasse|ring|damm|ufer|markt))"
        rf" {_NUMBER}{_BREAK}(?:D-|A-|CH-)?\Z"
    ),
    re.compile(  # Calle de Alcalá 45, 28014 Madrid · Via Roma 12, 00184 Roma
        r"(?<!\w)(?i:calle|c/|avenida|avda\.?|plaza|paseo|ronda|camino|via|viale|piazza|corso|largo|"
        rf"vicolo) ?{_NAME},? (?:n\.?º ?)?{_NUMBER}{_BREAK}(?:[^\n\d]{{0,10}}{_BREAK})?\Z"
    ),
]
_BEFORE_NL = re.compile(  # Keizersgracht 123, 1015 CJ Amsterdam
    r"(?<!\w)[^\W\d_][\w.\-]{0,40}(?:straat|weg|laan|plein|gracht|kade|singel|dijk)"
    rf" {_NUMBER}{_BREAK}\Z"
)
_BEFORE_GB = re.compile(  # 221B Baker Street, London NW1 6XE
    rf"(?<!\w){_NUMBER} (?P<street>{_NAME}),?[ \n](?:[^\W\d_][^\d\n,]{{1,30}},?[ \n])?"
    r"(?!ZZ)[A-Z]{1,2}\Z"
)
_STREET = re.compile(
    r"(?i)\b(?:street|road|avenue|lane|drive|close|court|gardens|terrace|way|st|rd|ave)\b"
)


def find_addresses(text: str) -> Places:
    """Yield postal addresses whose street, number, postcode and city follow each other."""
    last = 0
    for postcode in _POSTCODE.finditer(text):
        place, code = postcode.start(), postcode[0]
        start = max(last, place - 100)
        last = postcode.end()
        if code[-1].isdigit():
            patterns = _BEFORE_FIVE if code != "00000" else []
        elif code[:4].isdigit():
            patterns = [_BEFORE_NL] if code[:4] != "0000" else []
        else:
            patterns = [_BEFORE_GB]
        head = next((m for one in patterns if (m := one.search(text, start, place))), None)
        if head is None:
            continue
        if patterns[0] is _BEFORE_GB:
            if _STREET.search(head[0]):
                yield head.start(), last
        elif city := _CITY.match(text, last):
            last = city.end()
            yield head.start(), last
