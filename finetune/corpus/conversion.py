"""Rows → records: read, detect, convert, check, and account for each of them."""

from __future__ import annotations

import io
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from finetune.checks import Finding
from finetune.checks.report import Fault
from finetune.converters import (
    CONVERTERS,
    ConvertError,
    Detection,
    LeftOut,
    detect,
    find_converter,
)
from finetune.converters.outward import Outward, find_outward
from finetune.corpus.containers import Container, Row, open_container
from finetune.errors import DataError, UsageError
from finetune.progress import Progress, silent
from finetune.records import (
    ChatRecord,
    ClassifierRecord,
    PreferenceRecord,
    RatingRecord,
    Record,
    SystemMessage,
)
from finetune.text import safe

PROGRESS_ROWS = 1000  # between two calls of progress
_SAMPLE = 100  # rows looked at to tell the format
_PATIENCE = 1000  # rows that may be unreadable before the file is given up


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
        self.lost_rows = 0

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
        return {
            "rows": dict(self.rows),
            "records": dict(self.records),
            "by_rule": dict(sorted(self.by_rule.items())),
            "warnings": dict(sorted(self.warnings.items())),
            "unused": dict(sorted(self.unused.items())),
        }


Check = Callable[[Record, str, int], list[Finding]]


class Reading(NamedTuple):
    """How a source is to be read, where that was said.

    Attributes:
        format: The converter, else it is detected.
        kind: The kind of record wanted, else what is found.
        columns: Which key of a row holds what.
        system: System prompt for records that have none.
        roles: What the rows call their roles → our roles.
    """

    format: str | None = None
    kind: str | None = None
    columns: Mapping[str, str] = {}
    system: str | None = None
    roles: Mapping[str, str] = {}


class Conversion:
    """The records of one file, as they are read.

    Args:
        file: An open binary stream.
        name: What messages and rejections call the file.
        reading: How it is to be read.
        account: Counts what happens.
        make_check: Kind → the check of a record; one with any fault is rejected.
        reject: Told about every row and record that is left out.
        group: A column that the rows must have.

    Raises:
        DataError: It is empty, or none of its first rows can be read.
        UsageError: Its format is not known, or a column is not there.
    """

    def __init__(
        self,
        file: io.BufferedIOBase,
        name: str,
        reading: Reading,
        *,
        account: Account,
        make_check: Callable[[str], Check] | None = None,
        reject: Callable[[Finding], None],
        group: str | None = None,
    ) -> None:
        self.name = name
        self.account = account
        self._reject = reject
        self._system = reading.system
        if reading.format:
            find_converter(reading.format)
        container = open_container(file, name)
        self.container = container.name
        self.has_bom, self.encoding = container.has_bom, container.encoding
        try:
            sample = _sample(container)
        except DataError as error:  # the header of a table
            raise DataError(
                error.fact, file=name, line=error.line, rule=error.rule, hint=error.hint
            ) from None
        self._rows = itertools.chain(sample, container.rows)
        self.detection = self._detect(sample, reading)
        self._check = make_check(self.detection.kind) if make_check else None
        if group and not any(isinstance(r.value, dict) and group in r.value for r in sample):
            raise UsageError(f"{name}: group: no column `{safe(group, 80)}`")

    def facts(self) -> dict[str, Any]:
        """Return how the file is read, for manifests."""
        found = self.detection
        return {
            "container": self.container,
            "format": found.format,
            "kind": found.kind,
            "columns": dict(found.columns),
            "reason": found.reason,
            "encoding": self.encoding,
            "byte_order_mark": self.has_bom,
        }

    def _detect(self, sample: list[Row], reading: Reading) -> Detection:
        values = [row.value for row in sample if row.fault is None]
        if not values:
            raise self._unreadable(sample)
        try:
            found = detect(
                values, format=reading.format, kind=reading.kind, columns=reading.columns
            )
            return found._replace(roles=reading.roles)
        except UsageError as error:
            raise UsageError(f"{self.name}: {error.message}", hint=error.hint) from None

    def _unreadable(self, sample: list[Row]) -> DataError:
        if not sample:
            return DataError("it holds no rows", file=self.name, rule="empty-file")
        first = sample[0].fault or Fault("json", "", "cannot be read")
        return DataError(
            f"none of the first {len(sample):,} rows can be read; {first.message}",
            file=self.name,
            line=sample[0].line,
            rule=first.rule,
            hint=f"it was read as {self.container}",
        )

    def __iter__(self) -> Iterator[tuple[Row, list[Record]]]:
        """Yield every row that gave records, with those that passed the check."""
        convert, detection = CONVERTERS[self.detection.format].convert, self.detection
        used = self._used()
        rows, made = self.account.rows, self.account.records
        for row in self._rows:
            rows["read"] += 1
            if row.fault is not None:
                self._reject_row(row, row.fault)
                continue
            try:
                records = convert(row.value, detection)
            except ConvertError as error:
                fault = Fault(error.rule or "type", error.path or "", error.fact)
                self._reject_row(row, fault, lost=not isinstance(error, LeftOut))
                continue
            rows["converted"] += 1
            made["made"] += len(records)
            if used is not None and not row.value.keys() <= used:
                self.account.unused.update(row.value.keys() - used)
            if self._system:
                for record in records:
                    add_system(record, self._system)
            yield row, self._passing(row, records)

    def _used(self) -> frozenset[str] | None:
        """Return the keys of a row that the converter looks at; None where it is all of them."""
        keys = CONVERTERS[self.detection.format].keys
        return frozenset(column for key in keys for column in self.detection.keys(key)) or None

    def _passing(self, row: Row, records: list[Record]) -> list[Record]:
        if self._check is None:
            return records
        passing, lost = [], False
        for record in records:
            findings = self._check(record, self.name, row.line)
            errors = [finding for finding in findings if finding.severity == "error"]
            for finding in findings:
                if finding.severity == "warning":
                    self.account.warnings[finding.rule] += 1
            if errors:
                lost = True
                self.account.records["rejected"] += 1
                self.account.by_rule[errors[0].rule] += 1
                self._reject(errors[0])
            else:
                passing.append(record)
        self.account.lost_rows += lost
        return passing

    def _reject_row(self, row: Row, fault: Fault, *, lost: bool = True) -> None:
        self.account.rows["rejected"] += 1
        self.account.lost_rows += lost
        self.account.by_rule[fault.rule] += 1
        self._reject(finding_at(self.name, row.line, fault))


