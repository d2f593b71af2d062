"""What every converter stands on: how a source is read, and what is wrong with a row."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from finetune import records
from finetune.errors import DataError, UsageError
from finetune.records import Record
from finetune.text import plural


class ConvertError(DataError):
    """A row that does not fit its converter; it has a rule and a path, but no place yet."""


class LeftOut(ConvertError):
    """A row that is no training data by its nature, such as a binary file: no fault of the corpus.

    It is rejected with its rule, but does not count against `data.max_rejected`.
    """


class Detection(NamedTuple):
    r"""How the rows of a source are read.

    Attributes:
        format: Name of the converter.
        kind: Kind of the records that come out.
        columns: Which key of a row holds what, for converters that let it be said: the key's name,
            or a template of several, such as `"{subject}\n\n{body}"`.
        reason: What was seen, for people.
        roles: What the rows call their roles → our roles, beside those the format knows.
        also: Other kinds of record that the same rows hold, for when one is asked for.
    """

    format: str
    kind: str = "chat"
    columns: Mapping[str, str] = {}
    reason: str = ""
    roles: Mapping[str, str] = {}
    also: tuple[str, ...] = ()

    def column(self, name: str) -> str:
        """Return the row's key for `name`: the one that was said, else `name` itself."""
        return self.columns.get(name, name)

    def keys(self, name: str) -> tuple[str, ...]:
        """Return all keys of a row that make up `name`: more than one where it is a template."""
        return columns_of(self.column(name))

    def text(self, row: dict[str, Any], name: str) -> str:
        """Return the text that a row holds for `name`.

        Raises:
            ConvertError: A column is missing, or holds something else.
        """
        column = self.column(name)
        return _fill(column, row) if _is_template(column) else text_at(row, column)

    def optional_text(self, row: dict[str, Any], name: str) -> str:
        """Return the text that a row holds for `name`; absent and null are the empty text.

        Raises:
            ConvertError: A column holds something else.
        """
        column = self.column(name)
        if _is_template(column):
            return _fill(column, row, required=False)
        return optional_text(row, column)


# What may stand behind a column's name: a rating's threshold, what parts its labels.
_BEHIND = re.compile(r" (?:>= -?\d+(?:\.\d+)?|split by (?P<mark>\S+|\n))$")
_PARTS = re.compile(r"\{\{|\}\}|\{([^{}]+)\}|[{}]|[^{}]+")


class _Part(NamedTuple):
    """A piece of a template: literal text, or the name of a column."""

    text: str
    is_column: bool


@functools.cache
def _parse(template: str) -> tuple[_Part, ...]:
    parts = []
    for match in _PARTS.finditer(template):
        if match[1]:
            parts.append(_Part(match[1], is_column=True))
        elif match[0] in "{}":
            raise UsageError(
                f"columns: a brace without its other half at character {match.start() + 1}",
                hint="a template names columns as `{column}`; a brace of the text is doubled: `{{`",
            )
        else:
            parts.append(_Part({"{{": "{", "}}": "}"}.get(match[0], match[0]), is_column=False))
    if not any(part.is_column for part in parts):
        raise UsageError("columns: a template that names no column", hint="for example: `{body}`")
    return tuple(parts)


def columns_of(column: str) -> tuple[str, ...]:
    """Return the columns that a template names; a name that is no template stands for itself.

    Raises:
        UsageError: The template has half a pair of braces, or names no column.

    A threshold such as `stars >= 4`, which makes a rating of a number, names its column, and so
    does `topics split by ;`, which makes labels of a text.

    Example:
        >>> columns_of("{subject}: {body}"), columns_of("body")
        (('subject', 'body'), ('body',))
    """
    if not _is_template(column):
        return (_BEHIND.sub("", column),)
    return tuple(dict.fromkeys(part.text for part in _parse(column) if part.is_column))


def mark_of(column: str) -> str | None:
    """Return what parts the labels of a column, None where it is not said.

    Example:
        >>> mark_of("topics split by ;"), mark_of("topics")
        (';', None)
    """
    said = _BEHIND.search(column)
    return said["mark"] if said else None


def _is_template(column: str) -> bool:
    return "{" in column or "}" in column


def _fill(template: str, row: dict[str, Any], *, required: bool = True) -> str:
    """Return a template filled from a row; the empty text where all its columns are empty.

    Numbers and booleans become text as JSON writes them, null is empty.
    """
    parts = _parse(template)
    texts = [_as_text(row, part.text, required) if part.is_column else part.text for part in parts]
    if any(part.is_column and text for part, text in zip(parts, texts, strict=True)):
        return "".join(texts)
    return ""


def _as_text(row: dict[str, Any], column: str, required: bool) -> str:
    value = row.get(column)
    if isinstance(value, str):
        return value
    if value is None and (column in row or not required):
        return ""
    if isinstance(value, int | float):
        return msgspec.json.encode(value).decode()
    return text_at(row, column)


# Who speaks, in the words of formats and exports → our roles.
ROLES = {
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "function_response": "tool",
    "function-response": "tool",
}

