"""`finetune platform`: the objects of La Plateforme, or of a server like it, one by one."""

from __future__ import annotations

import datetime as dt
import functools
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from finetune.catalog import HOST
from finetune.cli.console import Console, describe, output_options
from finetune.cli.options import key_option, read_key, yes_option
from finetune.errors import ConfirmationNeeded
from finetune.text import plural, safe, size

if TYPE_CHECKING:
    from finetune.backends.platform.api import Client
    from finetune.backends.platform.replies import Card, File, Job, Remote


def remote(command: Callable[..., None]) -> Callable[..., None]:
    """Add `--host`, `--api-key-file`, `--json` and `-q`: arguments `client` and `console`."""

    @click.option("--host", default=HOST, show_default=True, help="Another service of this API.")
    @key_option
    @output_options
    @functools.wraps(command)
    def with_client(
        *arguments: Any, host: str, key_file: Path | None, console: Console, **options: Any
    ) -> None:
        from finetune.backends.platform import open_client
        from finetune.backends.platform.access import read_address

        address = read_address(host, place="--host")
        if host != HOST:
            console = _Elsewhere(console, host)
        with open_client(address, read_key(key_file)) as client:
            command(*arguments, client=client, console=console, **options)
            for notice in client.notices:
                console.say(f"notice: {notice}", style="yellow")

    return with_client


class _Elsewhere(Console):
    """A console whose next command goes to the same service, as its key is for no other."""

    def __init__(self, console: Console, host: str) -> None:
        super().__init__(json=console.json, quiet=console.quiet)
        self._host = shlex.quote(host)

    def next(self, command: str) -> None:
        option = "--host " if command.startswith("finetune platform") else "-s platform.host="
        about = command.startswith("finetune platform") or "RECIPE" in command
        super().next(f"{command} {option}{self._host}" if about else command)


@click.group("platform")
def command() -> None:
    """Look at and change what lies on La Plateforme: jobs, files, models."""


@command.command("check")
@remote
def check(*, client: Client, console: Console) -> None:
    """Find out whether this key may fine-tune there; nothing is uploaded.

    Exits 4 without a key or with one that is refused, 5 where nobody answers, 8 where jobs are
    not offered.
    """
    from finetune.backends.platform.probe import probe

    tunable = [card.id for card in probe(client)]
    console.emit({"host": client.address.host, "jobs": True, "models": tunable})
    console.show(f"host      {client.address.host}")
    console.show("key       accepted")
    console.show("jobs      listed; whether one can be made is known when one is made")
    console.show(f"models    {', '.join(safe(name, 80) for name in tunable) or 'not listed'}")
    for name in tunable:
        console.name(safe(name))
    console.next("finetune plan RECIPE --backend platform")


@command.command("backup")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@remote
def backup(folder: Path, *, client: Client, console: Console) -> None:
    """Save every job, event, metric, model card and file that still answers into FOLDER.

    Weights cannot be fetched: the API has no call for them.
    """
    from finetune.backends.platform.backup import save

    with console.progress() as progress:
        saved = save(client, folder, progress=progress)
    console.emit(saved)
    console.name(folder)
    console.show(
        f"saved {plural(saved.jobs, 'job')}, {plural(saved.models, 'model card')},"
        f" {plural(saved.files, 'file')} ({size(saved.size_bytes)}) in {folder}"
    )
    console.say("weights of tuned models cannot be fetched: the API has no call for them")
    for failure in saved.failures:
        console.say(f"not saved: {failure}", style="yellow")
    console.next("finetune platform jobs list")
    if saved.failures:
        raise click.exceptions.Exit(5)


@command.group("jobs")
def jobs() -> None:
    """Fine-tuning jobs."""


