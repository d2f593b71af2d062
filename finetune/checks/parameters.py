"""Whether a call's arguments fit the parameters that its tool declares.

Schemas stand in data, so they never drive an engine: no pattern is run and no address fetched.
Only what is certain is looked at (`type`, `enum`, `required`, `properties`, `items`,
`additionalProperties`); whatever else a schema says is passed over.
"""

from __future__ import annotations

from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int, float),
    "number": (int, float),
    "null": (type(None),),
}
_SIMPLE = {str: "string", int: "integer", bool: "boolean"}  # most arguments
_MAX_DEPTH = 64


def explain_mismatch(value: Any, schema: Any, depth: int = 0) -> str | None:
    """Return the first way in which a value does not fit a schema, in words without its content.

    Args:
        value: The arguments.
        schema: The parameters of the tool, a JSON Schema.
        depth: How deep in the schema this is.
    """
    if not isinstance(schema, dict) or "$ref" in schema or depth > _MAX_DEPTH:
        return None
    expected = schema.get("type")
    names = [expected] if isinstance(expected, str) else expected
    if isinstance(names, list) and not any(_has_type(value, name) for name in names):
        return "a value of another type than the tool declares"
    allowed = schema.get("enum")
    if isinstance(allowed, list) and value not in allowed:
        return "a value that is none of those that the tool lists"
    if isinstance(value, dict):
        return _explain_object(value, schema, depth)
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        for item in value:
            if fact := explain_mismatch(item, schema["items"], depth + 1):
                return fact
    return None


def _has_type(value: object, name: object) -> bool:
    types = _TYPES.get(name) if isinstance(name, str) else None
    if types is None:
        return True  # a type that JSON Schema does not have is another rule's
    if isinstance(value, bool):
        return name == "boolean"
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return value is None if name == "null" else type(value) in types


def _explain_object(  # noqa: C901 (the usual argument is passed over here, for speed)
    value: dict[str, Any], schema: dict[str, Any], depth: int
) -> str | None:
    required, properties = schema.get("required"), schema.get("properties")
    if isinstance(required, list):
        for key in required:
            if isinstance(key, str) and key not in value:
                return "a key that the tool requires is missing"
    if not isinstance(properties, dict):
        return None
    closed = schema.get("additionalProperties") is False and "patternProperties" not in schema
    for key, item in value.items():
        if key in properties:
            declared = properties[key]
            if declared.__class__ is dict and "enum" not in declared:
                simple = _SIMPLE.get(item.__class__)
                if simple is not None and declared.get("type") == simple:
                    continue
            if fact := explain_mismatch(item, declared, depth + 1):
                return fact
        elif closed:
            return "a key that the tool does not declare"
    return None
