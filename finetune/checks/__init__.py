"""Checks: what is wrong with data, for whom, and what repairs it."""

from finetune.checks.checker import Checker
from finetune.checks.explanations import explain_fix, explain_rule, rules_page
from finetune.checks.fixes import DEFAULT_FIXES, FIXES, find_fixes
from finetune.checks.repair import repair_record
from finetune.checks.report import ChecksFailed, Finding, Report
from finetune.checks.rules import RULES, Rule, find_rule
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
    "explain_fix",
    "explain_rule",
    "find_fixes",
    "find_rule",
    "repair_record",
    "rules_page",
    "validate",
]
