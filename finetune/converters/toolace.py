r"""ToolACE: functions listed in the system prompt, calls written as Python's.

| row                                                      | record |
|----------------------------------------------------------|--------|
| `"system": "… a list of functions … [{\"name\": …}] …"`  | `tools` |
| ToolACE's own text around the list                       | left out: it says how to write calls |
| any other text around it                                 | system message |
| `{"from": "assistant", "value": "[f(a=\"x\"), g(b=[1, 2])]"}` | assistant with `tool_calls` |
| `Get Weather`, `math.pow` as names | `Get_Weather`, `math_pow`, in tools and calls |
| types `dict`, `float`, `int` …                           | `object`, `number`, `integer` … |
| `{"from": "tool", "value": "R"}` after one call          | tool `R` |
| a list of as many results as calls, with their names     | a tool message each |
| other results of several calls                           | the row is rejected: `results` |
| values that are no literals, names that are not declared | the row is rejected: `call-text` |
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from finetune.converters.calls import Calls, tools_or_unset
from finetune.converters.functions import Names, read_functions
from finetune.converters.literals import literal_of
from finetune.converters.reading import (
    ROLES,
    ConvertError,
    Detection,
    as_object,
    decoded_at,
    list_at,
    optional_text,
    text_at,
    unknown_role,
)
from finetune.records import (
    AssistantMessage,
    ChatRecord,
    Message,
    Record,
    SystemMessage,
    ToolMessage,
    UserMessage,
)

FIELDS = ("conversations", "system")
_OWN = "You are an expert in composing functions."
_CALLED = re.compile(r"\[\s*[^\[\](){}=\"']{1,100}\(.*\)\s*\]", re.DOTALL)
_SPACE = re.compile(r"\s*")
_PARTS = re.compile(
    r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[()\[\]{}'"]""",
    re.DOTALL,
)


def recognise(rows: Sequence[Any], columns: Mapping[str, str]) -> Detection | None:
    """Return how `rows` are read, when they are ToolACE's."""
    source = Detection("toolace", "chat", dict(columns))
    key, system = source.column("conversations"), source.column("system")
    fitting = [
        row
        for row in rows
        if isinstance(row, dict) and isinstance(row.get(key), list) and _lists(row.get(system))
    ]
    if 2 * len(fitting) < len(rows) or not any(_calls(row[key]) for row in fitting):
        return None
    reason = f"functions in `{system}` and calls such as `[f(a=1)]`"
    return source._replace(reason=reason)


def _lists(text: Any) -> bool:
    return isinstance(text, str) and re.search(r'\[\s*\{\s*"', text) is not None


def _calls(turns: list[Any]) -> bool:
    return any(
        isinstance(turn, dict)
        and ROLES.get(str(turn.get("from"))) == "assistant"
        and isinstance(turn.get("value"), str)
        and _CALLED.fullmatch(turn["value"].strip())
        for turn in turns
    )


def convert(value: Any, source: Detection) -> list[Record]:
    """Return the conversation of one row.

    Raises:
        ConvertError: It is not certain what a part of it means.
    """
    row = as_object(value)
    key, system = source.column("conversations"), source.column("system")
    text, functions = _split(optional_text(row, system), system)
    names, calls = Names(), Calls()
    tools = read_functions(functions, names, system)
    declared = [text_at(as_object(item), "name").strip() for item in functions]
    messages: list[Message] = [SystemMessage(content=text)] if text else []
    waiting: list[str] = []
    for number, item in enumerate(list_at(row, key)):
        path = f"{key}[{number}]"
        turn = as_object(item, path)
        name, said = text_at(turn, "from", path), text_at(turn, "value", path)
        role = source.roles.get(name) or ROLES.get(name)
        if role == "user":
            messages.append(UserMessage(content=said))
        elif role == "system":
            messages.append(SystemMessage(content=said))
        elif role == "tool":
            messages += _results(said, waiting, names, calls, f"{path}.value")
            waiting = []
        elif role != "assistant":
            raise unknown_role(name, f"{path}.from")
        elif _CALLED.fullmatch(said.strip()):
            found = parse_calls(said.strip(), declared, f"{path}.value")
            made = [calls.call(names.new(one, path), given) for one, given in found]
            waiting = [one for one, _ in found]
            messages.append(AssistantMessage(tool_calls=made))
        else:
            messages.append(AssistantMessage(content=said))
    return [ChatRecord(messages=messages, tools=tools_or_unset(tools))]


