"""Parquet and Arrow files, read a batch at a time.

An absent key is a null there, since each row has every column; so nulls of objects are taken for
absent keys. Dates become ISO 8601 texts, bytes Base64, and numbers of a `ClassLabel`, which the
Hugging Face libraries describe in the schema, their names.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Iterator
from typing import IO, Any

import msgspec

from finetune.checks.report import Fault
from finetune.corpus.containers.row import Row, too_long
from finetune.errors import DataError, MissingExtra
from finetune.files import MAX_LINE_BYTES
from finetune.text import plural

_ROWS = 128  # made into Python objects at once; one row may be large
_DAMAGED = "the file ends too early or is damaged"
_END = b"\xff\xff\xff\xff\0\0\0\0"  # a message of no length
Turn = Callable[[Any], Any]


def read_parquet(file: IO[bytes]) -> Iterator[Row]:
    """Yield the rows of a Parquet file, a row group at a time; a damaged one costs itself.

    Args:
        file: Seekable.

    Raises:
        DataError: Its footer, without which nothing can be found, is damaged or missing.
        MissingExtra: pyarrow is not installed.
    """
    pyarrow = _import_pyarrow()
    from pyarrow import parquet

    try:
        # With a buffer, and none filled ahead, a column of a row group is never held whole.
        table = parquet.ParquetFile(file, buffer_size=2**20, pre_buffer=False)
        schema = table.schema_arrow
    except (pyarrow.ArrowException, OSError, ValueError):
        raise DataError(_DAMAGED, rule="truncated") from None
    first = 1
    for group in range(table.num_row_groups):
        batches = table.iter_batches(_ROWS, row_groups=[group], use_threads=False)
        rows = table.metadata.row_group(group).num_rows
        yield from _Batches(pyarrow, schema).read(batches, first, first + rows)
        first += rows


def read_arrow(file: IO[bytes]) -> Iterator[Row]:
    """Yield the rows of an Arrow file (also called Feather).

    Args:
        file: Seekable.

    Raises:
        DataError: Its footer is damaged or missing.
        MissingExtra: pyarrow is not installed.
    """
    pyarrow = _import_pyarrow()
    try:
        reader = pyarrow.ipc.open_file(file)
    except (pyarrow.ArrowException, OSError, ValueError):
        raise DataError(_DAMAGED, rule="truncated") from None
    batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
    yield from _Batches(pyarrow, reader.schema).read(batches)


def read_arrow_stream(file: IO[bytes]) -> Iterator[Row]:
    """Yield the rows of an Arrow stream, such as the Hugging Face libraries save.

    Raises:
        DataError: Its schema is damaged.
        MissingExtra: pyarrow is not installed.
    """
    pyarrow, watched = _import_pyarrow(), _Watched(file)
    try:
        reader = pyarrow.ipc.open_stream(watched)
    except (pyarrow.ArrowException, OSError, ValueError):
        raise DataError(_DAMAGED, rule="truncated") from None
    row = Row(0, None)
    for row in _Batches(pyarrow, reader.schema).read(reader):
        yield row
    if not watched.last.endswith(_END) and not row.fault:
        yield Row(row.line + 1, None, Fault("truncated", "", _DAMAGED))


class _Watched(io.BufferedIOBase):
    """A file that remembers what was read last: pyarrow takes a cut between batches for the end."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.last = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        data = self._file.read(-1 if size is None else size)
        self.last = (self.last + data[-8:])[-8:]
        return data


def _import_pyarrow() -> Any:
    try:
        import pyarrow as pa
    except ImportError:
        raise MissingExtra("data", "pyarrow") from None
    return pa


