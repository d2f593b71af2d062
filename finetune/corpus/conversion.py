"""Files → tasks: opened, their format detected, their rows handed out; and `convert_files`."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from finetune.checks import Finding
from finetune.checks.report import Fault
from finetune.checks.targets import Target
from finetune.checks.whole import LabelRules
from finetune.converters import CONVERTERS, Detection, detect, find_converter
from finetune.converters.outward import find_outward
from finetune.corpus.account import Account
from finetune.corpus.chain import Chain, Outcome, Reader, Steps, Task, Work, finding_at
from finetune.corpus.chunks import Cutter
from finetune.corpus.containers import Container, Raw, Row, open_container, open_source
from finetune.corpus.grouping import group_rows
from finetune.corpus.split import Split
from finetune.corpus.workers import Workers
from finetune.errors import DataError, UsageError
from finetune.progress import Progress, silent
from finetune.records import Record
from finetune.text import did_you_mean, safe

_SAMPLE = 100  # rows looked at to tell the format
_PATIENCE = 1000  # rows that may be unreadable before the file is given up
# The bounds of a task; they do not depend on the workers, so that outcomes do not either.
_TASK_BYTES = 2**20
_TASK_ROWS = 500


class Reading(NamedTuple):
    """How a source is to be read, where that was said.

    Attributes:
        format: The converter, else it is detected.
        kind: The kind of record wanted, else what is found.
        columns: Which key of a row holds what.
        system: System prompt for records that have none.
        roles: What the rows call their roles → our roles.
        cutter: Cuts documents into records; None leaves them whole.
        known: Columns with personal data, which the rows must have.
    """

    format: str | None = None
    kind: str | None = None
    columns: Mapping[str, str] = {}
    system: str | None = None
    roles: Mapping[str, str] = {}
    cutter: Cutter | None = None
    known: Sequence[str] = ()


class Conversion:
    """One file on its way: opened, and known how it is read.

    Args:
        file: An open binary stream.
        name: What messages and rejections call the file.
        reading: How it is to be read.
        split: Tells the side of a row.
        folder: For temporary files; the system's where None.

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
        split: Split | None = None,
        folder: Path | None = None,
    ) -> None:
        self.name = name
        if reading.format:
            find_converter(reading.format)
        container = _open(file, name, reading)
        self.container = container.name
        self.has_bom, self.encoding = container.has_bom, container.encoding
        try:
            items, sample = _sample(container)
        except DataError as error:  # the header of a table
            raise DataError(
                error.fact, file=name, line=error.line, rule=error.rule, hint=error.hint
            ) from None
        self.detection = self._detect(sample, reading)
        self._items = self._group(itertools.chain(items, container.items), folder)
        there = {key for row in sample if isinstance(row.value, dict) for key in row.value}
        _check_there("known", reading.known, there, name)
        if split and split.group:
            _check_there("group", [split.group], there, name)
        if split and CONVERTERS[self.detection.format].group:
            split = split.by(self.detection.column("conversation"))
        self.reader = Reader(
            name,
            self.detection,
            reading.system,
            split,
            reading.cutter,
            _folder(file),
            tuple(reading.known),
        )

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
        if self.container == "a text" and not reading.format and reading.kind in (None, "text"):
            return Detection("text", "text", reason="the whole file is one document")
        try:
            return detect(
                values,
                format=reading.format,
                kind=reading.kind,
                columns=reading.columns,
                roles=reading.roles,
            )
        except UsageError as error:
            raise UsageError(f"{self.name}: {error.message}", hint=error.hint) from None

    def _unreadable(self, sample: list[Row]) -> DataError:
        if not sample:
            return DataError("it holds no rows", file=self.name, rule="empty-file")
        first = sample[0].fault or Fault("json", "", "cannot be read")
        return DataError(
            f"none of the first rows ({len(sample):,}) can be read; {first.message}",
            file=self.name,
            line=sample[0].line,
            rule=first.rule,
            hint=f"it was read as {self.container}",
        )

    def _group(self, items: Iterator[Row | Raw], folder: Path | None) -> Iterator[Row | Raw]:
        """Return the rows, those of one conversation as one where each is a message."""
        place = CONVERTERS[self.detection.format].group
        if place is None:
            return items
        rows = (item.parse() if isinstance(item, Raw) else item for item in items)
        return group_rows(rows, lambda value: place(value, self.detection), folder)

    def tasks(self) -> Iterator[Task]:
        """Yield the rows, some at a time."""
        items: list[Row | Raw] = []
        size = rows = 0
        for item in self._items:
            items.append(item)
            if type(item) is Raw:
                size += len(item.data)
            rows += item.rows if type(item) is Row else 1
            if size >= _TASK_BYTES or rows >= _TASK_ROWS:
                yield Task(self.reader, items)
                items, size, rows = [], 0, 0
        if items:
            yield Task(self.reader, items)

    def records(self) -> Iterator[tuple[int, Record | None, list[Finding]]]:
        """Yield line and record of each row, unchecked, or why it gave none."""
        work = Work(self.reader, Chain(Steps()))
        for item in self._items:
            row = item.parse() if isinstance(item, Raw) else item
            records = work.convert(row)
            while work.losses:
                yield row.line, None, [work.losses.pop().finding]
            yield from ((row.line, record, []) for record in records)


