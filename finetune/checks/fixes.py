"""The fixes: named, idempotent repairs of a record's JSON value.

A fix changes only what a finding names and never a text that is trained. Fixes of a whole line
(byte order mark, blank line, line end) are done by whoever writes the copy.
"""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from finetune.checks.structure import may_be_absent

Value = dict[str, Any]

_ALPHABET = string.ascii_letters + string.digits
_ID_LENGTH = 9


class Fix(NamedTuple):
    """A repair: `apply` changes a record's value in place; None where it is one of whole lines."""

    summary: str
    apply: Callable[[Value], None] | None = None


def _talks(value: Value) -> Iterator[list[Any]]:
    """Yield the lists of messages of a record."""
    for key in ("messages", "prompt", "chosen", "rejected", "completion"):
        messages = value.get(key)
        if isinstance(messages, list):
            yield messages


def _messages(value: Value) -> Iterator[Value]:
    for messages in _talks(value):
        for message in messages:
            if isinstance(message, dict):
                yield message


def _calls(message: Value) -> list[Value]:
    calls = message.get("tool_calls")
    return [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []


def _drop_null(value: Value) -> None:
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


def _merge_turns(value: Value) -> None:
    for messages in _talks(value):
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


def _move_system(value: Value) -> None:
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


def _trim_tail(value: Value) -> None:
    for key in ("messages", "chosen", "rejected", "completion"):
        messages = value.get(key)
        if not isinstance(messages, list):
            continue
        roles = [m.get("role") if isinstance(m, dict) else None for m in messages]
        if "assistant" in roles:
            while roles[-1] != "assistant":
                roles.pop()
            del messages[len(roles) :]


def _is_id(name: Any) -> bool:
    return isinstance(name, str) and len(name) == _ID_LENGTH and all(c in _ALPHABET for c in name)


def _make_id(seed: str, taken: set[str]) -> str:
    """Return 9 letters and digits that follow from `seed`, and are not yet `taken`."""
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest())
    text = "".join(_ALPHABET[number // 62**place % 62] for place in range(_ID_LENGTH))
    return text if text not in taken else _make_id(f"{seed}+", taken)


def _rewrite_call_ids(value: Value) -> None:
    # The parts of a record that make one conversation share their ids.
    whole = list(_messages(value))
    names = [call.get("id") for message in whole for call in _calls(message)]
    taken: set[str] = {name for name in names if isinstance(name, str) and _is_id(name)}
    new: dict[str, str] = {}
    unanswered: list[str] = []
    number = 0
    for message in whole:
        for call in _calls(message):
            number += 1
            name = call.get("id")
            if name is None or name in ("", "null"):
                call["id"] = _make_id(f"call {number}", taken)
            elif isinstance(name, str) and not _is_id(name):
                call["id"] = new.setdefault(name, _make_id(name, taken | set(new.values())))
            taken.add(call["id"] if isinstance(call["id"], str) else "")
            unanswered.append(call["id"])
        if message.get("role") == "tool":
            _answer(message, new, unanswered, taken)


def _answer(message: Value, new: dict[str, str], unanswered: list[str], taken: set[str]) -> None:
    """Give a result the id of its call; one without any id answers the first open call."""
    name = message.get("tool_call_id")
    if name is None or name in ("", "null"):
        if unanswered:
            message["tool_call_id"] = unanswered[0]
    elif isinstance(name, str) and not _is_id(name):
        message["tool_call_id"] = new.get(name) or _make_id(name, taken)
    if message.get("tool_call_id") in unanswered:
        unanswered.remove(message["tool_call_id"])


def _drop_empty_content(value: Value) -> None:
    for message in _messages(value):
        content, calls = message.get("content"), message.get("tool_calls")
        if calls and "content" in message and not content:
            del message["content"]
        elif content and "tool_calls" in message and not calls:
            del message["tool_calls"]


def _arguments_text(value: Value) -> None:
    for message in _messages(value):
        for call in _calls(message):
            function = call.get("function")
            if not isinstance(function, dict):
                continue
            arguments = function.get("arguments")
            if isinstance(arguments, dict):
                function["arguments"] = json.dumps(arguments, ensure_ascii=False)
            elif "arguments" in function and (arguments is None or arguments == ""):
                function["arguments"] = "{}"


FIXES: dict[str, Fix] = {
    "strip-bom": Fix("takes the byte order mark off"),
    "unix-lines": Fix("ends lines in LF alone"),
    "drop-blank-lines": Fix("leaves blank lines out"),
    "drop-null": Fix("leaves out optional keys that are null", _drop_null),
    "drop-empty-content": Fix("leaves out empty content beside calls", _drop_empty_content),
    "trim-tail": Fix("cuts the messages after the last answer", _trim_tail),
    "move-system": Fix("puts all system texts into one message in front", _move_system),
    "merge-turns": Fix("joins neighbours of one role by a blank line", _merge_turns),
    "rewrite-call-ids": Fix("gives calls and their results ids of 9 characters", _rewrite_call_ids),
    "arguments-text": Fix("writes arguments as the JSON text of an object", _arguments_text),
}


def apply_fixes(value: Value, names: Iterable[str]) -> set[str]:
    """Change a record's value in place; return the fixes that found something to do.

    Args:
        value: The JSON value of a line.
        names: Which fixes, in the order of FIXES.
    """
    done = set()
    for name in names:
        fix = FIXES[name]
        if fix.apply is not None:
            before = json.dumps(value)
            fix.apply(value)
            if json.dumps(value) != before:
                done.add(name)
    return done
