"""`finetune validate`: every fault of data files, with the fix."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from finetune.checks import FIXES, Finding, Report, validate
from finetune.checks.report import MAX_SHOWN
from finetune.cli.console import Console, output_options
from finetune.errors import UsageError
from finetune.text import plural, safe

if TYPE_CHECKING:
    from finetune.tokens import Tokenizer


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
@click.option("--tokens", is_flag=True, help="Count tokens, exactly.")
@click.option("--model", help="Count with this model's tokenizer (with --tokens).")
@output_options
def command(
    files: tuple[Path, ...],
    *,
    kind: str | None,
    target: str | None,
    fix: Path | None,
    tokens: bool,
    model: str | None,
    console: Console,
) -> None:
    """Name every fault of data files: file, line, path, rule and fix.

    Files are never changed: `--fix OUT` writes a repaired copy, into a folder where there are
    several. Exit code 3 where a record has an error.
    """
    tokenizer = _load_tokenizer(target, model) if tokens or model else None
    shown: Counter[str] = Counter()

    def tell(findings: list[Finding]) -> None:
        for finding in findings:
            shown[finding.rule] += 1
            console.emit(finding)
            if shown[finding.rule] <= MAX_SHOWN:
                colour = "red" if finding.severity == "error" else "yellow"
                console.show(safe(str(finding)), style=colour)

    with console.progress() as progress:
        report = validate(
            files,
            kind=kind,
            target=target or model or "platform",
            tokenizer=tokenizer,
            fix=fix,
            on_findings=tell,
            progress=progress,
        )
    console.emit(report.summary())
    for file in dict.fromkeys(finding.file for finding in report.findings):
        console.name(file)
    _tell(console, report, shown, fix)
    if report.errors:
        raise click.exceptions.Exit(3)


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
        console.say(f"{name}: {FIXES[name].summary}: {where}")
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
    if shown:
        console.next(f"finetune explain {shown.most_common(1)[0][0]}")
    else:
        console.next("finetune init DATA")
