"""`finetune serve`: La Plateforme's API on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from finetune.cli.console import Console, output_options
from finetune.errors import UsageError

FOLDER = Path("server")
folder_option = click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=FOLDER,
    show_default=True,
    help="Where everything of the server lies.",
)


@click.group("serve", invoke_without_command=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: a free one."
)
@folder_option
@click.option(
    "--models",
    "models",
    type=click.Path(path_type=Path),
    help="YAML that says which weights a name means: `NAME: {model: FOLDER_OR_HUB_ID}`.",
)
@click.option(
    "--alias",
    "aliases",
    multiple=True,
    metavar="ID=RUN",
    help="Keep an old model id: it means this run's adapter.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Jobs that train at once.",
)
@click.option(
    "--share/--exclusive",
    default=None,
    help="Answer while a job trains, or not (not on a GPU, where neither is given).",
)
@click.option(
    "--trainer",
    metavar="COMMAND",
    help="Train with this instead of `finetune run`; it gets RECIPE --run FOLDER.",
)
@click.option("--refuse", type=click.Choice(["cards", "create", "gone", "missing"]), hidden=True)
@output_options
@click.pass_context
def command(
    context: click.Context,
    host: str,
    port: int,
    folder: Path,
    models: Path | None,
    aliases: tuple[str, ...],
    *,
    workers: int,
    share: bool | None,
    trainer: str | None,
    refuse: str | None,
    console: Console,
) -> None:
    """Serve La Plateforme's fine-tuning API on this machine.

    Jobs train with the local backend, one after the other. Everything lies in one folder.
    """
    if context.invoked_subcommand is not None:
        return
    from finetune.server.running import open_settings, serve

    settings = open_settings(
        folder,
        models=models,
        aliases=dict(_alias(alias) for alias in aliases),
        workers=workers,
        share=share,
        trainer=trainer,
        refuse=refuse,
    )

    def ready(url: str) -> None:
        console.emit({"url": url, "folder": str(folder)})
        console.name(url)
        console.show(f"serving {url}")
        console.say(f"folder  {folder}")
        console.next(f"finetune serve keys create NAME --folder {folder}")

    serve(settings, host=host, port=port, ready=ready)


@command.group("keys")
def keys() -> None:
    """Make, list and revoke the keys of a server."""


@keys.command("create")
@click.argument("name")
@folder_option
@click.option("--requests-per-minute", type=click.IntRange(1), metavar="N", help="Most requests.")
@click.option("--tokens-per-minute", type=click.IntRange(1), metavar="N", help="Most tokens.")
@click.option("--storage", type=click.IntRange(1), metavar="BYTES", help="Most bytes of uploads.")
@output_options
def create(
    name: str,
    folder: Path,
    *,
    requests_per_minute: int | None,
    tokens_per_minute: int | None,
    storage: int | None,
    console: Console,
) -> None:
    """Make a key and print it, this once."""
    from finetune.server.keys import create_key
    from finetune.server.store import Store

    key = create_key(
        Store(folder),
        name,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        storage_bytes=storage,
    )
    console.emit({"name": name, "key": key})
    console.name(key)
    console.show(key)
    console.say("it is not shown again")


@keys.command("list")
@folder_option
@output_options
def show(folder: Path, *, console: Console) -> None:
    """List the keys and what each has used."""
    from finetune.server.keys import list_keys
    from finetune.server.store import Store

    if not (folder / "server.sqlite3").is_file():
        raise UsageError(f"{folder}: no server's folder", hint="`finetune serve` makes one")
    found = list_keys(Store(folder))
    console.emit({"keys": found})
    for key in found:
        console.name(key["name"])
        state = "  revoked" if key["revoked"] else ""
        console.show(
            f"{key['name']:<24} {key['requests']:>9,} requests"
            f" {key['tokens_in']:>11,} tokens in {key['tokens_out']:>11,} out"
            f" {key['trained_tokens']:>13,} trained {key['storage_bytes']:>13,} bytes{state}"
        )


@keys.command("revoke")
@click.argument("name")
@folder_option
@output_options
def revoke(name: str, folder: Path, *, console: Console) -> None:
    """Refuse a key from now on."""
    from finetune.server.keys import revoke_key
    from finetune.server.store import Store

    if not (folder / "server.sqlite3").is_file():
        raise UsageError(f"{folder}: no server's folder", hint="`finetune serve` makes one")
    revoke_key(Store(folder), name)
    console.emit({"name": name, "revoked": True})
    console.name(name)
    console.show(f"{name}: revoked")


def _alias(text: str) -> tuple[str, Path]:
    name, equals, run = text.rpartition("=")
    if not equals or not name or not run:
        raise UsageError(f"--alias {text}: is not ID=RUN")
    return name, Path(run)
