"""OASST: a tree of messages a row, its replies ranked by people.

| row                                                        | records                             |
| ---------------------------------------------------------- | ----------------------------------- |
| `{"prompt": {"text", "role": "prompter", "replies": […]}}` | `oasst`: by the best replies        |
| the same | `oasst-paths`: a record for every path |
| an answer that stands in several paths | is trained in the first, else `weight` 0 |
| the same, kind preference | at each question the best ranked reply before each worse one |
| role `prompter`, `assistant`                               | user, assistant                     |
| the lowest `rank`; without one, behind the ranked; else the first | the best reply               |
| a question without an answer at the end                    | left out                            |
| `"deleted": true`, `"review_result": false`                | left out with its replies           |
| … when it is the first message                             | the row is left out: `not-reviewed` |
| no answer, or no two that differ in rank | the row is left out: `no-answer`, `tied-answers` |

Source: OpenAssistant's `oasst_data/schemas.py` (ExportMessageTree, ExportMessageNode), 2023-04.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from finetune.converters.reading import (
    ConvertError,
    Detection,
    LeftOut,
    as_object,
    list_at,
    text_at,
)
from finetune.records import (
    AssistantMessage,
    ChatRecord,
    Message,
    PreferenceRecord,
    Record,
    UserMessage,
)

FIELDS = ("prompt",)
_ROLES: dict[str, type[UserMessage | AssistantMessage]] = {
    "prompter": UserMessage,
    "assistant": AssistantMessage,
}
_MAX_DEPTH = 200  # messages of a path

Node = dict[str, Any]
Path = list[tuple[Node, str]]  # each message with its place in the row


def recognise(rows: Sequence[Any], columns: Mapping[str, str]) -> Detection | None:
    """Return how `rows` are read, when they are trees."""
    source = Detection("oasst", "chat", dict(columns), also=("preference",))
    fitting = sum(_is_tree(row, source.column("prompt")) for row in rows)
    if 2 * fitting < len(rows):
        return None
    return source._replace(reason=f"`{source.column('prompt')}` with `replies`")


def recognise_paths(_rows: Sequence[Any], _columns: Mapping[str, str]) -> Detection | None:
    """Return None: every path is read only where that is said."""
    return None


def _is_tree(row: Any, column: str) -> bool:
    node = row.get(column) if isinstance(row, dict) else None
    return isinstance(node, dict) and {"text", "role", "replies"} <= node.keys()


def convert(value: Any, source: Detection) -> list[Record]:
    """Return the conversation along the best replies, or the ranked pairs, of one tree.

    Raises:
        ConvertError: A message is not one of the table.
        LeftOut: It was deleted, refused by its reviewers, or never answered.
    """
    root, column = _root(value, source)
    if source.kind == "preference":
        return _pairs(root, column)
    path: Path = [(root, column)]
    while replies := _replies(*path[-1]):
        path.append(min(replies, key=lambda reply: _rank(*reply)))
        _check_depth(path)
    return [ChatRecord(messages=_messages(_answered(path, column)))]


def convert_paths(value: Any, source: Detection) -> list[Record]:
    """Return a conversation for every path of one tree.

    Raises:
        ConvertError: A message is not one of the table.
        LeftOut: It was deleted, refused by its reviewers, or never answered.
    """
    root, column = _root(value, source)
    trained: set[str] = set()
    made: list[Record] = []
    for path in _paths([(root, column)]):
        while path and path[-1][0].get("role") != "assistant":
            path.pop()
        if not path or path[-1][1] in trained:
            continue
        messages = _messages(path)
        for message, (_, place) in zip(messages, path, strict=True):
            if isinstance(message, AssistantMessage) and place in trained:
                message.weight = 0.0
        trained |= {place for _, place in path}
        made.append(ChatRecord(messages=messages))
    if not made:
        raise LeftOut("no message is answered", path=column, rule="no-answer")
    return made


def _root(value: Any, source: Detection) -> tuple[Node, str]:
    row, column = as_object(value), source.column("prompt")
    root = as_object(row.get(column), column)
    if not _is_reviewed(root):
        raise LeftOut("deleted, or refused in review", path=column, rule="not-reviewed")
    return root, column


def _is_reviewed(node: Node) -> bool:
    return node.get("deleted") is not True and node.get("review_result") is not False


def _replies(node: Node, place: str) -> Path:
    if node.get("replies") is None:
        return []
    found = []
    for number, reply in enumerate(list_at(node, "replies", place)):
        path = f"{place}.replies[{number}]"
        if _is_reviewed(as_object(reply, path)):
            found.append((reply, path))
    return found


def _rank(node: Node, place: str) -> float:
    """Return a reply's rank: 0 is the best, and those without one come last."""
    rank = node.get("rank")
    if rank is None:
        return float("inf")
    if isinstance(rank, bool) or not isinstance(rank, int | float):
        raise ConvertError("expected a number", path=f"{place}.rank", rule="answer-marks")
    return rank


def _check_depth(path: Path) -> None:
    if len(path) > _MAX_DEPTH:
        raise ConvertError(f"over {_MAX_DEPTH} messages deep", path=path[0][1], rule="too-deep")


def _answered(path: Path, column: str) -> Path:
    """Return a path without the question that nobody answered at its end."""
    while path and path[-1][0].get("role") == "prompter":
        path.pop()
    if not path:
        raise LeftOut("no message is answered", path=column, rule="no-answer")
    return path


def _paths(path: Path) -> Iterator[Path]:
    _check_depth(path)
    replies = _replies(*path[-1])
    if not replies:
        yield list(path)
    for reply in sorted(replies, key=lambda reply: _rank(*reply)):
        yield from _paths([*path, reply])


def _pairs(root: Node, column: str) -> list[Record]:
    made: list[Record] = []
    waiting: list[Path] = [[(root, column)]]
    while waiting:
        path = waiting.pop()
        _check_depth(path)
        replies = _replies(*path[-1])
        waiting += [[*path, reply] for reply in reversed(replies)]
        if path[-1][0].get("role") != "prompter":
            continue
        ranked = [reply for reply in replies if _rank(*reply) < float("inf")]
        best = min((_rank(*reply) for reply in ranked), default=0)
        made += [
            PreferenceRecord(
                prompt=_messages(path), chosen=_messages([good]), rejected=_messages([worse])
            )
            for good in ranked
            for worse in ranked
            if _rank(*good) == best < _rank(*worse)
        ]
    if not made:
        raise LeftOut("no answer is better than another", path=column, rule="tied-answers")
    return made


def _messages(path: Path) -> list[Message]:
    return [_message(node, place) for node, place in path]


def _message(node: Node, place: str) -> Message:
    role = text_at(node, "role", place)
    if role not in _ROLES:
        raise ConvertError(
            f"not one of {', '.join(_ROLES)}, but {len(role)} other characters",
            path=f"{place}.role",
            rule="role",
        )
    return _ROLES[role](content=text_at(node, "text", place))
