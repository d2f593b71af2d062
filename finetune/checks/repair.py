"""A line or record without what its findings name."""

from __future__ import annotations

import codecs
from collections.abc import Collection, Iterable

import msgspec

from finetune import records
from finetune.checks.checker import Checker
from finetune.checks.fixes import DEFAULT_FIXES, FIXES, apply_fixes
from finetune.checks.lines import read_value
from finetune.checks.report import Finding
from finetune.checks.rules import RULES
from finetune.records import Record

_MAX_PASSES = 4  # a fix can make room for another, such as neighbours after a system message
# What reading such a line loses cannot be brought back by writing it again.
_LOSSY = {"duplicate-key", "nan", "number", "surrogate"}


def wanted_fixes(findings: Iterable[Finding], names: Collection[str]) -> list[str]:
    """Return those of the named fixes that the findings' rules name, in the order of FIXES."""
    offered = {fix for finding in findings for fix in RULES[finding.rule].fixes}
    return [name for name in FIXES if name in offered and name in names]


def repair(
    checker: Checker,
    data: bytes,
    findings: list[Finding],
    names: Collection[str] = DEFAULT_FIXES,
) -> tuple[bytes | None, set[str]]:
    """Return the line without what its findings name, and the fixes that did it.

    The line is None where an error stays, and empty where the line itself is to be left out.

    Args:
        checker: Checks what comes out.
        data: The line.
        findings: Its findings.
        names: The fixes that may be made.
    """
    done: set[str] = set()
    for _ in range(_MAX_PASSES):
        rules = {finding.rule for finding in findings}
        wanted = [name for name in wanted_fixes(findings, names) if name != "unix-lines"]
        if "drop-blank-lines" in wanted:
            return b"", {"drop-blank-lines"}
        value, _ = read_value(data)
        if not wanted or value is None or rules & _LOSSY:
            break
        if "bom" in rules and "strip-bom" not in wanted:
            break  # writing the record anew would take it off unasked
        used = apply_fixes(value, wanted)
        if used:
            data = msgspec.json.encode(value)
        if "strip-bom" in wanted:
            data = data.removeprefix(codecs.BOM_UTF8)
            used.add("strip-bom")
        if not used:
            break
        done |= used
        findings = checker.check_again(data)
    if any(finding.severity == "error" for finding in findings):
        return None, done
    return data, done


def repair_record(
    checker: Checker, record: Record, findings: list[Finding], names: Collection[str]
) -> tuple[Record, list[Finding], set[str]]:
    """Return a record without what its findings name, the findings that stay, and the fixes made.

    A record that no fix changed is returned as it is, with its findings.

    Args:
        checker: Checks what comes out.
        record: The record.
        findings: Its findings.
        names: The fixes that may be made.
    """
    done: set[str] = set()
    for _ in range(_MAX_PASSES):
        wanted = wanted_fixes(findings, names)
        if not wanted:
            break
        value = msgspec.json.decode(records.encode(record))
        used = apply_fixes(value, wanted)
        if not used:
            break
        done |= used
        record = records.from_object(checker.kind, value)
        findings = checker.check_repaired(record, findings[0].file, findings[0].line)
        if not findings:
            break
    return record, findings, done