class _Batches:
    """Makes rows of record batches.

    Args:
        pyarrow: The library.
        schema: Of all batches.
    """

    def __init__(self, pyarrow: Any, schema: Any) -> None:
        self._pyarrow = pyarrow
        self._rows = Rows(_find_features(schema))
        # Their nanoseconds are more than Python's dates hold.
        self._times = [
            number for number, field in enumerate(schema) if pyarrow.types.is_timestamp(field.type)
        ]

    def read(self, batches: Any, first: int = 1, end: int | None = None) -> Iterator[Row]:
        """Yield the rows; where batches cannot be read any more, say so once.

        Args:
            batches: Are read one by one.
            first: Number of the first row.
            end: Number behind the last row, where it is known.
        """
        pyarrow, number = self._pyarrow, first
        batches = iter(batches)
        while True:
            try:
                batch = next(batches)
                # Offsets that point elsewhere would be followed.
                batch.validate(full=True)
                for index in self._times:
                    times = batch.column(index).cast(pyarrow.string())
                    batch = batch.set_column(index, batch.schema.names[index], times)
            except StopIteration:
                return
            except (pyarrow.ArrowException, OSError, ValueError, MemoryError):
                rest = f": {plural(end - number, 'row')} from here" if end else ""
                yield Row(number, None, Fault("truncated", "", _DAMAGED + rest))
                return
            for start in range(0, batch.num_rows, _ROWS):
                part = batch.slice(start, _ROWS)
                yield from self._make(part, number)
                number += part.num_rows

    def _make(self, batch: Any, number: int) -> Iterator[Row]:
        large = batch.nbytes > MAX_LINE_BYTES
        try:
            values = batch.to_pylist()
        except (UnicodeDecodeError, ValueError, OverflowError, self._pyarrow.ArrowException):
            if batch.num_rows == 1:
                fault = Fault("type", "", "a value that its column's type does not allow")
                yield Row(number, None, fault)
                return
            for index in range(batch.num_rows):
                yield from self._make(batch.slice(index, 1), number + index)
            return
        for line, value in enumerate(values, number):
            yield self._rows.make(line, value, large=large)


class Rows:
    """Makes rows of the plain values of a columnar format.

    Args:
        features: Column → its feature, as the Hugging Face libraries describe it.
    """

    def __init__(self, features: dict[str, Any]) -> None:
        found = {name: _find_turn(feature) for name, feature in features.items()}
        self._turns = {name: turn for name, turn in found.items() if turn}

    def make(self, line: int, value: dict[str, Any], *, large: bool = True) -> Row:
        """Return a row.

        Args:
            line: Its number.
            value: Column → value.
            large: It may be longer than a row may be.
        """
        try:
            for key, turn in self._turns.items():
                value[key] = turn(value[key])
            row = _drop_nulls(msgspec.to_builtins(value))
        except (KeyError, IndexError, TypeError, ValueError, RecursionError, msgspec.DecodeError):
            return Row(line, None, Fault("type", "", "a value that its feature does not allow"))
        if not _is_finite(row):
            return Row(line, None, Fault("nan", "", "NaN or Infinity"))
        if large and (size := len(msgspec.json.encode(row))) > MAX_LINE_BYTES:
            return too_long(line, size, MAX_LINE_BYTES)
        return Row(line, row)


def _drop_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _drop_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_drop_nulls(item) for item in value]
    return value


def _is_finite(value: Any) -> bool:
    if isinstance(value, dict | list):
        return all(map(_is_finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


def _find_features(schema: Any) -> dict[str, Any]:
    """Return what the Hugging Face libraries note about the columns in a schema."""
    with contextlib.suppress(AttributeError, KeyError, TypeError, ValueError):
        noted = msgspec.json.decode((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature for name, feature in noted.items() if name in schema.names}
    return {}


def _find_turn(feature: Any) -> Turn | None:
    """Return what makes a stored value the value that is meant; None where it is the same."""
    if isinstance(feature, list):
        return _each(_find_turn(feature[0])) if feature else None
    if not isinstance(feature, dict):
        return None
    kind = feature.get("_type")
    if kind == "ClassLabel":
        names = feature["names"]
        return lambda value: None if value is None or value < 0 else names[value]
    if kind == "Json":
        return lambda value: None if value is None else msgspec.json.decode(value)
    if kind in {"List", "LargeList", "Sequence"}:
        inner = feature["feature"]
        # A sequence of objects is stored as an object of lists.
        if kind == "Sequence" and isinstance(inner, dict) and "_type" not in inner:
            return _keys({key: _each(_find_turn(item)) for key, item in inner.items()})
        return _each(_find_turn(inner))
    if kind is None or isinstance(kind, dict):
        return _keys({key: _find_turn(item) for key, item in feature.items()})
    return None


def _each(turn: Turn | None) -> Turn | None:
    return turn and (lambda values: None if values is None else [turn(one) for one in values])


def _keys(turns: dict[str, Turn | None]) -> Turn | None:
    wanted = {key: turn for key, turn in turns.items() if turn}
    if not wanted:
        return None
    return lambda value: (
        None
        if value is None
        else value | {key: turn(value[key]) for key, turn in wanted.items() if key in value}
    )
