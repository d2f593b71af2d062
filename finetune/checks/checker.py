"""The checker: from a line to a record and its findings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from finetune import records
from finetune.checks.kinds import KindRules
from finetune.checks.lines import has_duplicate_keys, read_value
from finetune.checks.report import Fault, Finding
from finetune.checks.rules import RULES
from finetune.checks.screen import Screen
from finetune.checks.targets import Target, find_target
from finetune.checks.texts import TextRules
from finetune.checks.whole import LabelRules, LengthRules, RatingRules
from finetune.errors import DataError, UsageError
from finetune.records import ClassifierRecord, RatingRecord, Record
from finetune.text import did_you_mean

if TYPE_CHECKING:
    from finetune.tokens import Tokenizer

# What msgspec raises for a line it cannot take (ValidationError is a DecodeError).
_REFUSED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Checker:
    """Checks lines or records of one kind for one target.

    A clean line costs one decoding and one pass over its messages. A line that does not decode is
    read again to name all its faults.

    Args:
        kind: The kind of the records.
        target: `platform`, `v1` … `v15`, `hf`, a model, or its tokenizer file or folder.
        tokenizer: Counts tokens when given: `count` adds those of the records checked since the
            last call to `tokens` and `trained_tokens`.
        ignore: Rules whose warnings are left out.
        across: Also hold the records against each other, such as the labels of a classifier.

    Raises:
        UsageError: There is no such kind, target or rule.
    """

    def __init__(
        self,
        kind: str,
        target: str | Target = "platform",
        tokenizer: Tokenizer | None = None,
        ignore: Iterable[str] = (),
        *,
        across: bool = True,
    ) -> None:
        if kind not in records.KINDS:
            raise UsageError(
                f"{kind}: no such kind of record",
                hint=did_you_mean(kind, records.KINDS) or f"kinds are {', '.join(records.KINDS)}",
            )
        self.kind = kind
        self.target = find_target(target, frozenset(ignore)) if isinstance(target, str) else target
        self.tokens = 0
        self.trained_tokens = 0
        self._tokenizer = tokenizer
        self._uncounted: list[tuple[Record, str, int]] = []
        self._decode = records.decoder(kind).decode
        self._rules = KindRules(self.target)
        self._texts = TextRules()
        self._screen = Screen() if kind == "chat" else None
        self._labels = LabelRules() if across and kind == "classifier" else None
        self._ratings = RatingRules() if across and kind == "rating" else None
        self._lengths = LengthRules()

    def check_line(
        self, data: bytes | None, file: str, number: int
    ) -> tuple[Record | None, list[Finding]]:
        """Return a line's record, if it is one, and its findings.

        Args:
            data: The line without its end; None where it was too long to be kept.
            file: Where it was read, for the findings.
            number: Its number, from 1.
        """
        try:
            record = self._decode(data or b"")
        except _REFUSED:
            return None, self.find(self._explain(data), file, number)
        line = data or b""
        if self._screen:
            answers = self._screen.measure_clean(record, line)  # type: ignore[arg-type]
            if answers is not None:
                self._lengths.add(answers, number)
                return record, self._settle(record, [], file, number) if self._tokenizer else []
        faults = self._judge(record, number)
        if has_duplicate_keys(line, record):
            faults.append(Fault("duplicate-key", "", "a key stands twice in one object"))
        if faults or self._tokenizer:
            return record, self._settle(record, faults, file, number)
        return record, []

    def check_record(self, record: Record, file: str, number: int) -> list[Finding]:
        """Return the findings of a record that is already typed."""
        faults = self._judge(record, number)
        return self._settle(record, faults, file, number) if faults or self._tokenizer else []

    def _judge(self, record: Record, number: int) -> list[Fault]:
        """Return a record's faults, and take note of it for those of the file."""
        faults = self._rules.check(record)
        faults += self._texts.check(record)
        self._lengths.add(self._texts.characters, number)
        if self._labels and isinstance(record, ClassifierRecord):
            faults += self._labels.check(record)
        if self._ratings and isinstance(record, RatingRecord):
            self._ratings.add(good=record.label)
        return faults

    def _settle(self, record: Record, faults: list[Fault], file: str, number: int) -> list[Finding]:
        findings = self.find(faults, file, number) if faults else []
        if self._tokenizer and not any(finding.severity == "error" for finding in findings):
            self._uncounted.append((record, file, number))
        return findings

    def count(self) -> list[Finding]:
        """Count the tokens of the records checked since the last call.

        Returns:
            A finding for each record that the tokenizer cannot encode.
        """
        waiting, self._uncounted = self._uncounted, []
        if not waiting or self._tokenizer is None:
            return []
        findings = []
        counts = self._tokenizer.count_many([record for record, _, _ in waiting])
        for (_, file, number), count in zip(waiting, counts, strict=True):
            if isinstance(count, DataError):
                path, rule = count.path or "", count.rule or "schema"
                finding = Finding(file, number, path, rule, "error", count.fact, fixable=False)
                findings.append(finding)
            else:
                self.tokens += count[0]
                self.trained_tokens += count[1]
        return findings

    def check_again(self, data: bytes) -> list[Finding]:
        """Return the findings of a repaired line, without counting it."""
        try:
            record = self._decode(data)
        except _REFUSED:
            return self.find(self._explain(data), "", 0)
        return self.check_repaired(record, "", 0)

    def check_repaired(self, record: Record, file: str, number: int) -> list[Finding]:
        """Return the findings of a repaired record, without counting it."""
        faults = self._rules.check(record) + self._texts.check(record)
        return self.find(faults, file, number)

    def finish(self, file: str) -> list[Finding]:
        """Return the findings on the records as a whole."""
        faults = self._rules.finish()
        faults += self._labels.finish() if self._labels else []
        faults += self._ratings.finish() if self._ratings else []
        return self.find(faults, file, 0) + [
            finding
            for number, fault in self._lengths.finish()
            for finding in self.find([fault], file, number)
        ]

    def find(self, faults: list[Fault], file: str, number: int) -> list[Finding]:
        """Return the findings that faults are: those of the rules in force."""
        severities = self.target.severities
        return [
            Finding(
                file=file,
                line=number,
                path=fault.path,
                rule=fault.rule,
                severity=severities[fault.rule],
                message=fault.message,
                fixable=bool(RULES[fault.rule].fixes),
            )
            for fault in faults
            if fault.rule in severities
        ]

    def _explain(self, data: bytes | None) -> list[Fault]:
        """Return all faults of a line that did not decode."""
        from finetune.checks.structure import explain_structure

        value, faults = read_value(data)
        if value is not None:
            faults += explain_structure(self.kind, value)
            record = _read_rest(self.kind, value)
            if record is not None:
                faults += self._rules.check(record)
        return faults or [Fault("json", "", "not JSON that every reader takes")]


def _read_rest(kind: str, value: Any) -> Record | None:
    """Return the record that is there when unknown and broken optional keys are taken out.

    So that one look names the faults of the shape and those of the turns. Never used otherwise.
    """
    from finetune.checks.structure import known_part

    try:
        return records.from_object(kind, known_part(kind, value))
    except (msgspec.ValidationError, RecursionError):
        return None
