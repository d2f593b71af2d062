"""Findings and their sum."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal, NamedTuple

from msgspec import Struct, field

from finetune.errors import DataError
from finetune.text import plural, visible

MAX_SHOWN = 20  # findings kept of each rule, in memory and on a terminal
_LONG = 500  # characters shown of a file or a path


class Fault(NamedTuple):
    """A fault before it has a file and a line."""

    rule: str
    path: str
    message: str


class Finding(Struct, frozen=True):
    """One fault of one record: where, which rule, in words without the record's content.

    `line` counts from 1, or is the record's number in formats without lines; 0 means the file.
    """

    file: str
    line: int
    path: str
    rule: str
    severity: Literal["error", "warning"]
    message: str
    fixable: bool

    def __str__(self) -> str:
        file = visible(self.file, _LONG)
        place = f"{file}:{self.line}" if self.line else file
        where = f"{visible(self.path, _LONG)}: " if self.path else ""
        mark = "" if self.severity == "error" else "warning: "
        return f"{place}: {mark}{where}{self.message}  [{self.rule}]"


class ChecksFailed(DataError):
    """Data broke rules; `report` says which."""

    def __init__(self, message: str, *, report: Report, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.report = report


class Report(Struct):
    """What a check found, in bounded memory.

    `records` counts the lines or records looked at, `valid` those without an error. `by_rule`
    counts findings; `shown` keeps the first of each rule. `tokens` and `trained_tokens` are None
    without a tokenizer. `fixes` counts the records that a fix changed, or would change in a copy;
    `written` and `left_out` those that went into the repaired copy or could not.
    """

    records: int = 0
    valid: int = 0
    invalid: int = 0
    tokens: int | None = None
    trained_tokens: int | None = None
    by_rule: dict[str, int] = field(default_factory=Counter)
    shown: dict[str, list[Finding]] = field(default_factory=dict)
    errors: int = 0
    warnings: int = 0
    fixes: dict[str, int] = field(default_factory=Counter)
    fixed_lines: dict[str, list[int]] = field(default_factory=dict)
    written: int = 0
    left_out: int = 0

    def add(self, findings: list[Finding]) -> None:
        """Take note of findings."""
        for finding in findings:
            self.by_rule[finding.rule] = self.by_rule.get(finding.rule, 0) + 1
            if finding.severity == "error":
                self.errors += 1
            else:
                self.warnings += 1
            kept = self.shown.setdefault(finding.rule, [])
            if len(kept) < MAX_SHOWN:
                kept.append(finding)

    def add_fix(self, name: str, line: int) -> None:
        """Take note that a fix changed a record."""
        self.fixes[name] = self.fixes.get(name, 0) + 1
        lines = self.fixed_lines.setdefault(name, [])
        if len(lines) < MAX_SHOWN:
            lines.append(line)

    @property
    def findings(self) -> list[Finding]:
        """The findings that were kept, in the order of their files and lines."""
        return [finding for kept in self.shown.values() for finding in kept]

    def summary(self) -> dict[str, Any]:
        """Return the counts, as `validate --json` ends with."""
        counts: dict[str, Any] = {
            "records": self.records,
            "valid": self.valid,
            "invalid": self.invalid,
            "tokens": self.tokens,
            "trained_tokens": self.trained_tokens,
        }
        if self.written or self.left_out:
            counts |= {"written": self.written, "left_out": self.left_out}
        if self.fixes:
            counts["fixes"] = self.fixes
        return counts

    def raise_for_errors(self) -> None:
        """Do nothing if there is no error.

        Raises:
            ChecksFailed: There is one; the message names the first and counts the rest.
        """
        if not self.errors:
            return
        first = next(finding for finding in self.findings if finding.severity == "error")
        rest = plural(self.errors, "error")
        raise ChecksFailed(
            f"{first} ({rest} in {self.invalid:,} of {plural(self.records, 'record')})",
            report=self,
            hint=f"`finetune explain {first.rule}` says more",
        )
