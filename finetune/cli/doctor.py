"""`finetune doctor`: check this machine."""

from __future__ import annotations

import click

from finetune.cli.console import Console, output_options

_STYLES = {"ok": "green", "warning": "yellow", "error": "red"}


@click.command("doctor")
@output_options
def command(console: Console) -> None:
    """Check this machine: Python, extras, device, disk, keys; each fault with its fix.

    Exits 1 where something stops everything, else 0.
    """
    from finetune.doctor import examine

    checks = examine()
    console.emit(checks)
    for check in checks:
        if check.status != "ok":
            console.name(check.name)
        status = console.style(f"{check.status:<7}", _STYLES[check.status])
        console.show(f"{status} {check.name:<16} {check.fact}")
        if check.fix:
            console.show(f"{'':<7} {'':<16} fix: {check.fix}")
    console.next("finetune run recipes/quickstart.yaml")
    if any(check.status == "error" for check in checks):
        raise click.exceptions.Exit(1)
