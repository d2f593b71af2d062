"""`finetune models`: the catalog."""

from __future__ import annotations

import click
import msgspec

from finetune.catalog import LICENCES, MODELS, Model, find_model, suggest_model
from finetune.cli.console import Console, output_options
from finetune.errors import UsageError
from finetune.text import size


@click.command("models")
@click.argument("name", required=False)
@output_options
def command(name: str | None, console: Console) -> None:
    """List the models of the catalog, or show all that is known of one."""
    if name is None:
        console.emit([_describe(model) for model in MODELS])
        for model in MODELS:
            console.name(model.name)
            context = f"{model.context // 1024}k"
            licence = LICENCES[model.licence].name
            console.show(
                f"{model.name:<26} {model.billions:>6.1f}B {context:>5}  "
                f"{model.tokenizer or '?':<10} {licence}"
            )
        console.next("finetune models NAME")
        return
    found = find_model(name)
    if found is None:
        raise UsageError(
            f"{name}: not in the catalog",
            hint=suggest_model(name) or "`finetune models` lists it",
        )
    facts = _describe(found)
    console.emit(facts)
    console.name(found.name)
    for key, value in facts.items():
        if value not in (None, "", (), []) and key != "shape":
            note = "  (not from a source)" if key in found.unsure else ""
            console.show(f"{key.replace('_', ' '):<16} {_text(key, value)}{note}")
    console.next(f"model: {found.name}   in a recipe, then `finetune plan RECIPE`")


def _describe(model: Model) -> dict[str, object]:
    licence = LICENCES[model.licence]
    return {
        **msgspec.to_builtins(model),
        "licence": licence.name,
        "commercial_use": licence.commercial,
        "licence_note": licence.note,
        "params": model.params,
        "download_bytes": model.download_bytes,
    }


def _text(key: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and key.endswith("_bytes"):
        return size(value)
    if isinstance(value, int):
        return f"{value:,}"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
