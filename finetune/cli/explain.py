"""`finetune explain`: a recipe key, a rule, a fix, a method or an exit code."""

from __future__ import annotations

import click

from finetune.cli.console import Console, output_options
from finetune.errors import UsageError
from finetune.methods import METHODS

EXIT_CODES = {
    0: "done",
    1: "failure",
    2: "usage or recipe wrong; a file, model, column or extra is missing",
    3: "data invalid",
    4: "key missing or refused",
    5: "service unreachable",
    6: "job or training failed",
    7: "confirmation needed",
    8: "the service does not offer this",
    9: "run locked by another process",
    130: "interrupted by Ctrl-C, state saved",
    143: "interrupted by SIGTERM, state saved",
}


@click.command("explain")
@click.argument("word")
@output_options
def command(word: str, console: Console) -> None:
    """Explain a recipe key, a rule, a fix, a method or an exit code."""
    document = _look_up(word)
    console.emit(document)
    console.name(document["name"])
    for name, value in document.items():
        if isinstance(value, list):
            for item in value:
                console.show(f"  {item}")
        elif value:
            console.show(f"{name:<12} {value}")


def _look_up(word: str) -> dict[str, object]:
    if word.isdigit():
        if int(word) not in EXIT_CODES:
            raise UsageError(f"{word}: is not an exit code of finetune")
        return {"name": word, "kind": "exit code", "meaning": EXIT_CODES[int(word)]}
    from finetune.checks import FIXES, RULES, explain_fix, explain_rule

    if word in RULES:
        return {"name": word, "kind": "rule", **explain_rule(word)}
    if word in FIXES:
        return {"name": word, "kind": "fix", **explain_fix(word)}
    if word in METHODS:
        method = METHODS[word]
        return {
            "name": word,
            "kind": "method",
            "meaning": method.summary,
            "record": method.record,
            "platform": method.platform or "has no job for it",
        }
    from finetune.recipe.explain import explain_key

    found = explain_key(word)
    children = list(METHODS) if found.key == "method" else found.children
    return {
        "name": found.key,
        "kind": "recipe key",
        "type": found.type,
        "default": found.default,
        "meaning": found.description,
        "children": children,
    }
