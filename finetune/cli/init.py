"""`finetune init`: look at data and write a commented recipe."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path
from typing import Any

import click

from finetune.cli.console import Console, output_options
from finetune.errors import UsageError
from finetune.files import slug, write_atomic
from finetune.shipped import shipped_folder


@click.command("init")
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="DATA…")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The recipe; else DATA's name .yaml."
)
@output_options
def command(data: tuple[Path, ...], output: Path | None, *, console: Console) -> None:
    """Look at files, folders or globs and write a recipe that plans."""
    target = output or Path(f"{slug(data[0].name.split('.')[0])}.yaml")
    if target.exists():
        raise UsageError(f"{target}: is there already", hint="name another file with -o")
    found = [look(path) for path in data]
    kinds = {facts["kind"] for facts in found}
    if kinds != {"chat"}:
        wrong = next(facts for facts in found if facts["kind"] != "chat")
        raise UsageError(
            f"{wrong['path']}: holds {wrong['kind']} records; no method here trains on them",
            hint="`finetune explain method` lists the methods",
        )
    has_gpu = shutil.which("nvidia-smi") is not None
    write_atomic(target, _write(found, target, has_gpu=has_gpu).encode())
    console.emit({"recipe": str(target), "sources": found})
    console.name(target)
    for facts in found:
        console.say(f"{facts['path']}: {facts['container']}, {facts['format']}: {facts['reason']}")
    console.say(f"wrote {target}")
    console.next(f"finetune plan {shlex.quote(str(target))}")


def look(path: Path) -> dict[str, Any]:
    """Return how a source would be read, from its first file.

    Raises:
        UsageError: It is not there, or no reading fits.
        DataError: It is empty.
    """
    from finetune.corpus import Account, Conversion, Reading, find_files

    first = find_files(path)[0][0]
    with open(first.path, "rb") as file:
        conversion = Conversion(
            file, str(first.path), Reading(), account=Account(), reject=lambda _: None
        )
        return {"path": str(path), **conversion.facts()}


def _write(found: list[dict[str, Any]], target: Path, *, has_gpu: bool) -> str:
    folder = target.resolve().parent
    schema = os.path.relpath(shipped_folder("data_schemas") / "recipe.schema.json", folder)
    lines = [
        f"# yaml-language-server: $schema={schema}",
        "#",
        f"# Written by `finetune init`; `finetune plan {target.name}` shows what it would do.",
        "# Any key: `finetune explain KEY`. Unknown keys are refused.",
        "",
    ]
    if has_gpu:
        lines += ["model: ministral-3-8b   # any of `finetune models`, a hub id or a local path"]
    else:
        lines += [
            "# No GPU is seen here: this is the small embedded model, to try out. For real work",
            "# name one of `finetune models`, such as ministral-3-8b, on a machine with a GPU.",
            "model: smollm2-135m",
        ]
    lines += ["method: sft", "", "data:", "  train:"]
    for facts in found:
        path = os.path.relpath(Path(facts["path"]).resolve(), folder)
        lines += [f"    # {facts['container']}; {facts['reason']}"]
        lines += [f"    - path: {json.dumps(path, ensure_ascii=False)}"]
        lines += [f"      format: {facts['format']}"]
        if facts["columns"]:
            lines += [f"      columns: {json.dumps(facts['columns'], ensure_ascii=False)}"]
    lines += [
        "  validation: 0.05      # share kept to watch the training",
        "  max_rejected: 0.0     # share of rows that may be left out before the run stops",
        "",
        "training:",
        "  epochs: 3",
        f"  learning_rate: {'1e-4' if has_gpu else '1e-3   # for 135M; models of billions: 1e-4'}",
        f"  seq_len: {4096 if has_gpu else 1024}",
        "",
        "evaluation:",
        "  data: 0.05            # share that training never sees, to compare base and tuned on",
        "",
        "backend: local          # or: platform",
        "local:",
        "  lora: {rank: 16, alpha: 32}",
    ]
    lines += ["  quantize: 4bit", "  batch_tokens: 16384"] if has_gpu else ["  batch_tokens: 1024"]
    return "\n".join(lines) + "\n"
