"""Rules and fixes in full: for `finetune explain` and the documentation."""

from __future__ import annotations

from finetune.checks.fixes import FIXES
from finetune.checks.rules import RULES, TARGETS, Rule, find_rule
from finetune.checks.rules.notes import NOTES


def explain_rule(name: str) -> dict[str, str]:
    """Return what a rule says, for whom, why, an example, what repairs it and how to ignore it.

    Raises:
        UsageError: There is no such rule.
    """
    rule = find_rule(name)
    facts = {"meaning": rule.summary}
    if not rule.kinds:
        return facts | {"for": "rows and records that are left out, with this as the reason"}
    facts |= {"error for": _places(rule.errors), "warning for": _places(rule.warnings)}
    facts["kinds"] = ", ".join(rule.kinds)
    if note := NOTES.get(name):
        facts |= {"why": f"{note.why} ({note.source})"}
        facts |= {"not": note.before, "but": note.after}
    facts["fix"] = ", ".join(_describe_fix(fix) for fix in rule.fixes)
    facts["ignore"] = _describe_ignoring(rule)
    return {key: fact for key, fact in facts.items() if fact}


def explain_fix(name: str) -> dict[str, str]:
    """Return what a fix does, when it is made, and for which rules."""
    fix = FIXES[name]
    made = f"only where named: `--fix OUT --only {name}`" if fix.asked else "by `--fix OUT`"
    rules = [rule.name for rule in RULES.values() if name in rule.fixes]
    return {
        "meaning": fix.summary,
        "made": f"{made}; in a recipe `data: {{clean: {{fix: [{name}]}}}}`",
        "rules": ", ".join(rules),
    }


def _describe_fix(name: str) -> str:
    return f"`{name}`{' (only where named)' if FIXES[name].asked else ''}"


def _describe_ignoring(rule: Rule) -> str:
    if not rule.warnings:
        return "an error is never ignored"
    errors = "; where it is an error it stays one" if rule.errors else ""
    return f"`data: {{ignore: [{rule.name}]}}` in a recipe{errors}"


def _places(targets: tuple[str, ...]) -> str:
    return "all" if set(targets) == set(TARGETS) else ", ".join(targets)


def rules_page() -> str:
    """Return the tables of rules and fixes and a section for each rule, in Markdown."""
    rows = ["| Rule | Says | Error for | Warning for | Fix |", "|---|---|---|---|---|"]
    sections = []
    for rule in RULES.values():
        places = f"{_places(rule.errors)} | {_places(rule.warnings)}"
        fixes = ", ".join(f"`{name}`" for name in rule.fixes)
        name = f"[`{rule.name}`](#{rule.name})" if rule.kinds else f"`{rule.name}`"
        rows.append(f"| {name} | {rule.summary} | {places if rule.kinds else ' | '} | {fixes} |")
        if rule.kinds:
            sections.append(_section(rule))
    made = ["| Fix | What it does | Made |", "|---|---|---|"]
    for name, fix in FIXES.items():
        when = "only where named" if fix.asked else "by `--fix`"
        made.append(f"| `{name}` | {fix.summary} | {when} |")
    return "\n".join([*rows, "", "## Fixes", "", *made, "", *sections])


def _section(rule: Rule) -> str:
    facts = explain_rule(rule.name)
    code = {"not", "but"}
    lines = [
        f"- {key}: {_code(fact) if key in code else fact}"
        for key, fact in facts.items()
        if key != "meaning"
    ]
    return "\n".join([f"## {rule.name}", "", f"{rule.summary}.", "", *lines, ""])


def _code(text: str) -> str:
    return f"`` {text} ``" if "`" in text else f"`{text}`"
