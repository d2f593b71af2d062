"""`finetune init`: look at data and write a commented recipe."""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from finetune.cli.console import Console, output_options
from finetune.errors import UsageError
from finetune.files import slug, write_atomic
from finetune.methods import METHODS
from finetune.shipped import shipped_folder

if TYPE_CHECKING:
    from finetune.corpus import Reading


@click.command("init")
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="DATA…")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The recipe; else DATA's name .yaml."
)
@output_options
def command(data: tuple[Path, ...], output: Path | None, *, console: Console) -> None:
    """Look at files, folders or globs and write a recipe that plans.

    A data config of LLaMA-Factory, axolotl, TRL, torchtune or oumi stands for what it names.
    """
    target = output or Path(f"{slug(data[0].name.split('.')[0])}.yaml")
    if target.exists():
        raise UsageError(f"{target}: is there already", hint="name another file with -o")
    found = [look(path, reading) for given in data for path, reading in _named_in(given)]
    method = _choose_method(found)
    has_gpu = shutil.which("nvidia-smi") is not None
    write_atomic(target, _write(found, target, method, has_gpu=has_gpu).encode())
    console.emit({"recipe": str(target), "sources": found})
    console.name(target)
    for facts in found:
        console.say(f"{facts['path']}: {facts['container']}, {facts['format']}: {facts['reason']}")
        for warning in facts["noted"]:
            console.say(f"{facts['path']}: warning: {warning}", style="yellow")
        if facts["lost_rows"]:
            console.say(f"{facts['path']}: {_lost([facts])}", style="yellow")
    console.say(f"wrote {target}")
    console.next(f"finetune plan {shlex.quote(str(target))}")


def _named_in(path: Path) -> list[tuple[Path, Reading]]:
    """Return what a data config names and how it is read; else the path itself."""
    from finetune.corpus import Reading
    from finetune.corpus.configs import read_config

    config = read_config(path) if path.is_file() else None
    if config is None or not config.sources:
        return [(path, Reading())]
    named = []
    for source in config.sources:
        beside = path.parent / source["path"]
        place = beside if beside.exists() else Path(source["path"])
        named.append((place, Reading(source.get("format"), columns=source.get("columns", {}))))
    return named


def _choose_method(found: list[dict[str, Any]]) -> str:
    """Return the first method that trains on what was found on this machine."""
    kinds = {facts["kind"] for facts in found}
    methods = (
        name for name, method in METHODS.items() if method.local and kinds == {method.record}
    )
    if method := next(methods, None):
        return method
    kind = found[0]["kind"]
    if other := next((facts for facts in found if facts["kind"] != kind), None):
        raise UsageError(
            f"{other['path']}: holds {other['kind']} records, the first source {kind} records",
            hint="a run trains on records of one kind: write a recipe for each",
        )
    raise UsageError(
        f"{found[0]['path']}: holds {kind} records; no method here trains on them",
        hint="`finetune explain method` lists the methods",
    )


def look(path: Path, reading: Reading) -> dict[str, Any]:
    """Return how a source would be read, and how many of its rows would be lost.

    Args:
        path: A file, folder or glob.
        reading: How it is to be read, where that was said.

    Raises:
        UsageError: It is not there, or no reading fits.
        DataError: It is empty.
    """
    from finetune.checks.targets import find_target
    from finetune.corpus import convert_files, find_files

    files = find_files(path)[0]
    account, facts, _, noted = convert_files(
        ((file.name, file.open()) for file in files),
        lambda _: None,
        reading,
        target=find_target("platform"),
        reject=lambda _: None,
    )
    found = next(iter(facts.values()))
    found["columns"] = {part: name for part, name in found["columns"].items() if part != name}
    return {
        "path": str(path),
        **found,
        "rows": account.rows["read"],
        "lost_rows": account.lost_rows,
        "by_rule": dict(account.by_rule),
        "noted": [f"{fault.message}  [{fault.rule}]" for fault in noted],
    }


def _write(found: list[dict[str, Any]], target: Path, method: str, *, has_gpu: bool) -> str:
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
    lines += [f"method: {method}", "", "data:", "  train:"]
    for facts in found:
        path = os.path.relpath(Path(facts["path"]).resolve(), folder)
        lines += [f"    # {facts['container']}; {facts['reason']}"]
        lines += [f"    - path: {json.dumps(path, ensure_ascii=False)}"]
        lines += [f"      format: {facts['format']}"]
        if facts["columns"]:
            lines += [f"      columns: {json.dumps(facts['columns'], ensure_ascii=False)}"]
    lines += [
        "  validation: 0.05      # share kept to watch the training",
        f"  max_rejected: {_share(found):<7} # share of rows that may be lost: now {_lost(found)}",
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


def _share(found: list[dict[str, Any]]) -> float:
    """Return the share of rows that are lost today, rounded up."""
    lost: int = sum(facts["lost_rows"] for facts in found)
    rows: int = sum(facts["rows"] for facts in found)
    return math.ceil(1000 * lost / rows) / 1000


def _lost(found: list[dict[str, Any]]) -> str:
    lost, rows = (sum(facts[key] for facts in found) for key in ("lost_rows", "rows"))
    rules = sorted({rule for facts in found for rule in facts["by_rule"]})
    why = f" ({', '.join(rules)})" if rules else ""
    return f"{lost:,} of {rows:,}{why}"
