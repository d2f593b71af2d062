"""`finetune export`: a run's model in another form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from finetune.cli.console import Console, output_options
from finetune.cli.options import RUNS, call_run
from finetune.text import size


@click.command("export")
@click.argument("run")
@click.option(
    "--to",
    required=True,
    metavar="FORM",
    help="merged (one checkpoint, no adapter), consolidated (the same in Mistral's format), adapter"
    " (for PEFT), lora (the adapter in Mistral's format), gguf, ollama (gguf and a Modelfile), vllm"
    " (adapter and the line that serves it), or hub (adapter and card, pushed).",
)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), metavar="DIR")
@click.option("--numbers", metavar="KIND", help="Of gguf and ollama: f32, bf16, f16 or q8_0.")
@click.option("--repository", metavar="OWNER/NAME", help="Of hub: a new one, private.")
@click.option("--public", is_flag=True, help="Of hub: everybody may read it.")
@click.option(
    "--personal-data",
    metavar="KIND",
    help="Of hub: what may leave (none, masked, any), instead of `egress.personal_data`.",
)
@output_options
def command(run: str, to: str, output: Path, console: Console, **options: Any) -> None:
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
    if "address" in facts:
        console.show(f"{facts['address']}  {'private' if facts['private'] else 'public'}")
    console.next(facts.get("command") or f"finetune report {call_run(found)}")
