"""Recipe YAML → plain values with the line of every key.

YAML 1.2: `1e-4` is a number and `no` is a string. Tags, aliases that explode and documents
without end are refused before anything is built from them.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedBase
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from finetune.errors import RecipeError

MAX_BYTES = 2**20
MAX_NODES = 10_000
MAX_DEPTH = 20
MAX_BRACKETS = 200  # more would only cost the parser time, before MAX_DEPTH is looked at
Key = tuple[str | int, ...]


class Document(NamedTuple):
    """A recipe as written.

    `values` are plain Python values; `places` tells for each key path where it stands,
    such as `support.yaml:12`.
    """

    values: dict[str, Any]
    places: dict[Key, str]


def read_document(path: Path) -> Document:
    """Read one recipe file.

    Raises:
        RecipeError: It is missing, not YAML, or not a mapping.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise RecipeError(
            f"{path}: no such recipe", hint="`finetune recipes` lists those that are shipped"
        ) from None
    except IsADirectoryError:
        raise RecipeError(f"{path}: is a folder, not a recipe") from None
    if len(data) > MAX_BYTES:
        raise RecipeError(f"{path}: {len(data):,} bytes are too many for a recipe (1 MiB)")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: byte {error.start} is not UTF-8") from None
    value = _parse(text, str(path))
    if value is None:
        raise RecipeError(f"{path}: is empty", hint="`finetune init DATA` writes a recipe")
    if not isinstance(value, Mapping):
        raise RecipeError(f"{path}: must be a mapping, this is {_name(value)}")
    return Document(*_plain(value, path.name))


def read_value(text: str, place: str) -> Any:
    """Return the YAML value of an override, such as `[a, b]` or `1e-4`.

    Raises:
        RecipeError: It is not one YAML value.
    """
    value = _parse(text, place)
    return _plain({"value": value}, place)[0]["value"]


def _parse(text: str, place: str) -> Any:
    if _nesting(text) > MAX_BRACKETS:
        raise RecipeError(f"{place}: too large or too deep for a recipe")
    yaml = YAML(typ="rt", pure=True)
    yaml.composer.warn_double_anchors = False  # YAML 1.2 has them; a warning would quote the file
    try:
        return yaml.load(io.StringIO(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        problem = (error.problem or error.context or "cannot be read").split("\n")[0]
        raise RecipeError(f"{place}{line}: not YAML: {problem}") from None
    except (YAMLError, RecursionError, ValueError, TypeError):  # a list or mapping as a key, too
        raise RecipeError(f"{place}: not YAML that can be read") from None


def _nesting(text: str) -> int:
    """Return how deep brackets stand in brackets, those inside quotes included."""
    steps = ((char in "[{") - (char in "]}") for char in text)
    return max(itertools.accumulate(steps), default=0)


def _plain(tree: Any, place: str) -> tuple[dict[str, Any], dict[Key, str]]:
    """Return plain values and the place of every key; aliases count at every use."""
    places: dict[Key, str] = {}
    nodes = 0

    def walk(value: Any, key: Key) -> Any:
        nonlocal nodes
        nodes += 1
        where = places.get(key, place)
        if nodes > MAX_NODES or len(key) > MAX_DEPTH:
            raise RecipeError(f"{where}: too large or too deep for a recipe")
        if isinstance(value, CommentedBase) and value.tag.value is not None:
            raise RecipeError(f"{where}: {_dotted(key)}: tags are not read")
        if isinstance(value, Mapping):
            return {name: child(value, name, key) for name in value}
        if isinstance(value, list):
            return [child(value, index, key) for index in range(len(value))]
        return _scalar(value, f"{where}: {_dotted(key)}")

    def child(parent: Any, name: Any, key: Key) -> Any:
        if isinstance(parent, Mapping) and not isinstance(name, str):
            raise RecipeError(f"{places.get(key, place)}: a key must be text, not {_name(name)}")
        inner = (*key, name)
        marks = getattr(parent, "lc", None)
        if marks is not None and marks.data and name in marks.data:
            places[inner] = f"{place}:{marks.data[name][0] + 1}"
        return walk(parent[name], inner)

    return walk(tree, ()), places


def _scalar(value: Any, where: str) -> Any:
    if value is None:
        return None
    for plain in (bool, int, float, str):
        if isinstance(value, plain):
            return plain(value)
    raise RecipeError(f"{where}: only plain YAML values are read")


def _dotted(key: Key) -> str:
    return ".".join(str(part) for part in key)


def _name(value: Any) -> str:
    if isinstance(value, str):
        return "a text"
    if isinstance(value, list):
        return "a list"
    return "nothing" if value is None else f"a {type(value).__name__}"
