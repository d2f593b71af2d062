"""Checks: what is wrong with data, for whom, and what repairs it."""

from finetune.checks.checker import Checker
from finetune.checks.fixes import FIXES
from finetune.checks.report import ChecksFailed, Finding, Report
from finetune.checks.rules import RULES, Rule, find_rule, rules_table
from finetune.checks.validation import Input, validate

__all__ = [
    "FIXES",
    "RULES",
    "Checker",
    "ChecksFailed",
    "Finding",
    "Input",
    "Report",
    "Rule",
    "find_rule",
    "rules_table",
    "validate",
]
