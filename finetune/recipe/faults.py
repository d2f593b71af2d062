"""What pydantic found wrong with a recipe, in our words and with the line."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from finetune.errors import RecipeError
from finetune.recipe.source import Document, Key
from finetune.recipe.tree import Recipe
from finetune.text import nearest

# What other tools call it → our key. Facts of their documentation, 2026.
FOREIGN = {
    "max_seq_length": "training.seq_len",
    "max_seq_len": "training.seq_len",
    "sequence_len": "training.seq_len",
    "max_length": "training.seq_len",
    "cutoff_len": "training.seq_len",
    "model_max_length": "training.seq_len",
    "num_epochs": "training.epochs",
    "n_epochs": "training.epochs",
    "num_train_epochs": "training.epochs",
    "max_steps": "training.steps",
    "training_steps": "training.steps",
    "lr": "training.learning_rate",
    "warmup_ratio": "training.warmup_fraction",
    "warmup_steps": "training.warmup_fraction",
    "pct_start": "training.warmup_fraction",
    "lora_r": "local.lora.rank",
    "lora_rank": "local.lora.rank",
    "r": "local.lora.rank",
    "lora_alpha": "local.lora.alpha",
    "scaling": "local.lora.alpha",
    "lora_dropout": "local.lora.dropout",
    "lora_target": "local.lora.targets",
    "lora_target_modules": "local.lora.targets",
    "target_modules": "local.lora.targets",
    "lora_target_linear": "local.lora.targets",
    "use_rslora": "local.lora.rslora",
    "lora_use_rslora": "local.lora.rslora",
    "use_dora": "local.lora.dora",
    "lora_use_dora": "local.lora.dora",
    "peft_use_dora": "local.lora.dora",
    "peft_use_rslora": "local.lora.rslora",
    "load_in_4bit": "local.quantize",
    "load_in_8bit": "local.quantize",
    "quantization": "local.quantize",
    "bf16": "local.dtype",
    "fp16": "local.dtype",
    "torch_dtype": "local.dtype",
    "batch_size": "local.batch_tokens",
    "micro_batch_size": "local.micro_batch_tokens",
    "per_device_train_batch_size": "local.batch_tokens",
    "num_processes": "local.launch.processes",
    "nproc_per_node": "local.launch.processes",
    "num_machines": "local.launch.nodes",
    "num_nodes": "local.launch.nodes",
    "nnodes": "local.launch.nodes",
    "distributed_type": "local.launch.strategy",
    "fsdp": "local.launch.strategy",
    "fsdp_config": "local.launch.strategy",
    "deepspeed": "local.launch.strategy",
    "deepspeed_config": "local.launch.strategy",
    "gradient_accumulation_steps": "local.micro_batch_tokens",
    "gradient_accumulation": "local.micro_batch_tokens",
    "max_grad_norm": "local.max_grad_norm",
    "early_stopping_patience": "local.early_stopping",
    "metric_for_best_model": "local.best_by",
    "load_best_model_at_end": "local.best_by",
    "save_steps": "local.save_every",
    "ckpt_freq": "local.save_every",
    "save_total_limit": "local.keep_checkpoints",
    "num_ckpt_keep": "local.keep_checkpoints",
    "model_name_or_path": "model",
    "model_name": "model",
    "model_id_or_path": "model",
    "base_model": "model",
    "pretrained_model_name_or_path": "model",
    "dataset": "data.train",
    "datasets": "data.train",
    "instruct_data": "data.train",
    "training_files": "data.train",
    "validation_files": "data.validation",
    "eval_instruct_data": "data.validation",
    "val_size": "data.validation",
    "val_set_size": "data.validation",
    "output_dir": "name",
    "run_dir": "name",
    "run_name": "name",
    "num_labels": "training.classifier_targets",
    "id2label": "training.classifier_targets",
    "problem_type": "training.classifier_targets",
    "stage": "method",
    "task": "method",
    "finetuning_type": "local.full",
    "full_finetuning": "local.full",
    "train_type": "local.full",
}
_REFUSED = {
    "trust_remote_code": "code from a model's folder is never run",
    "template": "the model's own tokenizer decides the format",
    "chat_template": "the model's own tokenizer decides the format",
    "api_key": "keys do not stand in recipes; set MISTRAL_API_KEY",
}
_TEXTS = {
    "missing": "is missing",
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "path_type": "must be a path",
    "finite_number": "must be a finite number",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "string_pattern_mismatch": "does not match {pattern}",
    "too_short": "must have at least {min_length}",
}


def explain_faults(
    error: ValidationError, document: Document, path: Path, tree: type[BaseModel] = Recipe
) -> RecipeError:
    """Return one error that names every fault of a recipe, or of another file with its sections.

    Args:
        error: What pydantic found.
        document: The file as written.
        path: Where it lies.
        tree: What it was held against.
    """
    lines: list[str] = []
    hints: list[str | None] = []
    seen: set[tuple[Key, str]] = set()
    for fault in error.errors(include_input=False, include_url=False):
        key = _strip(fault["loc"], document.values, tree)
        text, hint = _describe(fault["type"], fault.get("ctx", {}), key, tree)
        if (key, text) in seen or _other_branch(fault["type"], key, document.values):
            continue
        seen.add((key, text))
        lines.append(f"{_where(key, document, path)}: {'.'.join(map(str, key))}: {text}")
        hints.append(hint)
    if len(lines) == 1:
        return RecipeError(lines[0], hint=hints[0])
    told = [f"{line} ({hint})" if hint else line for line, hint in zip(lines, hints, strict=True)]
    return RecipeError("\n       ".join(told), hint="`finetune explain KEY` describes a field")


def _describe(
    kind: str, context: dict[str, Any], key: Key, tree: type[BaseModel]
) -> tuple[str, str | None]:
    name = str(key[-1])
    if kind != "extra_forbidden":
        return _TEXTS.get(kind, "has a value that does not fit").format(**context), None
    if name in _REFUSED:
        return "is refused", f"`{name}`: {_REFUSED[name]}"
    if name in FOREIGN and FOREIGN[name] != ".".join(map(str, key)):
        return "unknown field", f"here it is `{FOREIGN[name]}`"
    siblings = list(_fields(key[:-1], tree))
    if match := nearest(name, siblings):
        return "unknown field", f"did you mean `{match}`?"
    elsewhere = [field for field in known_keys(tree) if field.rsplit(".", 1)[-1] == name]
    if elsewhere:
        return "unknown field", f"`{name}` belongs in `{elsewhere[0]}`"
    return "unknown field", f"known here: {', '.join(siblings)}" if siblings else None


def known_keys(model: type[BaseModel] = Recipe, prefix: str = "") -> dict[str, Any]:
    """Return every dotted key of a recipe with its field (list items without their number)."""
    keys: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        keys[prefix + name] = field
        section = section_of(field.annotation)
        if section is not None:
            keys |= known_keys(section, f"{prefix}{name}.")
    return keys


def section_of(annotation: Any) -> type[BaseModel] | None:
    """Return the section inside a field's type, also inside a list or a union, else None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) is typing.Annotated:
        return section_of(get_args(annotation)[0])
    for inner in get_args(annotation):
        found = section_of(inner)
        if found is not None:
            return found
    return None


