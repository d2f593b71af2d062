"""The card of what is exported: what it is, of what data and recipe, how good, on which terms."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune import __version__
from finetune.catalog import LICENCES, Shape, find_model, read_shape
from finetune.files import read_json, to_json, write_atomic
from finetune.runs import Run
from finetune.text import plural

# What of a recipe a card tells: how was trained, and nothing of where the data lie.
_TOLD = ("method", "seed", "training", "local")
_HUB_LICENCES = {"apache-2.0": "apache-2.0"}  # what hubs know by a name of theirs


def write_card(run: Run, folder: Path, form: str, facts: Mapping[str, Any]) -> None:
    """Write `README.md`.

    Args:
        run: The run.
        folder: Where it is written.
        form: What is written there, in words.
        facts: How near it is to base and adapter, where that was measured.
    """
    write_atomic(folder / "README.md", describe(run, form, facts).encode())


def describe(run: Run, form: str, facts: Mapping[str, Any]) -> str:
    """Return the card, in Markdown with the head that model hubs read."""
    parts = [
        _head(run, adapter="adapter" in form),
        f"# {run.state['name']}",
        _about(run, form),
        _parity(facts),
        "## Data\n\n" + _data(run),
        "## Training\n\n" + _training(run),
        "## Measures\n\n" + _measures(run),
        "## Licence and limits\n\n" + _limits(run),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _about(run: Run, form: str) -> str:
    how = "tuned in full" if run.recipe.local.full else "tuned with LoRA"
    return (
        f"`{reference(run)}` {how} by mistral-finetune-kit {__version__}"
        f" (run `{run.folder.name}`): {form}."
    )


def reference(run: Run) -> str:
    """Return what the world calls the run's base: its hub id where it has one."""
    model = find_model(run.recipe.model)
    name = model.hub_id or model.name if model else run.recipe.model
    # A folder's place is nobody's business.
    return Path(name).name if model is None and Path(name).expanduser().is_dir() else name


def _head(run: Run, *, adapter: bool) -> str:
    model = find_model(run.recipe.model)
    lines = ["---", f"library_name: {'peft' if adapter else 'transformers'}"]
    if model is None or model.hub_id:
        lines.append(f"base_model: {reference(run)}")
    if model is not None:
        known = _HUB_LICENCES.get(model.licence)
        lines += [f"license: {known}"] if known else ["license: other", *_other(model.licence)]
    kind = "full" if run.recipe.local.full else "lora"
    return "\n".join([*lines, f"tags: [{kind}, mistral, mistral-finetune-kit]", "---"])


def _other(licence: str) -> list[str]:
    return [f"license_name: {licence}"]


def _parity(facts: Mapping[str, Any]) -> str:
    if "kl" not in facts:
        return ""
    return (
        f"Read back and compared with base and adapter on {plural(facts['positions'], 'token')}: KL"
        f" divergence {facts['kl']:.2g} nats, same most likely next token"
        f" {facts['agreement']:.1%}."
    )


def _data(run: Run) -> str:
    manifest = run.manifest()
    lines = [f"- Dataset: `{run.state['dataset_digest']}`"]
    if manifest is None:
        return f"{lines[0]}\n- Its files are gone: nothing more is known of it here"
    for name, facts in sorted(manifest.get("files", {}).items()):
        if name.startswith(("train", "validation", "evaluation")):
            count = plural(facts["records"], "record")
            lines.append(f"- `{name}`: {count}, SHA-256 `{facts['sha256']}`")
    return "\n".join(lines)


def _training(run: Run) -> str:
    settings = {key: run.recipe.settings[key] for key in _TOLD}
    text = f"```json\n{to_json(settings, indent=True).decode()}```"
    flops = estimate_flops(run)
    if flops is None:
        return text
    way = "6 × weights × tokens (forward, and backward to all weights)"
    if not run.recipe.local.full:
        way = "4 × weights × tokens (forward, and backward to the adapters only)"
    return text + (
        f"\n\nAbout {flops:.2g} floating-point operations: {way},"
        " without attention scores and recomputation."
    )


def estimate_flops(run: Run) -> float | None:
    """Return the floating-point operations of the training, None where too little is known."""
    model, folder = find_model(run.recipe.model), Path(run.recipe.model).expanduser()
    shape: Shape | None = model.shape if model else None
    if shape is None and (folder / "config.json").is_file():
        shape = read_shape(read_json(folder / "config.json"))
    tokens: list[int] = [line["tokens"] for line in run.metrics() if "tokens" in line]
    if shape is None or not tokens:
        return None
    attention = sum(a * b for a, b in shape.attention.values())
    feed_forward = sum(a * b for a, b in shape.feed_forward.values())
    layer = attention + feed_forward * shape.active
    factor = 6.0 if run.recipe.local.full else 4.0
    return factor * (shape.layers * layer + shape.vocab * shape.hidden) * max(tokens)


def _measures(run: Run) -> str:
    evaluation = run.evaluation()
    if evaluation is None:
        return "Not measured."
    base, tuned = evaluation["base"], evaluation["tuned"]
    rows = [
        f"| {name} | {_figure(base.get(name))} | {_figure(measure)} |"
        for name, measure in tuned.items()
    ]
    head = f"On {plural(evaluation['records'], 'record')} kept from training, with 95 % intervals:"
    note = ["", evaluation["note"]] if evaluation.get("note") else []
    return "\n".join([head, "", "| measure | base | tuned |", "|---|---|---|", *rows, *note])


def _figure(measure: Mapping[str, Any] | None) -> str:
    if measure is None:
        return "–"
    interval = f" ({measure['low']:.3g} – {measure['high']:.3g})" if "low" in measure else ""
    return f"{measure['value']:.4g}{interval}"


def _limits(run: Run) -> str:
    model = find_model(run.recipe.model)
    licence = "The licence of the base model applies; see its own card."
    if model is not None:
        terms = LICENCES[model.licence]
        licence = f"The licence of the base model applies: {terms.name} ({terms.note})."
    return (
        f"{licence} It repeats what its data say, mistakes included, and was measured on data like"
        " them only. What it refuses and what it keeps to itself was not examined."
    )
