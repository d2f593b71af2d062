"""The fixes: named, idempotent repairs of a record's JSON value.

A fix changes only what a finding names. Those that are made without being named never change a
text that is trained, other than as the encoder itself would. Fixes of a whole line (byte order
mark, blank line, line end) are done by whoever writes the copy.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import NamedTuple

from finetune.checks.fixes import calls, texts, turns
from finetune.checks.fixes.walk import Value
from finetune.errors import UsageError
from finetune.text import did_you_mean

__all__ = ["DEFAULT_FIXES", "FIXES", "Fix", "apply_fixes", "find_fixes"]


class Fix(NamedTuple):
    """A repair: `apply` changes a record's value in place; None where it is one of whole lines.

    One that is `asked` is made only where it is named, since it changes or invents what is trained.
    """

    summary: str
    apply: Callable[[Value], None] | None = None
    asked: bool = False


FIXES: dict[str, Fix] = {
    "strip-bom": Fix("takes the byte order mark off"),
    "unix-lines": Fix("ends lines in LF alone"),
    "drop-blank-lines": Fix("leaves blank lines out"),
    "drop-null": Fix("leaves out optional keys that are null", turns.drop_null),
    "drop-empty-content": Fix("leaves out empty content beside calls", calls.drop_empty_content),
    "drop-call-content": Fix("leaves out the text beside calls", calls.drop_call_content, True),
    "split-call-content": Fix(
        "gives the text beside calls a message of its own", calls.split_call_content, True
    ),
    "trim-tail": Fix("cuts the messages after the last answer", turns.trim_tail),
    "move-system": Fix("puts all system texts into one message in front", turns.move_system),
    "merge-turns": Fix("joins neighbours of one role by a blank line", turns.merge_turns),
    "rewrite-call-ids": Fix(
        "gives calls and their results ids of 9 characters", calls.rewrite_call_ids
    ),
    "arguments-text": Fix("writes arguments as the JSON text of an object", calls.arguments_text),
    "close-json": Fix(
        "closes the brackets of arguments that lack nothing else", calls.close_json, True
    ),
    "declare-tools": Fix(
        "declares tools as their calls show them, marked as inferred", calls.declare_tools, True
    ),
    "strip-template": Fix(
        "takes markers of chat templates off both ends of a text", texts.strip_template, True
    ),
    "repair-encoding": Fix(
        "decodes texts again that were decoded with the wrong encoding",
        texts.repair_encoding,
        True,
    ),
}
DEFAULT_FIXES = tuple(name for name, fix in FIXES.items() if not fix.asked)


def find_fixes(names: Iterable[str]) -> tuple[str, ...]:
    """Return the named fixes, each once, in the order in which they are made.

    Raises:
        UsageError: There is no such fix.
        MissingExtra: A fix needs a library that is not installed.
    """
    wanted = set(names)
    for name in sorted(wanted - FIXES.keys()):
        raise UsageError(
            f"{name}: no such fix",
            hint=did_you_mean(name, FIXES) or f"fixes are {', '.join(FIXES)}",
        )
    if "repair-encoding" in wanted:
        texts.load_encoding_repair()
    return tuple(name for name in FIXES if name in wanted)


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
