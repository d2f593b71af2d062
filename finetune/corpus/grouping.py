"""Grouping: rows of one message each → one row a conversation, in bounded memory.

An external merge sort by (conversation, order, line): what fits is sorted in memory, the rest goes
through sorted runs in files that have no name, so that a kill leaves nothing behind.
"""

from __future__ import annotations

import heapq
import itertools
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Self

import msgspec

from finetune.checks.report import Fault
from finetune.converters import ConvertError
from finetune.converters.turns import Place
from finetune.corpus.containers import Row
from finetune.files import MAX_LINE_BYTES

_MEMORY = 2**26  # bytes of rows sorted at once
_OVERHEAD = 300  # bytes that a row needs beside its content
_FAN_IN = 64  # runs merged at once
_BUFFER = 2**17  # bytes read ahead of each run

# (conversation, order, line) decides; the row itself as JSON.
_Entry = tuple[str, tuple[int, Any], int, bytes]
_SIZES = struct.Struct("<II")
_HEAD = msgspec.json.Decoder(tuple[str, tuple[int, Any], int])


def group_rows(
    rows: Iterable[Row],
    place: Callable[[Any], Place],
    folder: Path | None = None,
    *,
    memory: int = _MEMORY,
) -> Iterator[Row]:
    """Yield faulty rows as they come, then a row for each conversation, in order of its name.

    The value of such a row is the list of the rows in it, its line that of the first, and `rows`
    says how many they are.

    Args:
        rows: Of one file.
        place: Row → where it belongs; raises `ConvertError`.
        folder: Where files may be written that are gone afterwards (the system's where None).
        memory: Bytes of rows that are sorted at once.
    """
    entries: list[_Entry] = []
    size, runs = 0, _Runs(folder)
    with runs:
        for row in rows:
            if row.fault is not None:
                yield row
                continue
            try:
                conversation, order = place(row.value)
            except ConvertError as error:
                yield _rejected(row.line, error.rule or "type", error.path or "", error.fact)
                continue
            data = msgspec.json.encode(row.value)
            entries.append((conversation, order, row.line, data))
            size += len(data) + _OVERHEAD
            if size > memory:
                entries.sort()
                runs.add(entries)
                entries, size = [], 0
        entries.sort()
        yield from _group(heapq.merge(*runs.read(), entries))


def _rejected(line: int, rule: str, path: str, message: str) -> Row:
    return Row(line, None, Fault(rule, path, message))


def _group(entries: Iterable[_Entry]) -> Iterator[Row]:
    for _, members in itertools.groupby(entries, key=lambda entry: entry[0]):
        kept: list[_Entry] = []
        size = 0
        for entry in members:
            size += len(entry[3])
            kept.append(entry)
            if size > MAX_LINE_BYTES:  # from here on the rows are lost as they come
                yield from map(_too_long, kept)
                kept.clear()
        if size <= MAX_LINE_BYTES:
            value = [msgspec.json.decode(data) for _, _, _, data in kept]
            yield Row(kept[0][2], value, None, len(kept))


def _too_long(entry: _Entry) -> Row:
    message = f"its conversation has more than {MAX_LINE_BYTES:,} bytes"
    return _rejected(entry[2], "conversation-too-long", "", message)


class _Runs:
    """Sorted files; whenever a level has `_FAN_IN` of them, they become one of the next level."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._levels: list[list[IO[bytes]]] = [[]]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for run in itertools.chain(*self._levels):
            run.close()

    def add(self, entries: Iterable[_Entry], level: int = 0) -> None:
        """Write sorted entries."""
        if level == len(self._levels):
            self._levels.append([])
        runs = self._levels[level]
        run = tempfile.TemporaryFile(dir=self._folder, buffering=_BUFFER)  # noqa: SIM115
        runs.append(run)
        for conversation, order, line, data in entries:
            head = msgspec.json.encode((conversation, order, line))
            run.write(_SIZES.pack(len(head), len(data)) + head + data)
        if len(runs) == _FAN_IN:
            self.add(heapq.merge(*map(_read_run, runs)), level + 1)
            for run in runs:
                run.close()
            runs.clear()

    def read(self) -> Iterator[Iterator[_Entry]]:
        """Yield each run from its beginning."""
        return map(_read_run, itertools.chain(*self._levels))


def _read_run(run: IO[bytes]) -> Iterator[_Entry]:
    run.seek(0)
    while sizes := run.read(_SIZES.size):
        head, data = _SIZES.unpack(sizes)
        conversation, order, line = _HEAD.decode(run.read(head))
        yield conversation, order, line, run.read(data)
