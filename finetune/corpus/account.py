"""The account: what became of every row and record, and why."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

from finetune.checks.report import Finding
from finetune.corpus.privacy import mask_name

MAX_PLACES = 20  # places kept of each fix

# What takes records away, in the order in which it happens.
STEPS = (
    "check",
    "exclusion",
    "filter",
    "contamination",
    "duplicate",
    "near-duplicate",
    "limit",
    "balance",
)


class Loss(NamedTuple):
    """A row or record that was left out.

    Attributes:
        finding: Where, and by which rule.
        step: Of STEPS; "row" where the row gave no record.
        kept: Source, file and line of the record that stays in its place, if there is one.
        evaluation: The evaluation item that it repeats, as `file:line`.
    """

    finding: Finding
    step: str
    kept: tuple[str, str, int] | None = None
    evaluation: str | None = None


class Account:
    """What became of the rows and records.

    `read = converted + rejected` holds for rows, `made = written + rejected + removed` for
    records; `close` makes sure of it.
    """

    def __init__(self) -> None:
        self.rows: Counter[str] = Counter(read=0, converted=0, rejected=0)
        self.records: Counter[str] = Counter(made=0, written=0, rejected=0, removed=0)
        self.by_rule: Counter[str] = Counter()
        self.warnings: Counter[str] = Counter()
        self.unused: Counter[str] = Counter()
        self.fixes: Counter[str] = Counter()
        self.fixed: dict[str, list[str]] = {}
        self.privacy: Counter[tuple[str, str]] = Counter()
        self.languages: Counter[str] = Counter()
        self.contamination: dict[str, dict[str, int]] = {}
        self.steps: Counter[tuple[str, str]] = Counter()
        self.lost_rows = 0
        self.left_out = 0

    def lose_row(self, finding: Finding, *, rows: int = 1, counts: bool = True) -> Loss:
        """Take note of a row that gave no record.

        Args:
            finding: Why.
            rows: How many rows of the file it stands for.
            counts: It is a fault of the corpus, which `data.max_rejected` limits.
        """
        self.rows["rejected"] += rows
        self.by_rule[finding.rule] += rows
        if counts:
            self.lost_rows += rows
        else:
            self.left_out += rows
        return Loss(finding, "row")

    def lose(self, finding: Finding, step: str, kept: tuple[str, str, int] | None = None) -> Loss:
        """Take note of a record that is left out."""
        self.records["rejected" if step == "check" else "removed"] += 1
        self.by_rule[finding.rule] += 1
        self.steps[step, finding.rule] += 1
        return Loss(finding, step, kept)

    def note_fix(self, name: str, place: str) -> None:
        """Take note that a fix changed a record."""
        self.fixes[name] += 1
        places = self.fixed.setdefault(name, [])
        if len(places) < MAX_PLACES:
            places.append(place)

    def add(self, other: Account) -> None:
        """Add what happened to later rows."""
        for mine, more in (
            (self.rows, other.rows),
            (self.records, other.records),
            (self.by_rule, other.by_rule),
            (self.warnings, other.warnings),
            (self.unused, other.unused),
            (self.fixes, other.fixes),
            (self.languages, other.languages),
        ):
            mine.update(more)
        self.steps.update(other.steps)
        self.privacy.update(other.privacy)
        self.contamination.update(other.contamination)
        for name, places in other.fixed.items():
            kept = self.fixed.setdefault(name, [])
            kept += places[: MAX_PLACES - len(kept)]
        self.lost_rows += other.lost_rows
        self.left_out += other.left_out

    def close(self) -> None:
        """Check both equations.

        Raises:
            AssertionError: A row or record is not accounted for, which is a fault of ours.
        """
        rows, records = self.rows, self.records
        if rows["read"] != rows["converted"] + rows["rejected"]:
            raise AssertionError("a row is not accounted for")
        if records["made"] != records["written"] + records["rejected"] + records["removed"]:
            raise AssertionError("a record is not accounted for")

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain values, names in order."""
        unused: Counter[str] = Counter()
        for name, count in self.unused.items():
            unused[mask_name(name)] += count
        return {
            "rows": dict(self.rows),
            "records": dict(self.records),
            "by_rule": dict(sorted(self.by_rule.items())),
            "warnings": dict(sorted(self.warnings.items())),
            "fixes": {
                name: {"records": count, "places": self.fixed[name]}
                for name, count in sorted(self.fixes.items())
            },
            "unused": dict(sorted(unused.items())),
            **({"languages": dict(sorted(self.languages.items()))} if self.languages else {}),
            **({"contamination": self.contamination} if self.contamination else {}),
        }

    def waterfall(self) -> list[dict[str, Any]]:
        """Return what took records away, in the order of the steps, and how many were left."""
        left, steps = self.records["made"], []
        for (step, rule), records in sorted(
            self.steps.items(), key=lambda item: (STEPS.index(item[0][0]), item[0][1])
        ):
            left -= records
            steps.append({"step": step, "rule": rule, "records": records, "left": left})
        return steps
