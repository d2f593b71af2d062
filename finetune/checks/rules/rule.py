"""What a rule is, and the targets and kinds it can name."""

from __future__ import annotations

from typing import Literal, NamedTuple

Severity = Literal["error", "warning"]

VERSIONS = ("v1", "v2", "v3", "v7", "v11", "v13", "v15")
TARGETS = ("platform", *VERSIONS, "hf")
KINDS = ("chat", "text", "classifier", "preference", "rating")
TALKS = ("chat", "classifier", "preference", "rating")
TRAINED = ("chat", "preference", "rating")
WITH_IDS = ("platform", "v3", "v7", "v11", "v13", "v15")
BY_ID = ("platform", "v11", "v13", "v15")


class Rule(NamedTuple):
    """One thing that can be wrong.

    `errors` and `warnings` name the targets for which it is one; `fixes` are names of FIXES. A rule
    without `kinds` says why a raw row is left out.
    """

    name: str
    summary: str
    errors: tuple[str, ...] = TARGETS
    warnings: tuple[str, ...] = ()
    kinds: tuple[str, ...] = KINDS
    fixes: tuple[str, ...] = ()

    def severity(self, target: str) -> Severity | None:
        """Return how bad it is for a target, or None where the rule does not hold."""
        if target in self.errors:
            return "error"
        return "warning" if target in self.warnings else None
