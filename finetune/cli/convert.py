"""`finetune convert`: raw files → La Plateforme JSONL, or another tool's."""

from __future__ import annotations

import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from finetune.cli.console import Console, output_options
from finetune.cli.options import workers_option
from finetune.errors import DataError, UsageError
from finetune.files import AtomicFile
from finetune.records import ROLES
from finetune.text import did_you_mean, plural, safe, visible

if TYPE_CHECKING:
    from finetune.checks import Finding
    from finetune.corpus import Converted
    from finetune.corpus.account import Account

_SHOWN = 20  # files, and findings of each rule


@click.command("convert")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT…")
@click.option("--from", "source", metavar="FORMAT", help="The format; else it is detected.")
@click.option("--kind", help="Kind of the records: chat, text, classifier, …")
@click.option(
    "--columns",
    metavar="A=B,…",
    help="Which column holds what: user=question,… or user='{subject}\\n\\n{body}',…",
)
@click.option("--roles", metavar="A=B,…", help="What the rows call roles: agent=assistant,…")
@click.option(
    "--to",
    "target",
    metavar="FORMAT",
    default="laplateforme",
    show_default=True,
    help="The format to write: also openai, sharegpt, alpaca, trl.",
)
@click.option("-o", "--output", required=True, help="The JSONL file; - is stdout.")
@workers_option
@output_options
def command(
    inputs: tuple[str, ...],
    *,
    source: str | None,
    kind: str | None,
    columns: str | None,
    roles: str | None,
    target: str,
    output: str,
    workers: int | None,
    console: Console,
) -> None:
    """Convert files, folders or globs to La Plateforme JSONL, or another format; - is stdin.

    Every valid record is written. Where rows had to be left out, their places and rules go to
    stderr and the exit code is 3.
    """
    from finetune.checks.targets import find_target
    from finetune.corpus import Reading, convert_files
    from finetune.corpus.workers import count_workers

    if output == "-" and console.json:
        raise UsageError("--json: stdout holds the records already", hint="name a file with -o")
    left_out: Counter[str] = Counter()

    def report(finding: Finding) -> None:
        left_out[finding.rule] += 1
        if left_out[finding.rule] <= _SHOWN:
            click.echo(safe(str(finding)), err=True)

    reading = Reading(
        source,
        kind,
        _pairs("--columns", columns, "user=question,assistant=answer"),
        roles=_roles(roles),
    )
    with _open_output(output) as file, console.progress() as progress:
        done = convert_files(
            _open_inputs(inputs, output, console, tree=source == "code"),
            file.write,
            reading,
            to=target,
            target=find_target("platform"),
            reject=report,
            workers=count_workers(_size(inputs, tree=source == "code"), workers),
            progress=progress,
        )
    _tell(console, done, left_out, output, target)


def _pairs(option: str, text: str | None, example: str) -> dict[str, str]:
    # A comma inside a template parts nothing: behind one that does stands `name=`.
    pairs = [part.partition("=") for part in re.split(r",(?=\s*[\w.-]+\s*=)", text)] if text else []
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise UsageError(f"{option}: is not a=b,c=d", hint=f"for example: {example}")
    return {name.strip(): value.replace("\\n", "\n") for name, _, value in pairs}


def _roles(text: str | None) -> dict[str, str]:
    roles = _pairs("--roles", text, "agent=assistant,customer=user")
    if unknown := sorted(set(roles.values()) - set(ROLES)):
        raise UsageError(
            f"--roles: `{safe(unknown[0], 40)}` is not a role",
            hint=did_you_mean(unknown[0], ROLES) or f"roles are {', '.join(ROLES)}",
        )
    return roles


def _open_inputs(
    inputs: tuple[str, ...], output: str, console: Console, *, tree: bool
) -> Iterator[tuple[str, Any]]:
    from finetune.corpus import find_files

    for text in inputs:
        if text == "-":
            yield "stdin", open(sys.stdin.fileno(), "rb", closefd=False)  # noqa: SIM115 (the reader closes it)
            continue
        files, others = find_files(Path(text), tree=tree)
        for name in others[:_SHOWN]:
            console.say(f"{visible(name, 200)}: not read: no data file by its name")
        if len(others) > _SHOWN:
            console.say(f"and {plural(len(others) - _SHOWN, 'other file')} not read")
        for file in files:
            if output != "-" and file.path.resolve() == Path(output).resolve():
                raise UsageError(f"{file.path}: is input and output", hint="name another file")
            place = file.name if tree or file.member else str(file.path)
            yield place, file.open()


def _size(inputs: tuple[str, ...], *, tree: bool) -> int | None:
    """Return the bytes of all inputs, None where one is stdin."""
    from finetune.corpus import find_files

    if "-" in inputs:
        return None
    files = [file for text in inputs for file in find_files(Path(text), tree=tree)[0]]
    return sum(file.size() for file in files)


def _open_output(output: str) -> AbstractContextManager[Any]:
    return nullcontext(sys.stdout.buffer) if output == "-" else AtomicFile(Path(output))


def _tell(
    console: Console, done: Converted, left_out: Counter[str], output: str, target: str
) -> None:
    account = done.account
    formats, kinds = (
        ", ".join(dict.fromkeys(facts[key] for facts in done.files.values()))
        for key in ("format", "kind")
    )
    console.emit({**account.to_dict(), "format": formats, "kind": kinds})
    _tell_reading(console, done)
    for rule, count in sorted(left_out.items()):
        if count > _SHOWN:
            click.echo(f"and {count - _SHOWN:,} more  [{rule}]", err=True)
    written = plural(account.records["written"], "record")
    console.say(f"{written} of {plural(account.rows['read'], 'row')}")
    if output != "-":
        console.name(output)
        back = f"convert {shlex.quote(output)} --from {target} -o back.jsonl"
        validate = f"validate {shlex.quote(output)}"
        console.next(f"finetune {validate if target == 'laplateforme' else back}")
    if account.lost_rows or done.unread:
        unread = f" {plural(done.unread, 'file')} not read;" if done.unread else ""
        raise DataError(
            f"{_lost(account)} rejected;{unread} {written} written",
            hint=f"`finetune explain {next(iter(left_out))}` says more",
        )


def _tell_reading(console: Console, done: Converted) -> None:
    """Say how the files were read, and what of them was not used or is odd."""
    for file, facts in list(done.files.items())[:_SHOWN]:
        name = visible(file, 200)
        console.say(f"{name}: {facts['container']}, {facts['format']}: {facts['reason']}")
        if facts["encoding"] != "utf-8":
            console.say(f"{name}: read as {facts['encoding']}, written as UTF-8")
        if facts["byte_order_mark"]:
            console.say(f"{name}: a byte order mark was left out")
    if len(done.files) > _SHOWN:
        console.say(f"and {len(done.files) - _SHOWN:,} more files")
    for key, count in done.account.to_dict()["unused"].items():
        console.say(f"`{visible(key)}` was not used ({plural(count, 'row')})")
    for fault in done.noted:
        console.say(f"warning: {fault.path}: {fault.message}  [{fault.rule}]")


def _lost(account: Account) -> str:
    """Return how many rows and records were rejected that no corpus should hold."""
    rows, records = account.rows["rejected"] - account.left_out, account.records["rejected"]
    facts = [f"{plural(rows, 'row')} of {account.rows['read']:,}"] if rows or not records else []
    if records:
        facts.append(f"{plural(records, 'record')} of {account.records['made']:,}")
    return " and ".join(facts)
