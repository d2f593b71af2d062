"""Repairs of a conversation's turns."""

from __future__ import annotations

from typing import Any

from finetune.checks.fixes.walk import Value, talks_of
from finetune.checks.structure import may_be_absent


def drop_null(value: Value) -> None:
    """Leave out optional keys that are null."""
    stack: list[tuple[Any, list[str | int]]] = [(value, [])]
    while stack:
        item, path = stack.pop()
        if isinstance(item, dict):
            for key in [key for key in item if item[key] is None]:
                if may_be_absent(value, [*path, key]):
                    del item[key]
        free = {"parameters", "arguments", "labels"}  # here null may mean something
        parts = item.items() if isinstance(item, dict) else enumerate(item)
        stack += [
            (part, [*path, key])
            for key, part in parts
            if isinstance(part, dict | list) and key not in free
        ]


def merge_turns(value: Value) -> None:
    """Join neighbours of one role by a blank line, as the encoder does."""
    for messages in talks_of(value):
        index = 1
        while index < len(messages):
            before, message = messages[index - 1], messages[index]
            if _can_merge(before, message):
                before["content"] = f"{before['content']}\n\n{message['content']}"
                del messages[index]
            else:
                index += 1


def _can_merge(before: Any, message: Any) -> bool:
    if not (isinstance(before, dict) and isinstance(message, dict)):
        return False
    plain = {"role", "content", "weight"}
    texts = [isinstance(item.get("content"), str) and item["content"] for item in (before, message)]
    return (
        before.get("role") == message.get("role") != "tool"
        and not (before.keys() | message.keys()) - plain
        and before.get("weight", 1) == message.get("weight", 1)
        and all(texts)
    )


def move_system(value: Value) -> None:
    """Put all system texts into one message in front."""
    for key in ("messages", "prompt"):
        messages = value.get(key)
        if not isinstance(messages, list):
            continue
        systems = [m for m in messages if isinstance(m, dict) and m.get("role") == "system"]
        if not systems or not all(isinstance(m.get("content"), str) for m in systems):
            continue
        rest = [m for m in messages if m not in systems]
        texts = dict.fromkeys(m["content"] for m in systems if m["content"])
        messages[:] = [{"role": "system", "content": "\n\n".join(texts)}, *rest]


def trim_tail(value: Value) -> None:
    """Cut the messages after the last answer."""
    for key in ("messages", "chosen", "rejected", "completion"):
        messages = value.get(key)
        if not isinstance(messages, list):
            continue
        roles = [m.get("role") if isinstance(m, dict) else None for m in messages]
        if "assistant" in roles:
            while roles[-1] != "assistant":
                roles.pop()
            del messages[len(roles) :]
