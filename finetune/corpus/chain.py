"""The chain: raw rows → records that are checked, cleaned and written as lines.

It holds no state from one row to the next, so that the outcome of a row is the same in any
process, whatever came before it. What needs all records is done by those who call it.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from finetune.checks import Checker, Finding
from finetune.checks.fixes import find_fixes
from finetune.checks.repair import repair_record
from finetune.checks.report import Fault
from finetune.checks.targets import Target
from finetune.converters import CONVERTERS, ConvertError, Detection, LeftOut, keys_of
from finetune.converters.images import KEYS as IMAGE_KEYS
from finetune.converters.images import place_images
from finetune.converters.outward import find_outward
from finetune.corpus.account import Account, Loss
from finetune.corpus.chunks import Cutter
from finetune.corpus.clean import Contamination, Filters, sign
from finetune.corpus.containers import Raw, Row
from finetune.corpus.images import load_images
from finetune.corpus.privacy import Exclusions, Mode, Privacy
from finetune.corpus.split import Side, Split
from finetune.errors import DataError
from finetune.records import (
    ChatRecord,
    ClassifierRecord,
    PreferenceRecord,
    RatingRecord,
    Record,
    SystemMessage,
    encode,
)

if TYPE_CHECKING:
    from finetune.recipe.tree import Clean


class Steps(NamedTuple):
    """What is done with every record; plain values, so that they travel to another process.

    Attributes:
        target: What records are checked against; None leaves the check out.
        to: The format that is written; a record that it cannot hold is rejected.
        clean: Fixes, filters, decontamination and the signatures of near duplicates.
        privacy: What is done about personal data, and the key of pseudonyms.
        exclusions: Subjects that no dataset may hold any more.
    """

    target: Target | None = None
    to: str = "laplateforme"
    clean: Clean | None = None
    privacy: tuple[Mode, bytes] | None = None
    exclusions: Exclusions | None = None


class Reader(NamedTuple):
    """How the rows of one file become records.

    Attributes:
        name: What findings call the file.
        detection: How its rows are read.
        system: System prompt for records that have none.
        split: Tells the side of a row; None where there is only one.
        cutter: Cuts documents into records; None leaves them whole.
        folder: Where the file lies, for the images beside it; None where that is nowhere.
        known: Columns with personal data.
    """

    name: str
    detection: Detection
    system: str | None = None
    split: Split | None = None
    cutter: Cutter | None = None
    folder: Path | None = None
    known: tuple[str, ...] = ()


class Task(NamedTuple):
    """Some rows of a file, as they were read."""

    reader: Reader
    items: list[Row | Raw]


class Made(NamedTuple):
    """A record that passed.

    Attributes:
        line: Its JSONL line, without the end.
        row: The line (or number) of its row.
        side: Where its row belongs.
        position: Hash of the row as it was read, or of its group: 64 bits; 0 without a split.
        labels: Those of a classifier's record, whose text is left out.
        signature: Where near duplicates are looked for.
    """

    line: bytes
    row: int
    side: Side = Side.TRAIN
    position: int = 0
    labels: ClassifierRecord | None = None
    signature: bytes | None = None


class Outcome(NamedTuple):
    """What a task gave: records and losses in the order of the rows."""

    account: Account
    records: list[Made]
    losses: list[Loss]


class Chain:
    """Rows → records, for any file.

    Args:
        steps: What is done with each record.

    Raises:
        UsageError: A step names something that is not there.
        MissingExtra: A library that a step needs is not installed.
        DataError: An evaluation file cannot be read.
    """

    def __init__(self, steps: Steps) -> None:
        self.target = steps.target
        self.encode = find_outward(steps.to).encode if steps.to != "laplateforme" else encode
        self.filters = self.contamination = None
        self.fixes = find_fixes(steps.clean.fix) if steps.clean else ()
        self.privacy = Privacy(*steps.privacy) if steps.privacy else None
        self.exclusions = steps.exclusions
        self.signs = bool(steps.clean and steps.clean.deduplicate == "near")
        if steps.clean:
            filters = Filters(steps.clean)
            self.filters = filters if filters.active else None
            if steps.clean.decontaminate:
                self.contamination = Contamination(steps.clean.decontaminate)
        self.checker = functools.cache(self._make_checker)

    def _make_checker(self, kind: str) -> Checker | None:
        return Checker(kind, self.target, across=False) if self.target else None

    def run(self, task: Task) -> Outcome:
        """Return what the rows of a task give."""
        work = Work(task.reader, self)
        for item in task.items:
            work.take(item.parse() if isinstance(item, Raw) else item)
        return work.finish()


class Work:
    """Some rows of one file on their way.

    Args:
        reader: How they become records.
        chain: What is done with each record.
    """

    def __init__(self, reader: Reader, chain: Chain) -> None:
        self.losses: list[Loss] = []
        self._reader = reader
        self._chain = chain
        converter = CONVERTERS[reader.detection.format]
        self._convert, self._unused = converter.convert, converter.unused
        self._checker = chain.checker(reader.detection.kind)
        used = keys_of(reader.detection)
        self._used = used and used | {*reader.known}  # none: all of them
        self._shapes: Counter[tuple[str, ...]] = Counter()
        self._account = Account()
        self._made: list[Made] = []
        self._signed: list[Record] = []

    def take(self, row: Row) -> None:
        """Convert a row, and keep those of its records that pass."""
        reader = self._reader
        records = self.convert(row)
        side, position = Side.TRAIN, 0
        if reader.split and records:
            position = reader.split.position(row.value)
            side = reader.split.side_at(position)
        rejected = self._account.records["rejected"]
        for record in records:
            passed = self._pass(record, row, side)
            line = None if passed is None else self._encode(passed, row)
            if passed is not None and line is not None:
                self._made.append(Made(line, row.line, side, position, without_text(passed)))
                if self._chain.signs:
                    self._signed.append(passed)
        self._account.lost_rows += self._account.records["rejected"] > rejected

    def convert(self, row: Row) -> list[Record]:
        """Return the records of a row, unchecked; where there are none, `losses` says why."""
        account, reader = self._account, self._reader
        account.rows["read"] += row.rows
        fault, counts = row.fault, True
        if fault is None:
            try:
                records = self._convert(row.value, reader.detection)
                has_images = place_images(row.value, records)
                records = self._complete(records)
            except DataError as error:
                fault = Fault(error.rule or "type", error.path or "", error.fact)
                counts = not isinstance(error, LeftOut)
            else:
                account.rows["converted"] += row.rows
                account.records["made"] += len(records)
                self._note_keys(row.value, IMAGE_KEYS if has_images else ())
                return records
        finding = finding_at(reader.name, row.line, fault)
        self.losses.append(account.lose_row(finding, rows=row.rows, counts=counts))
        return []

    def _complete(self, records: list[Record]) -> list[Record]:
        """Return records cut, with their images and the system prompt of their source."""
        reader = self._reader
        if reader.cutter:
            records = [piece for record in records for piece in reader.cutter.cut(record)]
        for record in records:
            load_images(record, reader.folder)
            if reader.system:
                add_system(record, reader.system)
        return records

    def _note_keys(self, value: Any, taken: tuple[str, ...]) -> None:
        """Remember what a row holds, but for what was `taken`; `finish` tells what is not used."""
        if self._used:
            for row in value if isinstance(value, list) else (value,):
                self._shapes[tuple(row.keys() - taken if taken else row)] += 1
        if self._unused:
            unused = self._account.unused
            for key in self._unused(value, self._reader.detection):
                unused[key] += 1

    def _pass(self, record: Record, row: Row, side: Side) -> Record | None:
        """Return a record, changed where it must be, or None where it is left out."""
        chain = self._chain
        if self._checker:
            findings = self._checker.check_record(record, self._reader.name, row.line)
            if findings and chain.fixes:
                record, findings = self._fix(record, findings)
            if findings and not self._stands(findings):
                return None
        known = list(self._known(row.value)) if self._reader.known else []
        if chain.exclusions and chain.exclusions.holds(record, known):
            self._lose(row, "excluded", "exclusion")
            return None
        if chain.filters and (rule := chain.filters.reason(record)):
            self._lose(row, rule, "filter")
            return None
        if chain.contamination and side is Side.TRAIN:
            item = chain.contamination.find(record)
            if item:
                self._lose(row, "contaminated", "contamination", evaluation=item)
                return None
        if chain.privacy:
            self._account.privacy.update(chain.privacy.apply(record, known))
        return record

    def _encode(self, record: Record, row: Row) -> bytes | None:
        try:
            return self._chain.encode(record)
        except ConvertError as error:
            fault = Fault(error.rule or "not-in-format", error.path or "", error.fact)
            finding = finding_at(self._reader.name, row.line, fault)
            self.losses.append(self._account.lose(finding, "check"))
            return None

    def _fix(self, record: Record, findings: list[Finding]) -> tuple[Record, list[Finding]]:
        """Return a record without what the recipe's fixes mend, and the findings that stay."""
        assert self._checker  # noqa: S101 (there are findings)
        record, left, done = repair_record(self._checker, record, findings, self._chain.fixes)
        for name in sorted(done):
            self._account.note_fix(name, f"{findings[0].file}:{findings[0].line}")
        return record, left

    def _stands(self, findings: list[Finding]) -> bool:
        """Take note of findings; tell whether none is an error."""
        errors = [finding for finding in findings if finding.severity == "error"]
        for finding in findings:
            if finding.severity == "warning":
                self._account.warnings[finding.rule] += 1
        if errors:
            self.losses.append(self._account.lose(errors[0], "check"))
        return not errors

    def _known(self, value: Any) -> Iterator[Any]:
        """Yield what the known columns of a row hold, or of all rows of a conversation."""
        for row in value if isinstance(value, list) else (value,):
            if isinstance(row, dict):
                yield from (row[name] for name in self._reader.known if name in row)

    def _lose(self, row: Row, rule: str, step: str, *, evaluation: str | None = None) -> None:
        finding = finding_at(self._reader.name, row.line, Fault(rule, "", ""))
        loss = self._account.lose(finding, step)
        self.losses.append(loss._replace(evaluation=evaluation))

    def finish(self) -> Outcome:
        """Return what there is."""
        account, chain = self._account, self._chain
        for shape, count in self._shapes.items():
            account.unused.update(dict.fromkeys(set(shape) - self._used, count))
        if chain.filters:
            account.languages.update(chain.filters.languages)
            chain.filters.languages.clear()
        if chain.contamination:
            account.contamination = chain.contamination.facts
        made = self._made
        if self._signed:
            signatures = sign(self._signed)
            made = [
                one._replace(signature=signature)
                for one, signature in zip(made, signatures, strict=True)
            ]
        return Outcome(account, made, self.losses)


def finding_at(file: str, line: int, fault: Fault) -> Finding:
    """Return the error that a fault at a place is."""
    return Finding(file, line, fault.path, fault.rule, "error", fault.message, fixable=False)


def without_text(record: Record) -> ClassifierRecord | None:
    """Return a classifier's record without its text: what the rules across records look at."""
    if not isinstance(record, ClassifierRecord):
        return None
    if isinstance(record.text, str):
        return ClassifierRecord(text="", labels=record.labels)
    return ClassifierRecord(messages=[], labels=record.labels)


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
