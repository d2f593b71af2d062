"""OASST as a table: a message a row, as `OpenAssistant/oasst1` and `oasst2` publish it.

| row                                                        | record                              |
| ---------------------------------------------------------- | ----------------------------------- |
| `{"message_id", "parent_id", "message_tree_id", "text", …}` | a tree's rows: as `oasst` reads it |
| no `message_tree_id` | the row is rejected: `no-conversation` |
| a tree without its first message, or with two              | its rows are rejected: `tree-root`  |
| a reply to a message that is not there                     | left out with its replies           |
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from finetune.converters import oasst
from finetune.converters.reading import ConvertError, Detection, as_object, optional_text, text_at
from finetune.converters.turns import Place
from finetune.records import Record

FIELDS = ("message_id", "parent_id", "message_tree_id", "text", "role", "rank")
EXTRA = ("deleted", "review_result")


def recognise(rows: Sequence[Any], columns: Mapping[str, str]) -> Detection | None:
    """Return how `rows` are read, when each is a message of a tree."""
    source = Detection("oasst-table", "chat", dict(columns), also=("preference",))
    needed = {source.column(name) for name in FIELDS if name != "rank"}
    if 2 * sum(isinstance(row, dict) and needed <= row.keys() for row in rows) < len(rows):
        return None
    return source._replace(reason="one message of a tree a row")


def group(value: Any, source: Detection) -> Place:
    """Return the tree that a row belongs to.

    Raises:
        ConvertError: It names none.
    """
    row, column = as_object(value), source.column("message_tree_id")
    if not row.get(column):
        raise ConvertError(
            "nothing where the tree is expected", path=column, rule="no-conversation"
        )
    return Place(text_at(row, column), (0, 0))


def convert(value: Any, source: Detection) -> list[Record]:
    """Return what the rows of one tree make.

    Raises:
        ConvertError: A row is no message, or the tree has no first message.
        LeftOut: It was deleted, refused by its reviewers, or never answered.
    """
    rows = value if isinstance(value, list) else [value]
    nodes: dict[str, dict[str, Any]] = {}
    parents: dict[str, str] = {}
    for row in map(as_object, rows):
        name = text_at(row, source.column("message_id"))
        if name in nodes:
            raise ConvertError("two messages of one id", path="message_id", rule="tree-root")
        parents[name] = optional_text(row, source.column("parent_id"))
        nodes[name] = {part: row.get(source.column(part)) for part in ("text", "role", *EXTRA)}
        nodes[name] |= {"rank": _rank(row.get(source.column("rank"))), "replies": []}
    roots = [node for name, node in nodes.items() if not parents[name]]
    if len(roots) != 1:
        raise ConvertError(
            f"{len(roots):,} first messages in one tree",
            path=source.column("parent_id"),
            rule="tree-root",
        )
    for name, node in nodes.items():
        if parents[name] in nodes:
            nodes[parents[name]]["replies"].append(node)
    return oasst.convert({"prompt": roots[0]}, Detection("oasst", source.kind))


def _rank(value: Any) -> Any:
    """Return a rank as a number where a table of text cells holds it."""
    if isinstance(value, str):
        value = value.strip()
        return float(value) if value.replace(".", "", 1).isdecimal() else value or None
    return None if isinstance(value, float) and math.isnan(value) else value
