"""What a container gives: rows, whole or faulty, each with its place."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec

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


_BYTE = re.compile(r"\(byte (\d+)\)")
_DECODER = msgspec.json.Decoder()


def parse(line: int, data: bytes, *, cut: bool = False) -> Row:
    """Return the row that a JSON text holds.

    Args:
        line: Its place.
        data: The text.
        cut: Nothing follows it, so that a text without an end means a file without an end.
    """
    try:
        return Row(line, _DECODER.decode(data))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Row(line, None, _explain(data, error, cut=cut))


def too_long(line: int, size: int, limit: int) -> Row:
    """Return the row of a text that is longer than the bound."""
    message = f"{plural(size, 'byte')}, the limit is {limit:,}"
    return Row(line, None, Fault("line-too-long", "", message))


def _explain(data: bytes, error: Exception, *, cut: bool) -> Fault:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as fault:
        return Fault("utf-8", "", f"not UTF-8 at byte {fault.start + 1}")
    if isinstance(error, RecursionError):
        return Fault("json", "", "nested too deeply to be read")
    if cut and "truncated" in str(error):
        size = plural(len(data), "byte")
        return Fault("truncated", "", f"the file ends inside this row, after {size}")
    place = _BYTE.search(str(error))
    return Fault("json", "", f"not JSON at byte {int(place[1]) + 1}" if place else "not JSON")