def finding_at(file: str, line: int, fault: Fault) -> Finding:
    """Return the error that a fault at a place is."""
    return Finding(file, line, fault.path, fault.rule, "error", fault.message, fixable=False)


def _sample(container: Container) -> list[Row]:
    """Return the first rows: a hundred, or as many more as it takes to find a readable one."""
    sample = list(itertools.islice(container.rows, _SAMPLE))
    while sample and all(row.fault for row in sample[-_SAMPLE:]) and len(sample) < _PATIENCE:
        more = list(itertools.islice(container.rows, _SAMPLE))
        if not more:
            break
        sample += more
    return sample


def add_system(record: Record, text: str) -> None:
    """Put a system message before a conversation that has none, in place."""
    if isinstance(record, ChatRecord | ClassifierRecord):
        messages: Any = record.messages
    elif isinstance(record, PreferenceRecord | RatingRecord):
        messages = record.prompt
    else:
        return
    if isinstance(messages, list) and not any(isinstance(m, SystemMessage) for m in messages):
        messages.insert(0, SystemMessage(content=text))


class Converted(NamedTuple):
    """What `convert_files` tells.

    Attributes:
        account: What became of the rows and records.
        files: Name → how it was read.
    """

    account: Account
    files: dict[str, dict[str, Any]]


def convert_files(
    files: Iterable[tuple[str, io.BufferedIOBase]],
    write: Callable[[bytes], None],
    reading: Reading,
    *,
    to: str = "laplateforme",
    make_check: Callable[[str], Check] | None = None,
    reject: Callable[[Finding], None],
    progress: Progress = silent,
) -> Converted:
    """Convert files to JSONL, one after another.

    Args:
        files: Name and open stream of each; a stream is closed when it has been read.
        write: Takes each record's line.
        reading: How they are to be read; all give records of one kind.
        to: The format that is written; a record that it cannot hold is rejected.
        make_check: Kind → the check of a record.
        reject: Told about every row and record that is left out.
        progress: Told about the rows read.

    Raises:
        DataError: A file is empty or cannot be read at all.
        UsageError: A format is not known, or the files give records of two kinds, or of one that
            the format to write does not have.
    """
    account, facts = Account(), {}
    outward = find_outward(to)
    if to != "laplateforme":
        make_check = _also_fits(to, outward, make_check)
    for name, stream in files:
        with stream:
            conversion = Conversion(
                stream, name, reading, account=account, make_check=make_check, reject=reject
            )
            facts[name] = conversion.facts()
            reading = reading._replace(kind=conversion.detection.kind)
            for _, records in conversion:
                for record in records:
                    write(outward.encode(record) + b"\n")
                account.records["written"] += len(records)
                if account.rows["read"] % PROGRESS_ROWS == 0:
                    progress("convert", account.rows["read"])
    account.close()
    return Converted(account, facts)


def _also_fits(
    to: str, outward: Outward, make_check: Callable[[str], Check] | None
) -> Callable[[str], Check]:
    """Return a check that also finds what the format to write cannot hold."""

    def make(kind: str) -> Check:
        if kind not in outward.kinds:
            raise UsageError(
                f"the format `{to}` holds no {kind} records",
                hint=f"it holds {' and '.join(outward.kinds)} records",
            )
        inner = make_check(kind) if make_check else None

        def check(record: Record, name: str, line: int) -> list[Finding]:
            findings = inner(record, name, line) if inner else []
            try:
                outward.encode(record)
            except ConvertError as error:
                fault = Fault(error.rule or "not-in-format", error.path or "", error.fact)
                findings.append(finding_at(name, line, fault))
            return findings

        return check

    return make
