"""What an adapter's own files say: whether they are whole, and which base it was trained on."""

from __future__ import annotations

from pathlib import Path

from finetune.backends.local import embedded
from finetune.backends.local.model import is_adapter
from finetune.catalog import find_model
from finetune.errors import UsageError
from finetune.files import read_json

_DAMAGED = "put a whole copy of it back, or train again with `finetune run --fresh`"


def check_adapter(tuned: Path, ref: str) -> None:
    """Refuse an adapter that is damaged, or says of itself that it was trained on another base.

    Two models of one shape take each other's adapters, and answer nonsense. Whoever has no base
    named in its config is taken at the word of who put it there.

    Args:
        tuned: What a run trained; a whole model has no base.
        ref: The run's own model, as its recipe names it.

    Raises:
        UsageError: It is.
    """
    if not is_adapter(tuned):
        return
    config = read_json(tuned / "adapter_config.json")
    if not isinstance(config, dict) or not {"peft_type", "r", "lora_alpha"} <= config.keys():
        raise UsageError(
            f"{tuned}: damaged: `adapter_config.json` is no config of a LoRA adapter", hint=_DAMAGED
        )
    _require_whole(tuned / "adapter_model.safetensors")
    named = config.get("base_model_name_or_path")
    if not named or _names_same(str(named), ref):
        return
    raise UsageError(
        f"{tuned}: was trained on another base: its `adapter_config.json` names `{named}`, the"
        f" run `{ref}`",
        hint="put the run's own adapter back, or train on that base",
    )


def _require_whole(weights: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, framework="numpy") as file:
            file.keys()
    except FileNotFoundError:
        return  # whoever reads it says so
    except (OSError, SafetensorError):
        raise UsageError(
            f"{weights.parent}: damaged: `{weights.name}` is no whole file of safetensors",
            hint=_DAMAGED,
        ) from None


def _names_same(one: str, other: str) -> bool:
    """Tell whether two names mean one model; an export has but the last part of a path."""
    return one == Path(other).name or _find_name(one) == _find_name(other)


def _find_name(ref: str) -> str:
    """Return one name for all of a model's: catalog name, hub id, its folder in a cache."""
    path = Path(ref).expanduser()
    cached = next((part for part in path.parts if part.startswith("models--")), None)
    if cached:  # the hub's cache
        ref = cached.removeprefix("models--").replace("--", "/", 1)
    elif path.name.startswith(f"{embedded.NAME}-"):
        ref = embedded.NAME
    model = find_model(ref)
    if model is not None:
        return model.name
    return str(path.resolve()) if path.is_dir() and not cached else ref