def _split(text: str, path: str) -> tuple[str, list[Any]]:
    """Return the system prompt without the list of functions, and that list."""
    start = re.search(r'\[\s*\{\s*"', text)
    if start is None:
        return text, []
    functions, end = decoded_at(text, start.start(), path, "tools-text")
    if text.startswith(_OWN):
        return "", functions
    before, after = text[: start.start()], text[end:]
    return f"{before.rstrip()}\n{after.lstrip()}".strip(), functions


def parse_calls(text: str, declared: Sequence[str], path: str) -> list[tuple[str, dict[str, Any]]]:
    """Return name and arguments of calls such as `[f(a=1), g(b="x")]`.

    Args:
        text: The calls, in brackets.
        declared: The names that functions have; they may hold any characters.
        path: Where the text stands, for errors.

    Raises:
        ConvertError: It is not such a list, or a value is not a literal.
    """
    found: list[tuple[str, dict[str, Any]]] = []
    at, end = _space(text, 1), len(text) - 1
    while at < end:
        name = max((one for one in declared if text.startswith(f"{one}(", at)), key=len, default="")
        if not name:
            raise ConvertError("no declared function at this place", path=path, rule="call-text")
        close = _close(text, at + len(name))
        found.append((name, _parse_arguments(text[at + len(name) : close], path)))
        at = _space(text, close)
        if at < end and text[at] != ",":
            raise ConvertError("something else between two calls", path=path, rule="call-text")
        at = _space(text, at + 1)
    return found


def _space(text: str, at: int) -> int:
    """Return where the white space at a place ends."""
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _close(text: str, at: int) -> int:
    """Return where the bracket that opens at a place has been closed; the end if it is not."""
    depth = 0
    for part in _PARTS.finditer(text, at):
        if part[0] in "([{":
            depth += 1
        elif part[0] in ")]}":
            depth -= 1
            if depth == 0:
                return part.end()
        elif len(part[0]) == 1:  # a quote that is not closed
            break
    return len(text)


def _parse_arguments(text: str, path: str) -> dict[str, Any]:
    """Return the arguments in a call's brackets."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that Python does not have
            tree = ast.parse(f"f{text}", mode="eval").body
        if isinstance(tree, ast.Call) and not tree.args:
            found = {_named(word): literal_of(word.value) for word in tree.keywords}
            if len(found) == len(tree.keywords):
                return found
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        pass
    raise ConvertError("arguments that are not literals with names", path=path, rule="call-text")


def _named(word: ast.keyword) -> str:
    if word.arg is None:
        raise ValueError
    return word.arg


def _results(
    text: str, waiting: list[str], names: Names, calls: Calls, path: str
) -> list[ToolMessage]:
    """Return the results of the calls that wait, which must be told apart."""
    if len(waiting) < 2:
        return [ToolMessage(content=text, tool_call_id=calls.answer(None, path))]
    try:
        values = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        values = None
    results = (
        [item for item in values if isinstance(item, dict)] if isinstance(values, list) else []
    )
    if [item.get("name") for item in results] != waiting:
        fact = f"results that cannot be told apart, of {len(waiting)} calls"
        raise ConvertError(fact, path=path, rule="results")
    made = []
    for name, item in zip(waiting, results, strict=True):
        result = item.get("results", item)
        content = result if isinstance(result, str) else msgspec.json.encode(result).decode()
        answered = calls.answer(None, path, names.new(name, path))
        made.append(ToolMessage(content=content, tool_call_id=answered))
    return made
