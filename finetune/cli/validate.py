"""`finetune validate`: every fault of data files, with the fix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from finetune.checks import FIXES, RULES, Finding, Input, Report, validate
from finetune.checks.lines import read_value
from finetune.checks.report import MAX_SHOWN
from finetune.cli.console import Console, output_options
from finetune.errors import UsageError
from finetune.files import Damaged, open_bytes, read_lines
from finetune.records import Record, kind_of
from finetune.text import plural, safe

if TYPE_CHECKING:
    from finetune.corpus import SourceFile
    from finetune.tokens import Tokenizer

_SIDES = ("prompt", "chosen", "rejected", "completion")  # lists of messages in a record


@click.command("validate")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--kind", help="Kind of the records; else it is what the first record is.")
@click.option(
    "--for",
    "target",
    metavar="TARGET",
    help="platform (the default), v1 … v15, hf, or a model, its folder or tokenizer file.",
)
@click.option("--fix", type=click.Path(path_type=Path), help="Write a repaired copy here.")
@click.option(
    "--only", multiple=True, metavar="FIX", help="Make this fix and no other; may be given again."
)
@click.option(
    "--validation",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The validation data of these files, to be held against them.",
)
@click.option("--tokens", is_flag=True, help="Count tokens, exactly.")
@click.option("--model", help="Count with this model's tokenizer (with --tokens).")
@output_options
def command(
    files: tuple[Path, ...],
    *,
    kind: str | None,
    target: str | None,
    fix: Path | None,
    only: tuple[str, ...],
    validation: Path | None,
    tokens: bool,
    model: str | None,
    console: Console,
) -> None:
    """Name every fault of data files: file, line, path, rule and fix.

    Files are never changed: `--fix OUT` writes a repaired copy, into a folder where there are
    several, and without it the last lines say what it would repair. Fixes that change what is
    trained are made only where `--only` names them. Exit code 3 where a record has an error.
    """
    tokenizer = _load_tokenizer(target, model) if tokens or model else None
    shown: Counter[str] = Counter()
    failed: Counter[str] = Counter()

    def tell(findings: list[Finding]) -> None:
        for finding in findings:
            shown[finding.rule] += 1
            failed[finding.rule] += finding.severity == "error"
            console.emit(finding)
            if shown[finding.rule] <= MAX_SHOWN:
                colour = "red" if finding.severity == "error" else "yellow"
                console.show(safe(str(finding)), style=colour)

    with console.progress() as progress:
        report = validate(
            [item for path in files for item in _open(path, kind)],
            kind=kind,
            target=target or model or "platform",
            tokenizer=tokenizer,
            fix=fix,
            only=only or None,
            validation=_open_one(validation, kind) if validation else None,
            on_findings=tell,
            progress=progress,
        )
    console.emit(report.summary())
    for file in dict.fromkeys(finding.file for finding in report.findings):
        console.name(file)
    _tell(console, report, shown, fix)
    if shown:
        console.next(f"finetune explain {(+failed or shown).most_common(1)[0][0]}")
    else:
        console.next("finetune init DATA")
    if report.errors:
        raise click.exceptions.Exit(3)


def _open(path: Path, kind: str | None) -> list[Path | Input]:
    """Return a file of records as it is, and any other with the records it is converted to."""
    if not path.is_file() or _holds_records(path):
        return [path]
    from finetune.corpus import find_files

    files = find_files(path)[0]
    names = [path.parent / file.name if file.member else path for file in files]
    return [_convert(file, name, kind) for file, name in zip(files, names, strict=True)]


def _open_one(path: Path, kind: str | None) -> Path | Input:
    first, *more = _open(path, kind)
    if more:
        raise UsageError(f"{path}: holds {plural(len(more) + 1, 'file')} where one is expected")
    return first


def _convert(file: SourceFile, name: Path, kind: str | None) -> Input:
    from finetune.corpus import Conversion, Reading

    def made() -> Iterator[tuple[int, Record | None, list[Finding]]]:
        with file.open() as stream:
            yield from Conversion(stream, str(name), Reading(kind=kind)).records()

    with file.open() as stream:  # its beginning tells the kind
        found = Conversion(stream, str(name), Reading(kind=kind)).detection.kind
    return Input(name, found, made())


def _holds_records(path: Path) -> bool:
    if not any(suffix in {".jsonl", ".ndjson"} for suffix in path.suffixes):
        return False
    with open_bytes(path) as lines, suppress(Damaged):
        for line in islice(read_lines(lines), 100):
            value, _ = read_value(line.data)
            if value is not None:
                return _is_shaped(value) or not _is_foreign(value)
    return True


def _is_shaped(value: dict[str, Any]) -> bool:
    """Tell whether a row is meant as a record, whatever its faults: not one of published data."""
    kind = kind_of(value)
    if kind in {"preference", "rating"}:
        return not any(isinstance(value.get(key), str) for key in _SIDES)
    return isinstance(value["labels"], dict) if kind == "classifier" else kind is not None


def _is_foreign(value: dict[str, Any]) -> bool:
    from finetune.converters import detect

    try:
        return detect([value]).format != "laplateforme"
    except UsageError:
        return False


def _load_tokenizer(target: str | None, model: str | None) -> Tokenizer:
    from finetune.tokens import load_tokenizer

    name = model or target
    if name in {None, "platform", "hf"}:
        raise UsageError("--tokens: counts need a tokenizer", hint="name one with --model or --for")
    return load_tokenizer(str(name))


def _tell(console: Console, report: Report, shown: Counter[str], fix: Path | None) -> None:
    for rule, count in sorted(shown.items()):
        if count > MAX_SHOWN:
            console.show(f"and {count - MAX_SHOWN:,} more  [{rule}]")
    for name, count in report.fixes.items():
        lines = ", ".join(map(str, report.fixed_lines[name][:5]))
        more = ", …" if count > 5 else ""
        where = f"{plural(count, 'record')} (line {lines}{more})"
        console.say(f"{'' if fix else 'would fix: '}{name}: {FIXES[name].summary}: {where}")
    offered = {name for rule in shown for name in RULES[rule].fixes if FIXES[name].asked}
    for name in sorted(offered - report.fixes.keys()):
        console.say(f"by name: {name}: {FIXES[name].summary}: `--fix OUT --only {name}`")
    if report.tokens is not None:
        console.say(f"{report.tokens:,} tokens, {report.trained_tokens:,} of them trained")
    records = plural(report.records, "record")
    if report.errors or report.warnings:
        counts = f"{plural(report.errors, 'error')}, {plural(report.warnings, 'warning')}"
        console.say(f"{counts}; {report.valid:,} of {records} valid")
    else:
        console.say(f"{records}, all valid", style="green")
    if fix:
        console.say(f"{fix}: {plural(report.written, 'record')}, {report.left_out:,} left out")