@jobs.command("list")
@click.option("--status", help="Such as RUNNING.")
@click.option("--model", help="The base model.")
@click.option("--suffix", help="As sent, such as support-1a2b3c.")
@click.option("--after", "created_after", metavar="TIME", help="Made after, such as 2026-01-31.")
@click.option("--before", "created_before", metavar="TIME", help="Made before.")
@click.option("--mine", is_flag=True, help="Made by this key's owner.")
@remote
def list_jobs(*, client: Client, console: Console, mine: bool, **filters: str | None) -> None:
    """List the jobs."""
    wanted = {name: value for name, value in filters.items() if value}
    found = client.list_jobs(**wanted, **({"created_by_me": "true"} if mine else {}))
    _show_rows(console, found, _describe_job)
    console.next("finetune platform jobs show ID" if found else "finetune run RECIPE")


@jobs.command("show")
@click.argument("job")
@remote
def show_job(job: str, *, client: Client, console: Console) -> None:
    """Show a job with its events and checkpoints."""
    _show_job(console, client.get_job(job))
    console.next("finetune platform jobs list")


@jobs.command("start")
@click.argument("job")
@yes_option
@remote
def start_job(job: str, *, yes: bool, client: Client, console: Console) -> None:
    """Start a validated job: this spends money."""
    now = client.get_job(job)
    cost = f"{now.cost[0]:g} {now.cost[1]}" if now.cost else "an unknown sum"
    _confirm(f"{client.address.host}: start job {safe(job)} for {safe(cost)}", yes=yes)
    _show_job(console, client.start_job(job))
    console.next(f"finetune platform jobs show {job}")


@jobs.command("cancel")
@click.argument("job")
@remote
def cancel_job(job: str, *, client: Client, console: Console) -> None:
    """Ask a job to stop."""
    _show_job(console, client.cancel_job(job))
    console.next(f"finetune platform jobs show {job}")


@command.group("files")
def files() -> None:
    """Uploaded files."""


@files.command("list")
@click.option("--search", help="Part of the name.")
@click.option("--purpose", help="Such as fine-tune.")
@remote
def list_files(*, client: Client, console: Console, **filters: str | None) -> None:
    """List the files."""
    found = client.list_files(**{name: value for name, value in filters.items() if value})
    _show_rows(console, found, _describe_file)
    console.next("finetune platform files download ID -o FILE")


@files.command("show")
@click.argument("file")
@remote
def show_file(file: str, *, client: Client, console: Console) -> None:
    """Show a file's description."""
    _show_facts(console, client.get_file(file))
    console.next(f"finetune platform files download {file} -o FILE")


@files.command("download")
@click.argument("file")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The file to write.",
)
@remote
def download_file(file: str, *, output: Path, client: Client, console: Console) -> None:
    """Download a file."""
    from finetune.backends.platform.backup import fetch

    count = fetch(client, client.get_file(file), output)
    console.emit({"id": file, "action": "downloaded", "file": str(output), "bytes": count})
    console.name(output)
    console.say(f"downloaded {output}, {size(count)}")
    console.next(f"finetune validate {output}")


@files.command("delete")
@click.argument("file")
@yes_option
@remote
def delete_file(file: str, *, yes: bool, client: Client, console: Console) -> None:
    """Delete a file; jobs that use it may fail."""
    _confirm(f"{client.address.host}: delete file {safe(file)}", yes=yes)
    client.delete_file(file)
    _tell(console, file, "deleted", "finetune platform files list")


@command.group("models")
def models() -> None:
    """Models, tuned ones above all."""


@models.command("list")
@click.option("--tuned", is_flag=True, help="Only tuned ones.")
@remote
def list_models(*, tuned: bool, client: Client, console: Console) -> None:
    """List the models."""
    found = [card for card in client.list_models() if card.is_tuned or not tuned]
    _show_rows(console, found, _describe_card)
    console.next("finetune platform models show ID")


@models.command("show")
@click.argument("model")
@remote
def show_model(model: str, *, client: Client, console: Console) -> None:
    """Show a model's card."""
    _show_facts(console, client.get_model(model))
    console.next("finetune platform models list --tuned")


@models.command("rename")
@click.argument("model")
@click.option("--name", help="Its new name.")
@click.option("--description", help="Its new description.")
@remote
def rename_model(model: str, *, client: Client, console: Console, **facts: str | None) -> None:
    """Change the name or description of a tuned model."""
    given = {name: value for name, value in facts.items() if value is not None}
    if not given:
        raise click.UsageError("give --name or --description")
    _show_facts(console, client.update_model(model, **given))
    console.next(f"finetune platform models show {model}")


