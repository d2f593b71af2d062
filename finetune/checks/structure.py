"""Why a line is not a record: the published schema's faults, in our words.

Only lines that did not decode come here. The library's own messages quote the record, so none of
them is used; keys that the format does not have are counted, not named, since they may be
personal data.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from finetune.checks.lines import name_of
from finetune.checks.report import Fault
from finetune.files import read_json
from finetune.shipped import shipped_folder
from finetune.text import nearest, plural

_MESSAGES = "messages.schema.json"
_TYPES = {
    "string": "a text",
    "array": "a list",
    "object": "an object",
    "number": "a number",
    "boolean": "true or false",
}
# What other formats call the roles and keys of this one.
_ROLES = {
    "human": "user",
    "person": "user",
    "prompter": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "chatbot": "assistant",
    "developer": "system",
    "function": "tool",
    "observation": "tool",
    "ipython": "tool",
}
_KEYS = {
    "conversations": "messages",
    "interactions": "messages",
    "conversation": "messages",
    "from": "role",
    "value": "content",
    "functions": "tools",
    "available_tools": "tools",
    "function_call": "tool_calls",
    "label": "labels",
}


@functools.cache
def _validator(kind: str) -> Any:
    from jsonschema import Draft202012Validator
    from referencing import Registry, Resource

    folder = shipped_folder("data_schemas")
    shared = Resource.from_contents(read_json(folder / _MESSAGES))
    registry = Registry().with_resource(_MESSAGES, shared)
    schema = read_json(folder / f"{kind}.schema.json")
    return Draft202012Validator(schema, registry=registry)


@functools.cache
def _known_keys() -> frozenset[str]:
    """Return every key that a record can have."""
    keys: set[str] = set()

    def collect(schema: Any) -> None:
        if isinstance(schema, dict):
            keys.update(schema.get("properties", {}))
            for part in schema.values():
                collect(part)
        elif isinstance(schema, list):
            for part in schema:
                collect(part)

    for path in shipped_folder("data_schemas").glob("*.schema.json"):
        if path.name.partition(".")[0] in _RECORDS:
            collect(read_json(path))
    return frozenset(keys)


_RECORDS = {"messages", "chat", "text", "classifier", "preference", "rating"}


def explain_structure(kind: str, value: Any) -> list[Fault]:
    """Return every way in which a value is not a record of a kind.

    Args:
        kind: The kind of record.
        value: The JSON value of a line.
    """
    faults: dict[Fault, None] = {}
    for error in _validator(kind).iter_errors(value):
        for fault in _explain(error, value):
            faults[fault] = None
    return sorted(faults, key=lambda fault: fault.path)


def _explain(error: Any, record: Any) -> Iterator[Fault]:
    path = show_path(error.absolute_path)
    match error.validator:
        case "required":
            for key in error.validator_value:
                if key not in error.instance:
                    yield Fault("missing-key", path, f"`{key}` is missing")
        case "additionalProperties":
            known = error.schema["properties"]
            for key in error.instance.keys() - known.keys():
                yield Fault("unknown-key", path, _describe_key(key, known))
        case "type":
            yield _explain_type(error, path, record)
        case "enum" | "const":
            yield _explain_value(error, path)
        case "minimum" | "maximum":
            yield Fault("weight", path, "not from 0 to 1")
        case _:
            yield Fault("schema", path, f"breaks `{error.validator}` of the schema")


def _explain_type(error: Any, path: str, record: Any) -> Fault:
    if error.instance is None and may_be_absent(record, list(error.absolute_path)):
        return Fault("null", path, "null: leave the key out")
    types = error.validator_value
    expected = " or ".join(_TYPES[name] for name in ([types] if isinstance(types, str) else types))
    if path.endswith(".arguments") and error.instance is None:
        return Fault("arguments", path, "null")
    return Fault("type", path, f"{name_of(error.instance)} where {expected} is expected")


def _explain_value(error: Any, path: str) -> Fault:
    allowed = error.validator_value if error.validator == "enum" else [error.validator_value]
    listed = ", ".join(f"`{name}`" for name in allowed)
    rule = "role" if path.endswith(".role") else "value"
    given = error.instance if isinstance(error.instance, str) else ""
    meant = _ROLES.get(given.lower()) if rule == "role" else None
    meant = meant or nearest(given, allowed)
    hint = f"; did you mean `{meant}`?" if meant else ""
    return Fault(rule, path, f"expected {listed}{hint}")


def _describe_key(key: str, known: Mapping[str, Any]) -> str:
    meant = _KEYS.get(key)
    meant = meant if meant in known else nearest(key, known)
    hint = f"; did you mean `{meant}`?" if meant else ""
    return f"an unknown key of {plural(len(key), 'character')}{hint}"


def may_be_absent(record: Any, path: Sequence[str | int]) -> bool:
    """Return whether the key at the end of `path` may be left out of its object."""
    parent = record
    for part in path[:-1]:
        parent = parent[part]
    key = path[-1] if path else None
    if not isinstance(parent, dict):
        return False
    if key == "content":
        return parent.get("role") == "assistant"
    if key == "name":
        return parent.get("role") == "tool"
    if key == "type":
        return "function" in parent
    if key in {"text", "messages"}:
        return "labels" in parent
    return key in {"tools", "tool_calls", "weight", "id", "tool_call_id"} | {
        "description",
        "strict",
        "closed",
    }


def show_path(parts: Sequence[str | int]) -> str:
    """Return a path as `messages[3].role`; a key that is the record's own is `*`."""
    text = ""
    for part in parts:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part if part in _known_keys() else '*'}"
    return text.removeprefix(".")


def known_part(kind: str, value: Any) -> Any:
    """Return a copy of a value without unknown keys and without optional keys that are broken."""
    copy = json.loads(json.dumps(value))
    for error in sorted(
        _validator(kind).iter_errors(value), key=lambda error: -len(error.absolute_path)
    ):
        path = list(error.absolute_path)
        parent = functools.reduce(lambda item, part: item[part], path[:-1], copy)
        if error.validator == "additionalProperties":
            inner = parent[path[-1]] if path else copy
            for key in error.instance.keys() - error.schema["properties"].keys():
                inner.pop(key, None)
        elif path and may_be_absent(value, path):
            parent.pop(path[-1], None)
    return copy
