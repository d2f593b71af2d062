"""What a container gives: rows, whole or faulty, each with its place."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from finetune.checks.lines import read_value
from finetune.checks.report import Fault
from finetune.text import plural


class Row(NamedTuple):
    """One raw item of a source.

    Attributes:
        line: The line on which it starts, from 1; its number in formats without lines.
        value: What it holds (None where it is faulty).
        fault: Why it cannot be read, else None.
        rows: How many rows of the file it was grouped from.
    """

    line: int
    value: Any
    fault: Fault | None = None
    rows: int = 1


class Raw(NamedTuple):
    """A row that is not parsed yet, so that a worker process can do it.

    Attributes:
        line: As in `Row`.
        data: The JSON text.
        cut: Nothing follows it, so that a text without an end means a file without an end.
    """

    line: int
    data: bytes
    cut: bool = False

    def parse(self) -> Row:
        """Return the row that the text holds."""
        return parse(self.line, self.data, cut=self.cut)


_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def parse(line: int, data: bytes, *, cut: bool = False) -> Row:
    """Return the row that a JSON text holds.

    Args:
        line: Its place.
        data: The text.
        cut: Nothing follows it, so that a text without an end means a file without an end.
    """
    try:
        value = _decode(data)
        # Written anew, each key stands once: with as many colons, each did before.
        same = data.count(b":") == _encode(value).count(b":")
        if b"\\" in data and b"\\u003" in data:  # a colon as an escape
            same = False
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Row(line, None, _explain(data, error, cut=cut))
    if not same and (faults := [one for one in read_value(data)[1] if one.rule == "duplicate-key"]):
        return Row(line, None, faults[0])
    return Row(line, value)


def too_long(line: int, size: int, limit: int) -> Row:
    """Return the row of a text that is longer than the bound."""
    message = f"{plural(size, 'byte')}, the limit is {limit:,}"
    return Row(line, None, Fault("line-too-long", "", message))


def _explain(data: bytes, error: Exception, *, cut: bool) -> Fault:
    # That it is no object is for its converter to say.
    faults = [one for one in read_value(data)[1] if one.rule != "not-object"]
    fault = faults[0] if faults else Fault("json", "", "not JSON")
    if cut and fault.rule in {"json", "utf-8"} and "truncated" in str(error):
        message = f"the file ends inside this row, after {plural(len(data), 'byte')}"
        return Fault("truncated", "", message)
    return fault
