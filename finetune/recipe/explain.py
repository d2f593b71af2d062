"""What a recipe key means: from the one place that describes it, the typed tree."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from finetune.errors import UsageError
from finetune.recipe.faults import FOREIGN, known_keys, section_of
from finetune.recipe.tree import Recipe
from finetune.text import did_you_mean

SCHEMA_URL = "https://json-schema.org/draft/2020-12/schema"
_WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path"}


class KeyHelp(NamedTuple):
    """One field of a recipe for people; `children` are the keys of a section."""

    key: str
    type: str
    default: str
    description: str
    children: list[str]


def explain_key(key: str) -> KeyHelp:
    """Return what a dotted key means.

    Raises:
        UsageError: There is no such key.
    """
    keys = known_keys()
    plain = ".".join(part for part in key.split(".") if not part.isdigit())
    if plain not in keys:
        last = [known for known in keys if known.rsplit(".", 1)[-1] == plain]
        if len(last) != 1:
            among = f"one of {', '.join(last)}?" if last else did_you_mean(plain, keys)
            ours = FOREIGN.get(plain)
            raise UsageError(
                f"{key}: is not a key of a recipe", hint=f"here it is `{ours}`" if ours else among
            )
        plain = last[0]
    return describe_field(plain, keys[plain])


def describe_field(key: str, field: FieldInfo) -> KeyHelp:
    """Return the help of one field."""
    section = section_of(field.annotation)
    children = [f"{key}.{name}" for name in section.model_fields] if section else []
    return KeyHelp(
        key, name_type(field.annotation), _default(field), field.description or "", children
    )


def name_type(annotation: Any) -> str:
    """Return a field's type in words."""
    if annotation in _WORDS:
        return _WORDS[annotation]
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return name_type(inner[0])
    if origin is Literal:
        return " | ".join(str(value) for value in inner)
    if origin in (Union, types.UnionType):
        return " | ".join(name_type(one) for one in inner if one is not type(None))
    if origin is list:
        return f"list of {name_type(inner[0])}"
    if origin is dict:
        return "mapping"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation.__name__.lower()
    return str(annotation)


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "required"
    if isinstance(field.default, BaseModel):
        return ""
    return "–" if field.default is None else str(field.default)


def recipe_schema() -> dict[str, Any]:
    """Return the JSON Schema of a recipe file, for editors."""
    schema = Recipe.model_json_schema()
    schema["properties"] = {
        "extends": {
            "description": "A recipe in the same folder that this one is laid over.",
            "type": "string",
        }
    } | schema["properties"]
    return {"$schema": SCHEMA_URL, **schema}


def recipe_reference() -> str:
    """Return the reference of all keys as a Markdown page."""
    lines = [
        "# Recipe reference",
        "",
        "Made from the recipe's types by `python scripts/generate.py`; `finetune explain KEY`",
        "shows the same. A recipe is YAML 1.2; unknown keys are refused with the nearest known",
        "one. Paths are relative to the recipe.",
        "`extends: other.yaml` lays a recipe over another one in the same folder.",
        "",
        "| key | type | default | meaning |",
        "|---|---|---|---|",
    ]
    for key, field in known_keys().items():
        help_ = describe_field(key, field)
        kind = help_.type.replace("|", "\\|")
        lines.append(f"| `{key}` | {kind} | {help_.default} | {help_.description} |")
    return "\n".join(lines) + "\n"
