"""Whole files checked, and repaired copies of them written."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from finetune import records
from finetune.checks.beside import Beside, check_training_size
from finetune.checks.checker import Checker
from finetune.checks.fixes import DEFAULT_FIXES, find_fixes
from finetune.checks.lines import read_value
from finetune.checks.repair import repair
from finetune.checks.report import Fault, Finding, Report
from finetune.checks.targets import Target, find_target
from finetune.errors import DataError, UsageError
from finetune.files import AtomicFile, Damaged, open_bytes, read_lines
from finetune.progress import Progress, silent

if TYPE_CHECKING:
    from finetune.tokens import Tokenizer

_EVERY = 25_600  # lines between two calls of `progress`
_BATCH = 256  # records counted at once


class Input(NamedTuple):
    """A file, or the records that were made of one in memory.

    `kind` is found from the first record where it is None. `made` gives number and record of
    what was converted, or the findings of a row that was not; a JSONL file needs none.
    """

    path: Path
    kind: str | None = None
    made: Iterable[tuple[int, records.Record | None, list[Finding]]] | None = None


def validate(
    files: Sequence[Path | Input],
    *,
    kind: str | None = None,
    target: str = "platform",
    tokenizer: Tokenizer | None = None,
    ignore: Iterable[str] = (),
    fix: Path | None = None,
    only: Iterable[str] | None = None,
    validation: Path | Input | None = None,
    on_findings: Callable[[list[Finding]], None] | None = None,
    progress: Progress = silent,
) -> Report:
    """Check files in bounded memory; with `fix`, write a repaired copy.

    Args:
        files: JSONL files, or inputs with their records.
        kind: The kind of the records; found from the first line where it is None.
        target: `platform`, `v1` … `v15`, `hf`, a model, or its tokenizer file or folder.
        tokenizer: Counts tokens when given.
        ignore: Rules whose warnings are left out.
        fix: Where the repaired copy goes: a file for one input, a folder for several. Without it
            the report says what would be repaired.
        only: The fixes that may be made; those that need not be named where it is None.
        validation: The validation data of these files: read first, checked like them, and held
            against them.
        on_findings: Called with the findings of each record that has some.
        progress: Called now and then with the records read.

    Raises:
        UsageError: A file is missing, or a target, rule, fix or kind is not there, or the copy
            would overwrite an input.
        MissingExtra: A fix needs a library that is not installed.
    """
    fixes = DEFAULT_FIXES if only is None else find_fixes(only)
    beside = Beside() if validation else None
    inputs = [
        file if isinstance(file, Input) else Input(file)
        for file in ([validation, *files] if validation else files)
    ]
    terms = _Terms(find_target(target, frozenset(ignore)), tokenizer, fixes, beside, on_findings)
    outputs = _outputs([item.path for item in inputs], fix) if fix else [None] * len(inputs)
    report = Report()
    if tokenizer:
        report.tokens = report.trained_tokens = 0
    first: _Work | None = None
    for item, output in zip(inputs, outputs, strict=True):
        held_out = beside is not None and first is None
        with ExitStack() as stack:
            out = stack.enter_context(AtomicFile(output)) if output else None
            work = _Work(item, report, terms, kind=kind, out=out, held_out=held_out)
            for number in work.run():
                if number % _EVERY == 0:
                    progress("validate", report.records)
        first = first or work
    if beside and first:
        first.note(beside.finish())
    progress("validate", report.records, report.records)
    return report


def _outputs(inputs: list[Path], fix: Path) -> list[Path]:
    if len(inputs) == 1 and not fix.is_dir():
        outputs = [fix]
    else:
        outputs = [fix / path.name for path in inputs]
    if len(set(outputs)) < len(outputs):
        raise UsageError(f"{fix}: two inputs have one name", hint="fix them one by one")
    for path in inputs:
        for output in outputs:
            with contextlib.suppress(FileNotFoundError):
                if output.samefile(path):
                    raise UsageError(
                        f"{output}: is an input, which is never changed in place",
                        hint="name another output",
                    )
    return outputs


class _Terms(NamedTuple):
    """What holds for all inputs."""

    target: Target
    tokenizer: Tokenizer | None
    fixes: tuple[str, ...]
    beside: Beside | None
    on_findings: Callable[[list[Finding]], None] | None


class _Work:
    """One input on its way through the checker."""

    def __init__(
        self,
        item: Input,
        report: Report,
        terms: _Terms,
        *,
        kind: str | None,
        out: AtomicFile | None,
        held_out: bool,
    ) -> None:
        self._item = item
        self._file = str(item.path)
        self._report = report
        self._out = out
        self._held_out = held_out
        self._bytes = 0
        self._target, tokenizer, self._fixes, self._beside, self._on_findings = terms
        self._checker = Checker(kind or item.kind or self._find_kind(), self._target, tokenizer)

    def _find_kind(self) -> str:
        with open_bytes(self._item.path) as file, contextlib.suppress(Damaged):
            for line in read_lines(file):
                value, _ = read_value(line.data)
                if value is not None:
                    return records.kind_of(value) or "chat"
        return "chat"

    def run(self) -> Iterator[int]:
        """Check every line; yield a number now and then."""
        steps = self._check_made() if self._item.made is not None else self._check_lines()
        for number in steps:
            self._count()
            yield number
        self._count()
        self._note(self._checker.finish(self._file))
        if not self._held_out:
            self.note(check_training_size(self._bytes))
        if self._beside:
            self._beside.add_size(self._bytes, held_out=self._held_out)
        report = self._report
        if report.tokens is not None and report.trained_tokens is not None:
            report.tokens += self._checker.tokens
            report.trained_tokens += self._checker.trained_tokens

    def _check_made(self) -> Iterator[int]:
        for number, record, lost in self._item.made or ():
            check = self._checker.check_record
            findings = lost if record is None else check(record, self._file, number)
            findings = self._hold(record, findings, number)
            self._take(findings)
            data = None if record is None else records.encode(record)
            self._bytes += len(data or b"")
            if self._out or findings:
                self._write(data, findings, number, changed=False)
            if number % _BATCH == 0:
                yield number

    def _check_lines(self) -> Iterator[int]:
        before = self._report.records
        fault: DataError | None = None
        with open_bytes(self._item.path) as file:
            try:
                yield from self._check_stream(file)
            except Damaged as error:  # all that stands before was checked
                fault = error
        if fault is None and self._report.records == before:
            fault = DataError("the file is empty", rule="empty-file")
        if fault:
            place = (self._file, fault.line or 0, "")
            self._take([Finding(*place, str(fault.rule), "error", fault.fact, fixable=False)])

    def _check_stream(self, file: IO[bytes]) -> Iterator[int]:
        check, hold = self._checker.check_line, self._beside is not None
        report, name, out = self._report, self._file, self._out
        for number, data, size in read_lines(file):
            record, findings = check(data, name, number)
            self._bytes += size
            if hold:
                findings = self._hold(record, findings, number)
            crlf = data is not None and size - len(data) == 2
            if crlf:
                findings = [*findings, *self._crlf(number)]
            if findings:
                self._take(findings)
            else:
                report.records += 1
                report.valid += 1
            if findings or out:
                self._write(data, findings, number, changed=crlf)
            if number % _BATCH == 0:
                yield number

    def _hold(
        self, record: records.Record | None, findings: list[Finding], number: int
    ) -> list[Finding]:
        """Hold a record against the validation data; return all its findings."""
        if self._beside is None or record is None:
            return findings
        faults = self._beside.add(record, held_out=self._held_out)
        return [*findings, *self._checker.find(faults, self._file, number)]

    def _count(self) -> None:
        findings = self._checker.count()
        self._note(findings)
        self._report.valid -= len(findings)
        self._report.invalid += len(findings)

    def _crlf(self, number: int) -> list[Finding]:
        severity = self._target.severities.get("crlf")
        if severity is None:
            return []
        return [Finding(self._file, number, "", "crlf", severity, "ends in CR LF", fixable=True)]

    def _take(self, findings: list[Finding]) -> None:
        report = self._report
        report.records += 1
        if findings:
            self._note(findings)
        if findings and any(finding.severity == "error" for finding in findings):
            report.invalid += 1
        else:
            report.valid += 1

    def note(self, faults: list[Fault]) -> None:
        """Take note of faults of the file as a whole."""
        self._note(self._checker.find(faults, self._file, 0))

    def _note(self, findings: list[Finding]) -> None:
        self._report.add(findings)
        if findings and self._on_findings:
            self._on_findings(findings)

    def _write(
        self, data: bytes | None, findings: list[Finding], number: int, *, changed: bool
    ) -> None:
        """Write the record, repaired where it must be; count what happens to it or would."""
        if not findings or data is None:
            whole, done = data, set[str]()
        else:
            whole, done = repair(self._checker, data, findings, self._fixes)
        if changed:
            done.add("unix-lines")
        if whole is None:
            self._report.left_out += self._out is not None
            return
        for name in done:
            self._report.add_fix(name, number)
        if whole and self._out:
            self._out.write(whole + b"\n")
            self._report.written += 1