def _open(file: io.BufferedIOBase, name: str, reading: Reading) -> Container:
    """Return the rows of a file; where no column was named, documents are whole files."""
    if reading.format == "code" and not reading.columns:
        return open_source(file, name)
    document = reading.format == "text" and not reading.columns
    return open_container(file, name, document=document)


def _folder(file: io.BufferedIOBase) -> Path | None:
    """Return where a file lies, None for pipes and what is inside an archive."""
    on_disk = isinstance(file, io.BufferedReader) and isinstance(file.raw, io.FileIO)
    name = getattr(file, "name", None) if on_disk else None
    return Path(name).parent if isinstance(name, str) else None


def _check_there(field: str, columns: Iterable[str], there: set[str], name: str) -> None:
    for column in columns:
        if column not in there:
            raise UsageError(
                f"{name}: {field}: no column `{safe(column, 80)}`",
                hint=did_you_mean(column, there),
            )


def _sample(container: Container) -> tuple[list[Row | Raw], list[Row]]:
    """Return the first rows, as they were read and parsed.

    They are a hundred, or as many more as it takes to find a readable one.
    """
    items: list[Row | Raw] = []
    rows: list[Row] = []
    while len(rows) < _PATIENCE and all(row.fault for row in rows[-_SAMPLE:]):
        more = list(itertools.islice(container.items, _SAMPLE))
        if not more:
            break
        items += more
        rows += [item.parse() if isinstance(item, Raw) else item for item in more]
    return items, rows


class Across:
    """The rules that only all records together show, applied to outcomes in their order.

    Args:
        target: What the records are checked against.
    """

    def __init__(self, target: Target) -> None:
        self._severities = target.severities
        self._labels = LabelRules()

    def check(self, outcome: Outcome, name: str) -> Outcome:
        """Return an outcome without the records that contradict those before them."""
        account, records, losses = outcome
        if not any(made.labels for made in records):
            return outcome
        kept = []
        for made in records:
            faults = self._labels.check(made.labels) if made.labels else []
            severities = [self._severities.get(fault.rule) for fault in faults]
            if "error" in severities:
                fault = faults[severities.index("error")]
                losses.append(account.lose(finding_at(name, made.row, fault), "check"))
                account.lost_rows += 1
            else:
                kept.append(made)
        return Outcome(account, kept, losses)

    def finish(self) -> list[Fault]:
        """Return what is odd about the labels of all records."""
        return [fault for fault in self._labels.finish() if fault.rule in self._severities]


class Converted(NamedTuple):
    """What `convert_files` tells.

    Attributes:
        account: What became of the rows and records.
        files: Name → how it was read.
        unread: How many files were empty or could not be read at all.
        noted: What is odd about all records together.
    """

    account: Account
    files: dict[str, dict[str, Any]]
    unread: int = 0
    noted: Sequence[Fault] = ()


def convert_files(
    files: Iterable[tuple[str, io.BufferedIOBase]],
    write: Callable[[bytes], None],
    reading: Reading,
    *,
    to: str = "laplateforme",
    target: Target,
    reject: Callable[[Finding], None],
    workers: int = 1,
    progress: Progress = silent,
) -> Converted:
    """Convert files to JSONL, one after another.

    Args:
        files: Name and open stream of each; a stream is closed when it has been read.
        write: Takes the records' lines, some at a time.
        reading: How they are to be read; all give records of one kind.
        to: The format that is written; a record that it cannot hold is rejected.
        target: What the records are checked against; one with an error is left out.
        reject: Told about every row and record that is left out.
        workers: How many processes convert.
        progress: Told about the rows read.

    Raises:
        DataError: Every file is empty or cannot be read at all.
        UsageError: A format is not known, or the files give records of two kinds, or of one that
            the format to write does not have.
        RunError: A worker died.
    """
    account, across = Account(), Across(target)
    facts: dict[str, dict[str, Any]] = {}
    unread: list[DataError] = []
    tasks = _tasks(files, reading, to, facts, unread)
    with Workers(Steps(target, to), workers) as pool:
        for name, outcome in pool.run(tasks):
            done, records, losses = across.check(outcome, name)
            write(b"".join([made.line + b"\n" for made in records]))
            done.records["written"] += len(records)
            account.add(done)
            for loss in losses:
                reject(loss.finding)
            progress("convert", account.rows["read"])
    if unread and not facts:
        raise unread[0]
    for error in unread:
        fault = Fault(error.rule or "json", "", error.fact)
        reject(finding_at(str(error.file), error.line or 0, fault))
    account.close()
    noted = across.finish()
    account.warnings.update(fault.rule for fault in noted)
    return Converted(account, facts, len(unread), noted)


def _tasks(
    files: Iterable[tuple[str, io.BufferedIOBase]],
    reading: Reading,
    to: str,
    facts: dict[str, dict[str, Any]],
    unread: list[DataError],
) -> Iterator[tuple[str, Task]]:
    """Yield the rows of all files; note how each was read, or why it could not be."""
    kind, kinds = reading.kind, find_outward(to).kinds
    for name, stream in files:
        with stream:
            try:
                conversion = Conversion(stream, name, reading._replace(kind=kind))
            except DataError as error:  # the other files are none the worse for it
                unread.append(error)
                continue
            facts[name] = conversion.facts()
            kind = conversion.detection.kind
            if kind not in kinds:
                raise UsageError(
                    f"the format `{to}` holds no {kind} records",
                    hint=f"it holds records of the kinds {', '.join(kinds)}",
                )
            yield from ((name, task) for task in conversion.tasks())
