"""La Plateforme's fine-tuning: limits and what is known of its prices.

From the documentation (2026-08-21) and the last published specification with jobs (2026-07-06).
None of it was checked against the live service.
"""

from __future__ import annotations

from typing import NamedTuple


class Fact(NamedTuple):
    """A dated fact.

    `value` is a number in the unit that `unit` names, or None where nobody published it.
    """

    value: float | None
    unit: str
    text: str
    source: str
    date: str


_DOCS = "Mistral's documentation, fine-tuning pages"
_SPEC = "Mistral's published API specification"

HOST = "api.mistral.ai"

LIMITS: dict[str, Fact] = {
    "training_file": Fact(
        500e6,
        "bytes",
        "largest training file (the specification says 512 MB, the error text 500 MB)",
        _SPEC,
        "2026-07-06",
    ),
    "validation_bytes": Fact(
        1e6,
        "bytes",
        "validation data in total (whether it is enforced is unknown)",
        _DOCS,
        "2026-08-21",
    ),
    "validation_share": Fact(
        0.05, "share", "validation data relative to the training data", _DOCS, "2026-08-21"
    ),
    "suffix": Fact(18, "characters", "longest suffix of a tuned model", _SPEC, "2026-07-06"),
    "seq_len": Fact(100, "tokens", "smallest `seq_len`", _SPEC, "2026-07-06"),
    "file_days": Fact(30, "days", "uploaded files are kept unless deleted", _DOCS, "2026-08-21"),
}

MONEY: dict[str, Fact] = {
    "minimum": Fact(4, "USD", "minimum fee of a job", _DOCS, "2026-08-21"),
    "storage": Fact(2, "USD a month", "storage of one tuned model", _DOCS, "2026-08-21"),
    "training": Fact(
        None, "USD per million tokens", "price of training: not published", _DOCS, "2026-08-21"
    ),
}

PRIVACY: tuple[Fact, ...] = (
    Fact(None, "", "api.mistral.ai commits to no location of the data", _DOCS, "2026-08-21"),
    Fact(
        None,
        "",
        "the hosts of one region, such as api.eu.mistral.ai, take no files: no fine-tuning there",
        _DOCS,
        "2026-08-21",
    ),
    Fact(30, "days", "uploaded files are kept, unless deleted", _DOCS, "2026-08-21"),
    Fact(None, "", "zero data retention never covers files", _DOCS, "2026-08-21"),
    Fact(
        None,
        "",
        "that Mistral may train on your data is a setting of its own, to be switched off there",
        _DOCS,
        "2026-08-21",
    ),
)

# Tokens of one optimizer step as seen in published jobs; the service decides, and says so only
# when it has validated a job.
STEP_TOKENS_SEEN: tuple[int, ...] = (65_536, 131_072)