_TYPES = {
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


def type_name(value: Any) -> str:
    """Return the JSON type of `value` for people: never the value itself."""
    return _TYPES.get(type(value), type(value).__name__)


def as_object(value: Any, path: str | None = None) -> dict[str, Any]:
    """Return `value` if it is an object.

    Raises:
        ConvertError: It is something else.
    """
    if isinstance(value, dict):
        return value
    raise ConvertError(f"expected an object, got {type_name(value)}", path=path, rule="type")


def list_at(value: dict[str, Any], key: str, path: str | None = None) -> list[Any]:
    """Return the list that stands in `value` under `key`.

    Raises:
        ConvertError: It is missing or something else.
    """
    return _typed_at(value, key, path, list, "a list")  # type: ignore[no-any-return]


def decoded(value: Any, path: str, rule: str) -> Any:
    """Return what a JSON text holds; anything but a text is returned as it is.

    Raises:
        ConvertError: The text is not JSON; `rule` is what it breaks.
    """
    if not isinstance(value, str):
        return value
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError):
        raise ConvertError("not a JSON text", path=path, rule=rule) from None


def decoded_at(text: str, start: int, path: str, rule: str) -> tuple[Any, int]:
    """Return the JSON value that begins at a place of a text, and where it ends.

    Raises:
        ConvertError: There is none; `rule` is what it breaks.
    """
    try:
        end = json.JSONDecoder().raw_decode(text, start)[1]
    except (ValueError, RecursionError):
        raise ConvertError("not a JSON text", path=path, rule=rule) from None
    # Python's reader only finds the end: it takes NaN and halves of surrogate pairs.
    return decoded(text[start:end], path, rule), end


def text_at(value: dict[str, Any], key: str, path: str | None = None) -> str:
    """Return the text that stands in `value` under `key`.

    Raises:
        ConvertError: It is missing, null or something else.
    """
    return _typed_at(value, key, path, str, "text")  # type: ignore[no-any-return]


def optional_text(value: dict[str, Any], key: str, path: str | None = None) -> str:
    """Return the text under `key`; absent and null are the empty text.

    Raises:
        ConvertError: It is something else.
    """
    return "" if value.get(key) is None else text_at(value, key, path)


def objects_in(values: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield place and value of each object in a list, or in the JSON text of one.

    Args:
        values: The list.
        path: Where it stands, for errors.

    Raises:
        ConvertError: It is no list, or holds something else.
    """
    values = decoded(values, path, "type")
    if not isinstance(values, list):
        rule = "missing-key" if values is None else "type"
        fact = "nothing" if values is None else type_name(values)
        raise ConvertError(f"expected a list, got {fact}", path=path, rule=rule)
    for number, value in enumerate(values):
        place = f"{path}[{number}]"
        yield place, as_object(value, place)


def _typed_at(value: dict[str, Any], key: str, path: str | None, kind: type, wanted: str) -> Any:
    found = value.get(key)
    if isinstance(found, kind):
        return found
    place = f"{path}.{key}" if path else key
    if found is None:
        raise ConvertError(
            f"expected {wanted}, got {'null' if key in value else 'nothing'}",
            path=place,
            rule="null" if key in value else "missing-key",
        )
    raise ConvertError(f"expected {wanted}, got {type_name(found)}", path=place, rule="type")


def weight_of(value: Any, path: str) -> float:
    """Return the weight of a message.

    Raises:
        ConvertError: It is no number from 0 to 1.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ConvertError("expected a number from 0 to 1", path=path, rule="weight")
    return float(value)


# Why an answer ended, where it did not end by itself (OpenAI, Anthropic).
_CUT = {"length", "content_filter", "max_tokens", "model_context_window_exceeded", "error"}


def check_end(reason: Any, path: str) -> None:
    """Leave an answer out that did not end by itself.

    Raises:
        LeftOut: It was cut off.
    """
    if isinstance(reason, str) and reason in _CUT:
        raise LeftOut("an answer that was cut off", path=path, rule="answer-cut")


def unknown_role(role: Any, path: str) -> ConvertError:
    """Return the error of a role that neither the format nor `roles` knows."""
    fact = (
        f"a text of {plural(len(role), 'character')}" if isinstance(role, str) else type_name(role)
    )
    return ConvertError(
        f"not a known role, but {fact}; `roles` (`--roles`) can say what it is",
        path=path,
        rule="role",
    )


_AT = re.compile(r"^(?P<fact>.*?)(?: - at `\$\.?(?P<path>.*)`)?$", re.DOTALL)
_FACTS = (
    (re.compile(r"Object missing required field `(.+)`"), "missing-key", "`{}` is missing"),
    (re.compile(r"Object contains unknown field `(.+)`"), "unknown-key", "`{}` is not a known key"),
    (re.compile(r"Expected `([\w |]+)`, got `(\w+)`"), "type", "expected {}, got {}"),
    (re.compile(r"Expected `(\w+) ([<>]=) ([\d.]+)`"), "value", "expected {} {} {}"),
)


def to_record(kind: str, value: Any) -> Record:
    """Return the record that plain objects make.

    Raises:
        ConvertError: They make none; the text quotes no content.
    """
    try:
        return records.from_object(kind, value)
    except msgspec.ValidationError as error:
        parts = _AT.match(str(error))
        fact, path = (parts["fact"], parts["path"]) if parts else ("", None)
    for pattern, rule, message in _FACTS:
        if found := pattern.fullmatch(fact):
            raise ConvertError(message.format(*found.groups()), path=path, rule=rule)
    rule = "role" if (path or "").endswith("role") else "value"
    raise ConvertError(f"not a value that a {kind} record takes here", path=path, rule=rule)
