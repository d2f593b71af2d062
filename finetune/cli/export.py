"""`finetune export`: a run's model in another form."""

from __future__ import annotations

from pathlib import Path

import click

from finetune.cli.console import Console, output_options
from finetune.cli.options import RUNS
from finetune.text import size


@click.command("export")
@click.argument("run")
@click.option(
    "--to",
    required=True,
    metavar="FORM",
    help="merged (one checkpoint, no adapter), consolidated (the same in Mistral's format), lora"
    " (the adapter in Mistral's format), gguf, or ollama (gguf and a Modelfile).",
)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), metavar="DIR")
@click.option("--numbers", metavar="KIND", help="Of gguf and ollama: f32, bf16, f16 or q8_0.")
@output_options
def command(run: str, to: str, output: Path, console: Console, **options: str | None) -> None:
    """Write a run's model in another form; RUN is a path, a name, a unique prefix, or `last`."""
    from finetune.export import export
    from finetune.runs import find_run

    found = find_run(run, RUNS)
    given = {name: value for name, value in options.items() if value}
    with console.progress() as progress:
        facts = export(found, output, to=to, options=given, progress=progress)
    console.emit({"run": found.folder.name, "form": to, "folder": str(output), **facts})
    console.name(output)
    console.show(f"{output}  {size(facts['bytes'])}")
    if "kl" in facts:
        console.show(
            f"read back, against base and adapter: KL {facts['kl']:.2g} nats,"
            f" same next token {facts['agreement']:.1%} of {facts['positions']:,}"
        )
    console.next(facts.get("command") or f"finetune report {found.folder.name}")