@models.command("archive")
@click.argument("model")
@remote
def archive_model(model: str, *, client: Client, console: Console) -> None:
    """Put a tuned model away; `unarchive` brings it back."""
    client.archive_model(model)
    _tell(console, model, "archived", f"finetune platform models unarchive {model}")


@models.command("unarchive")
@click.argument("model")
@remote
def unarchive_model(model: str, *, client: Client, console: Console) -> None:
    """Bring a tuned model back."""
    client.unarchive_model(model)
    _tell(console, model, "unarchived", f"finetune platform models show {model}")


@models.command("delete")
@click.argument("model")
@yes_option
@remote
def delete_model(model: str, *, yes: bool, client: Client, console: Console) -> None:
    """Delete a tuned model for ever."""
    _confirm(f"{client.address.host}: delete model {safe(model)} for ever", yes=yes)
    client.delete_model(model)
    _tell(console, model, "deleted", "finetune platform models list --tuned")


def _confirm(what: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfirmationNeeded(what, hint="add `--yes`")
    if not click.confirm(f"{what}: go on?", err=True):
        raise click.Abort


def _tell(console: Console, name: str, action: str, following: str) -> None:
    console.emit({"id": name, "action": action})
    console.name(safe(name))
    console.say(f"{action} {safe(name)}")
    console.next(following)


def _show_rows(console: Console, found: Sequence[Any], describe: Callable[[Any], str]) -> None:
    console.emit([one.raw for one in found])
    for one in found:
        console.name(safe(one.id))
        console.show(describe(one))
    if not found:
        console.say("none")


def _show_facts(console: Console, one: Remote) -> None:
    console.emit(one.raw)
    console.name(safe(one.id))
    for name, value in one.raw.items():
        if value not in (None, [], {}):
            console.show(f"{safe(name, 40):<16} {safe(str(value))}")


def _show_job(console: Console, job: Job) -> None:
    from finetune.backends.platform.replies import read_checkpoint

    console.emit(job.raw)
    console.name(safe(job.id))
    for name in ("id", "status", "model", "suffix", "fine_tuned_model", "trained_tokens"):
        value = getattr(job, name)
        if value is not None:
            console.show(f"{name:<16} {safe(str(value))}")
    if job.cost:
        console.show(f"{'cost':<16} {job.cost[0]:g} {safe(job.cost[1])}")
    for key, value in (job.hyperparameters or {}).items():
        console.show(f"  {safe(key, 40):<16} {safe(str(value), 80)}")
    for event in job.events or []:
        data = event.get("data")
        told = data.values() if isinstance(data, dict) else [data]
        words = ": ".join(str(one) for one in told if isinstance(one, str | int))
        console.show(f"{_time(event.get('created_at')):<16} {safe(words, 300)}")
    for line in map(read_checkpoint, job.checkpoints or []):
        facts = [describe(name, value) for name, value in line.items() if name != "step"]
        console.show(f"step {line.get('step', '?')}: {', '.join(facts)}")


def _describe_job(job: Job) -> str:
    name = job.fine_tuned_model or job.suffix or ""
    row = (job.id, f"{job.status:<17}", _time(job.created_at), str(job.model), name)
    return "  ".join(safe(text, 80) for text in row)


def _describe_file(file: File) -> str:
    amount = "size unknown" if file.bytes is None else size(file.bytes)
    row = (file.id, _time(file.created_at), f"{amount:>12}", str(file.purpose), str(file.filename))
    return "  ".join(safe(text, 80) for text in row)


def _describe_card(card: Card) -> str:
    facts = [name for name, can in (card.capabilities or {}).items() if can is True]
    facts += ["archived"] if card.archived else []
    facts += [f"retires {card.deprecation}"] if card.deprecation else []
    return f"{safe(card.id, 80):<40} {safe(', '.join(facts), 120)}"


def _time(seconds: object) -> str:
    if not isinstance(seconds, int | float):
        return "–"
    try:
        return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):  # a time that no calendar has
        return "–"
