"""Functions of tool data sets: names that Mistral takes, and JSON Schemas for their parameters."""

from __future__ import annotations

import re
from typing import Any

from finetune.converters.reading import ConvertError, as_object, optional_text, text_at
from finetune.records import Function, Tool

_BAD = re.compile(r"[^A-Za-z0-9_-]")
# Types as Python, Java and people write them → JSON Schema.
_TYPES = {
    "str": "string",
    "string": "string",
    "char": "string",
    "int": "integer",
    "integer": "integer",
    "long": "integer",
    "float": "number",
    "double": "number",
    "number": "number",
    "bool": "boolean",
    "boolean": "boolean",
    "list": "array",
    "tuple": "array",
    "set": "array",
    "array": "array",
    "arraylist": "array",
    "dict": "object",
    "hashmap": "object",
    "object": "object",
    "none": "null",
    "null": "null",
}
_OPTIONAL = re.compile(r"(?:,\s*optional\s*$)|(?:^optional\[(?P<inner>.+)\]$)", re.IGNORECASE)
_LISTS = re.compile(r"^(?:list|array|set)\[(?P<item>.+)\]$", re.IGNORECASE)
_DICTS = re.compile(r"^dict\[.+\]$", re.IGNORECASE)
_LISTS_OF_SCHEMAS = ("anyOf", "oneOf", "allOf")
_DEEPEST = 64


class Names:
    """The names of a row's functions, with `_` for what Mistral does not take.

    Raises:
        ConvertError: Two functions would have one name.
    """

    def __init__(self) -> None:
        self._old: dict[str, str] = {}

    def new(self, old: str, path: str) -> str:
        """Return the name that a function gets."""
        name = _BAD.sub("_", old.strip())
        if self._old.setdefault(name, old.strip()) != old.strip():
            fact = "two functions whose names differ only in characters that are not taken"
            raise ConvertError(fact, path=path, rule="function-name")
        return name


def read_functions(values: list[Any], names: Names, path: str) -> list[Tool]:
    """Return the tools of a list of functions, whose types may be Python's.

    Raises:
        ConvertError: One is no function.
    """
    tools = []
    for number, item in enumerate(values):
        place = f"{path}[{number}]"
        value = as_object(item, place)
        if "function" in value:
            value, place = as_object(value["function"], f"{place}.function"), f"{place}.function"
        parameters = value.get("parameters") or value.get("arguments") or {}
        function = Function(
            name=names.new(text_at(value, "name", place), f"{place}.name"),
            description=optional_text(value, "description", place),
            parameters=schema_of(as_object(parameters, f"{place}.parameters")),
        )
        tools.append(Tool(function=function))
    return tools


def schema_of(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON Schema of a function's parameters.

    Args:
        parameters: A schema with the types of any language, or name → `{"type", "description"}`.
    """
    if isinstance(parameters.get("properties"), dict) and isinstance(parameters.get("type"), str):
        return _translate(parameters)
    described = {name: item for name, item in parameters.items() if isinstance(item, dict)}
    required = [
        name
        for name, item in described.items()
        if "default" not in item
        and item.get("required") is not False
        and not _OPTIONAL.search(str(item.get("type", "")))
    ]
    properties = {name: _translate(item) for name, item in described.items()}
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    return {**schema, "required": required} if required else schema


def check_depth(depth: int) -> int:
    """Return the next depth.

    Raises:
        ConvertError: It is deeper than a record may be.
    """
    if depth > _DEEPEST:
        raise ConvertError(f"deeper than {_DEEPEST} levels", rule="too-deep")
    return depth + 1


def _translate(schema: dict[str, Any], depth: int = 1) -> dict[str, Any]:
    """Return a schema with JSON Schema's types; a type that is none goes to the description."""
    deeper = check_depth(depth)
    made = {key: item for key, item in schema.items() if key != "type"}
    if isinstance(made.get("required"), bool):  # of the older drafts: the list above has it
        del made["required"]
    for key, item in made.items():
        if key == "properties" and isinstance(item, dict):
            made[key] = {
                name: _translate(part, deeper) if isinstance(part, dict) else {}
                for name, part in item.items()
            }
        elif key in {"items", "additionalProperties"} and isinstance(item, dict):
            made[key] = _translate(item, deeper)
        elif key in _LISTS_OF_SCHEMAS and isinstance(item, list):
            made[key] = [
                _translate(part, deeper) if isinstance(part, dict) else part for part in item
            ]
    kind = schema.get("type")
    if isinstance(kind, list):
        return {"type": kind, **made}
    if not isinstance(kind, str):
        return made
    known = _type_schema(kind)
    if known is None:
        told = schema.get("description")
        made["description"] = f"{told} ({kind})" if told else kind
        return made
    return {**known, **made}


def _type_schema(kind: str) -> dict[str, Any] | None:
    """Return the schema of a type's name; None where JSON Schema has no such type."""
    kind = kind.strip()
    if optional := _OPTIONAL.search(kind):
        kind = (optional["inner"] or kind[: optional.start()]).strip()
    if kind.lower() in {"any", ""}:
        return {}
    if kind.lower() in _TYPES:
        return {"type": _TYPES[kind.lower()]}
    if listed := _LISTS.match(kind):
        items = _type_schema(listed["item"])
        return {"type": "array"} if items is None else {"type": "array", "items": items}
    return {"type": "object"} if _DICTS.match(kind) else None
