"""Readers of what people give us, each as a function that any bytes may be given to.

A target returns where the bytes were read or refused in our words, and raises where they were not:
an exception that is not ours, a finding without a rule, rows out of order.
"""

from __future__ import annotations

import copy
import functools
import io
import itertools
import math
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from finetune.checks import RULES, Checker
from finetune.converters import CONVERTERS, ConvertError, detect
from finetune.corpus.archives import Archive
from finetune.corpus.containers import open_container
from finetune.errors import DataError, UsageError
from finetune.files import to_json
from finetune.recipe import load_recipe
from finetune.records import encode

KINDS = ("chat", "text", "classifier", "preference", "rating")
NAMES = ("a.jsonl", "a.json", "a.csv", "a.txt", "stdin")
# What rows are made of, so that chance meets the converters' own keys.
WORDS = (
    *[
        "messages",
        "conversations",
        "conversation",
        "role",
        "content",
        "from",
        "value",
        "user",
        "assistant",
        "system",
        "human",
        "gpt",
    ],
    *[
        "tool",
        "tool_calls",
        "tool_call_id",
        "function",
        "function_call",
        "name",
        "arguments",
        "id",
        "type",
        "text",
        "image_url",
    ],
    *[
        "url",
        "tools",
        "functions",
        "parameters",
        "properties",
        "prompt",
        "completion",
        "chosen",
        "rejected",
        "label",
        "labels",
    ],
    *[
        "rating",
        "instruction",
        "input",
        "output",
        "question",
        "answer",
        "query",
        "response",
        "history",
        "weight",
        "thinking",
    ],
    *[
        "observation",
        "input_schema",
        "tool_use",
        "tool_result",
        "request",
        "body",
        "params",
        "choices",
        "message",
        "ranked",
    ],
    *[
        "replies",
        "rank",
        "parent_id",
        "message_id",
        "chat",
        "SYSTEM:",
        "USER:",
        "ASSISTANT:",
        "<functioncall>",
        "{}",
        "[]",
    ],
    *("FUNCTION RESPONSE:", "<|endoftext|>", "\n\nHuman: ", "\n\nAssistant: ", "\"}'"),
    "data:image/png;base64,AA==",
)


def read_rows(data: bytes) -> None:
    """Read a file of any container: the first byte chooses its name."""
    name = NAMES[data[0] % len(NAMES)] if data else NAMES[0]
    try:
        rows = list(itertools.islice(open_container(io.BytesIO(data[1:]), name).rows, 10_000))
    except (DataError, UsageError) as error:
        assert str(error)
        return
    lines = [row.line for row in rows]
    assert lines == sorted(set(lines))
    for row in rows:
        assert row.fault is None or row.fault.rule in RULES
        to_json(row.value)


def read_recipe(data: bytes) -> None:
    """Read a recipe."""
    with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
        file.write(data)
        file.flush()
        try:
            load_recipe(file.name)
        except UsageError as error:
            assert str(error)


def convert_row(data: bytes) -> None:
    """Detect and convert a row, made of bytes or spelled by them."""
    row = _decode(data)
    if row is None:
        steps = iter(data)
        row = (
            _build(steps, 0) if next(steps, 0) < 64 else _change(copy.deepcopy(_pick(steps)), steps)
        )
    for name, converter in CONVERTERS.items():
        try:
            found = detect([row], format=name)
        except UsageError:
            continue
        try:
            records = converter.convert(row, found)
        except ConvertError as error:
            assert error.fact
            continue
        for record in records:
            encode(record)
    try:
        detect([row, row])
    except UsageError as error:
        assert str(error)


def check_line(data: bytes) -> None:
    """Check a line: as it is, and as a value that it spells."""
    row = _build(iter(data), 0)
    for line in (data, to_json(row)):
        for kind in KINDS:
            checker = Checker(kind, "v3")
            record, findings = checker.check_line(line, "a.jsonl", 1)
            assert record is not None or findings
            assert all(finding.rule in RULES for finding in findings)


def read_archive(data: bytes) -> None:
    """List an archive and read its members."""
    with tempfile.NamedTemporaryFile(suffix=".zip") as file:
        file.write(data)
        file.flush()
        archive = Archive(Path(file.name))
        try:
            for member in archive.list_members():
                with archive.open(member) as stream:
                    stream.read(2**20)
        except DataError as error:
            assert error.rule in RULES


TARGETS: dict[str, Callable[[bytes], None]] = {
    "rows": read_rows,
    "recipe": read_recipe,
    "convert": convert_row,
    "check": check_line,
    "archive": read_archive,
}


def _decode(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except (ValueError, RecursionError):
        return None


@functools.cache
def _examples() -> list[Any]:
    """Return the rows of the converters' golden cases."""
    cases = Path(__file__).parent.parent / "converters" / "cases"
    return [msgspec.json.decode(path.read_bytes()) for path in sorted(cases.glob("*/*/row.json"))]


def _pick(data: Any) -> Any:
    rows = _examples()
    return rows[(256 * next(data, 0) + next(data, 0)) % len(rows)]


def _change(row: Any, data: Any) -> Any:
    """Put other values into a row, at places that bytes choose."""
    for _ in range(1 + next(data, 0) % 3):
        places = list(_places(row))
        if not places:
            return row
        parent, key = places[(256 * next(data, 0) + next(data, 0)) % len(places)]
        parent[key] = _build(data, 4)
    return row


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def _build(data: Any, depth: int) -> Any:
    """Return the JSON value that bytes spell."""
    kind = next(data, 0)
    if kind < 90 and depth < 6:
        size = next(data, 0) % 5
        return {_word(data): _build(data, depth + 1) for _ in range(size)}
    if kind < 150 and depth < 6:
        return [_build(data, depth + 1) for _ in range(next(data, 0) % 5)]
    if kind < 230:
        return _word(data)
    if kind < 240:
        packed = bytes(next(data, 0) for _ in range(8))
        number = struct.unpack("<d", packed)[0]
        return number if math.isfinite(number) else int.from_bytes(packed)
    return (None, True, False, 0, 1, -1, 2**63, "", {}, [])[kind % 10]


def _word(data: Any) -> str:
    words = [WORDS[next(data, 0) % len(WORDS)] for _ in range(1 + next(data, 0) // 200)]
    return " ".join(words)
