"""Checks: what is wrong with data, for whom, and what repairs it."""

from finetune.checks.checker import Checker
from finetune.checks.fixes import DEFAULT_FIXES, FIXES, find_fixes
from finetune.checks.repair import repair_record
from finetune.checks.report import ChecksFailed, Finding, Report
from finetune.checks.rules import RULES, Rule, find_rule, rules_table
from finetune.checks.validation import Input, validate

__all__ = [
    "DEFAULT_FIXES",
    "FIXES",
    "RULES",
    "Checker",
    "ChecksFailed",
    "Finding",
    "Input",
    "Report",
    "Rule",
    "find_fixes",
    "find_rule",
    "repair_record",
    "rules_table",
    "validate",
]
