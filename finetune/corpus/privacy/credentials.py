"""Keys, tokens and passwords: known prefixes, and enough entropy to be none by accident."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator

_BLOCK = re.compile(r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY(?: BLOCK)?-----")
_BLOCK_END = re.compile(r"-----END [A-Z ]{0,20}PRIVATE KEY(?: BLOCK)?-----")
# Prefixes as their issuers document them (2025).
_TOKEN = re.compile(
    r"(?:sk-|pk-|[srp]k_(?:live|test)_|whsec_|gh[pousr]_|github_pat_|glpat-|xox[abeprs]-|hf_|npm_|"
    r"pypi-|AKIA|ASIA|AIza|ya29\.|SG\.|dop_v1_|shpat_|dckr_pat_|lin_api_|sntrys_|figd_|rk_|key-|"
    r"AGE-SECRET-KEY-|eyJ)[A-Za-z0-9_\-.+/=]{12,4000}"
)
_PREFIXES = (
    "sk-", "pk-", "k_live_", "k_test_", "whsec_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_",
    "github_pat_", "glpat-", "xox", "hf_", "npm_", "pypi-", "AKIA", "ASIA", "AIza", "ya29.", "SG.",
    "dop_v1_", "shpat_", "dckr_pat_", "lin_api_", "sntrys_", "figd_", "rk_", "key-", "AGE-SECRET",
    "eyJ",
)  # fmt: skip
_URL = re.compile(r"://[^\s:/@?#]{0,64}:(?!\[SECRET\])([^\s/@]{3,128})@")
_ASSIGNED = re.compile(
    r"(?i)(?:password|passwd|pwd|secret|api[_-]?key|access[_-]?key|auth[_-]?token|token|"
    r"mot de passe|passwort|kennwort|contraseña|wachtwoord|hasło)"
    r"[\"']?[ \t]{0,4}(?:=|:|=>|lautet|ist|est)[ \t]{0,4}[\"']?([^\s\"',;<>\[\]]{8,200})"
)
_WORDS = (
    "passw", "pwd", "secret", "key", "token", "mot de passe", "kennwort", "contraseña",
    "wachtwoord", "hasło", "bearer",
)  # fmt: skip
_BEARER = re.compile(r"(?i)\bbearer[ \t]{1,4}([A-Za-z0-9_\-.+/=]{16,4000})")


def find_secrets(text: str) -> Iterator[tuple[int, int]]:
    """Yield private key blocks, tokens of known issuers, and passwords where they are given."""
    # A look for plain words is many times faster than the patterns.
    if "-----BEGIN" in text:
        yield from _find_blocks(text)
    if any(prefix in text for prefix in _PREFIXES):
        for match in _TOKEN.finditer(text):
            before = text[match.start() - 1 : match.start()]
            token = match[0].rstrip(".=-")
            if not before.isalnum() and _is_random(token[3:]):
                yield match.start(), match.start() + len(token)
    if "://" in text and "@" in text:
        for match in _URL.finditer(text):
            yield match.span(1)
    lower = text.lower()
    if any(word in lower for word in _WORDS):
        for match in itertools.chain(_ASSIGNED.finditer(text), _BEARER.finditer(text)):
            if _is_random(match[1]):
                yield match.span(1)


def _find_blocks(text: str) -> Iterator[tuple[int, int]]:
    position = 0
    while match := _BLOCK.search(text, position):
        end = _BLOCK_END.search(text, match.end())
        position = end.end() if end else len(text)
        yield match.start(), position


def _is_random(token: str) -> bool:
    """Tell whether a token has digits and letters and at least 2.5 bits a character."""
    if not (any(map(str.isdigit, token)) and any(map(str.isalpha, token))):
        return False
    size = len(token)
    return -sum(n / size * math.log2(n / size) for n in Counter(token).values()) >= 2.5
