"""The rules: one table of what can be wrong, for whom, and what repairs it.

The table is the only place that says which target a rule holds for: the code that looks for
faults asks the table, it never compares versions.

Sources: La Plateforme's documentation of its fine-tuning data (2026-08); the request validators
and encoders of mistral-common 1.13.1; the data checks of mistral-finetune at `1943535`.
"""

from __future__ import annotations

from finetune.checks.rules.kinds import OTHERS
from finetune.checks.rules.lines import LINES
from finetune.checks.rules.rows import ROWS
from finetune.checks.rules.rule import KINDS, TARGETS, VERSIONS, Rule, Severity
from finetune.checks.rules.texts import TEXTS
from finetune.checks.rules.tools import TOOLS
from finetune.checks.rules.turns import TURNS
from finetune.checks.rules.whole import WHOLE
from finetune.errors import UsageError
from finetune.text import did_you_mean

__all__ = [
    "KINDS",
    "RULES",
    "TARGETS",
    "VERSIONS",
    "Rule",
    "Severity",
    "find_rule",
]

_GROUPS = (ROWS, LINES, TURNS, TOOLS, TEXTS, OTHERS, WHOLE)

RULES: dict[str, Rule] = {rule.name: rule for group in _GROUPS for rule in group}


def find_rule(name: str) -> Rule:
    """Return a rule by its name.

    Raises:
        UsageError: There is no such rule.
    """
    if name not in RULES:
        raise UsageError(f"{name}: no such rule", hint=did_you_mean(name, RULES))
    return RULES[name]
