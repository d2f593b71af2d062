"""Egress: whether a dataset may leave this machine, as its manifest and the recipe say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

_DONE = {
    "off": "were not looked for",
    "report": "found and left as they are",
    "mask": "found and masked",
    "pseudonymize": "found and replaced by pseudonyms",
}


class Egress(NamedTuple):
    """What would leave.

    Attributes:
        fact: What became of the personal data in it, in words.
        allowed: Whether the recipe lets that leave.
    """

    fact: str
    allowed: bool


def judge_egress(personal_data: str, section: Mapping[str, Any] | None) -> Egress:
    """Return what became of personal data, and whether they may leave.

    Args:
        personal_data: The recipe's `egress.personal_data`: `none` lets data leave in which nothing
            was found, `masked` also what was masked or replaced, `any` everything.
        section: `privacy` of the manifest.

    Example:
        >>> judge_egress("none", None)
        Egress(fact='personal data were not looked for', allowed=False)
    """
    mode = section["mode"] if section else "off"
    found = sum(sum(fields.values()) for fields in section["counts"].values()) if section else 0
    fact = "personal data " + (f"({found:,}) " if found else "") + _DONE[mode]
    if section and not found:
        fact = "no personal data found (names were not searched)"
    treated = mode in ("mask", "pseudonymize")
    clean = section is not None and not found
    return Egress(fact, personal_data == "any" or clean or (personal_data == "masked" and treated))


def allows_host(hosts: Sequence[str] | None, host: str) -> bool:
    """Return whether records may go to a host.

    Args:
        hosts: The recipe's `egress.hosts`; None lets them go wherever the recipe names.
        host: With or without a port.

    Example:
        >>> allows_host(["api.mistral.ai"], "api.mistral.ai:443"), allows_host([], "example.org")
        (True, False)
    """
    return hosts is None or host in hosts or host.rpartition(":")[0] in hosts
