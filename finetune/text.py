"""Other people's text: printed without harm, shortened, compared, redacted."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterable, Sequence

# C0 but tab and newline, DEL, C1, and the controls that reorder text on a screen.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_BARS = "▁▂▃▄▅▆▇█"
_KEYS = re.compile(
    r"(?i)\b(?:sk|pk|hf|gh[pousr]|glpat|xox[abpr])[-_][A-Za-z0-9_-]{12,}"
    r"|\bbearer\s+[\x21-\x7e]{8,}"
)


def safe(text: str, limit: int = 500) -> str:
    r"""Return `text` without anything that could move a terminal's cursor or reorder a line.

    Args:
        text: Any text, for example from a record or a server.
        limit: Characters kept; the rest is counted.

    Example:
        >>> safe("a\x1b[2Jb")
        'a[2Jb'
    """
    clean = _UNSAFE.sub("", text)
    return clean if len(clean) <= limit else f"{clean[:limit]}… (+{len(clean) - limit} characters)"


def visible(name: str, limit: int = 80) -> str:
    r"""Return a name such as a column's, what cannot be seen in it written out.

    Example:
        >>> visible("answer\n\u202e")
        'answer\\n\\u202e'
    """
    shown = name.replace("\n", "\\n").replace("\t", "\\t")
    return safe(_UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", shown), limit)


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Replace keys by `***`: those given, and what looks like one.

    Example:
        >>> redact("Authorization: Bearer abcdefgh12345678")
        'Authorization: ***'
    """
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    return _KEYS.sub("***", text)


def money(amount: float, currency: str) -> str:
    """Return a sum for people.

    Example:
        >>> money(8.2, "EUR"), money(0.00312, "EUR")
        ('8.20 EUR', '0.0031 EUR')
    """
    return f"{amount:.2f} {currency}" if amount >= 0.01 else f"{amount:.2g} {currency}"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the one of `known` that `word` was probably meant to be, else None.

    Example:
        >>> nearest("rnk", ["rank", "alpha"])
        'rank'
    """
    matches = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """Return the hint for a word that is not one of `known`.

    Example:
        >>> did_you_mean("sfd", ["sft", "dpo"])
        'did you mean `sft`?'
    """
    match = nearest(word, known)
    return f"did you mean `{match}`?" if match else None


def plural(count: int, noun: str, many: str | None = None) -> str:
    """Return the count with its noun.

    Example:
        >>> plural(1, "record"), plural(2_000, "record")
        ('1 record', '2,000 records')
    """
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"


def size(count: float) -> str:
    """Return a number of bytes for people (1 GB = 10⁹ bytes).

    Example:
        >>> size(1_234_567)
        '1.2 MB'
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float) -> str:
    """Return a duration for people.

    Example:
        >>> duration(3.21), duration(75), duration(7322)
        ('3.2 s', '1 min 15 s', '2 h 2 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def rate(flops: float) -> str:
    """Return floating-point operations a second for people.

    Example:
        >>> rate(98.4e9), rate(312e12)
        ('98.4 GFLOP/s', '312 TFLOP/s')
    """
    unit, name = (1e12, "T") if flops >= 1e12 else (1e9, "G")
    return f"{flops / unit:,.3g} {name}FLOP/s"


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """Return a curve of at most `width` characters; each shows the mean of its stretch.

    Example:
        >>> sparkline([4, 3, 2, 1])
        '█▆▃▁'
    """
    if not values:
        return ""
    count = min(width, len(values))
    edges = [round(index * len(values) / count) for index in range(count + 1)]
    means = [sum(values[start:end]) / (end - start) for start, end in itertools.pairwise(edges)]
    low, high = min(means), max(means)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0
    return "".join(_BARS[round((mean - low) * scale)] for mean in means)