def _fields(key: Key, tree: type[BaseModel]) -> dict[str, Any]:
    model: type[BaseModel] | None = tree
    for part in key:
        if isinstance(part, str) and model is not None:
            field = model.model_fields.get(part)
            model = section_of(field.annotation) if field else None
    return model.model_fields if model else {}


def _strip(location: tuple[int | str, ...], values: Any, tree: type[BaseModel]) -> Key:
    """Drop the union's tags from an error's path: they do not stand in the user's file."""
    key: list[int | str] = []
    for index, part in enumerate(location):
        inside = isinstance(values, dict) and part in values
        inside = inside or (isinstance(values, list) and isinstance(part, int))
        if inside:
            key.append(part)
            values = values[part]
        elif index == len(location) - 1 and (part in _fields(tuple(key), tree) or not key):
            key.append(part)
    return tuple(key) or tuple(location[:1])


def _other_branch(kind: str, key: Key, values: Any) -> bool:
    """Tell whether a fault comes from the branch of a union that the user did not take."""
    for part in key:
        if isinstance(values, dict) and part not in values:
            return False
        values = values[part]
    if kind == "list_type":
        return key in {("data", "validation"), ("local", "lora", "targets")}
    return kind in {"float_type", "literal_error", "string_type"} and isinstance(values, list)


def _where(key: Key, document: Document, path: Path) -> str:
    for end in range(len(key), 0, -1):
        if key[:end] in document.places:
            return document.places[key[:end]]
    return path.name
