"""Excel workbooks (`.xlsx`): the first sheet, whose first row names the columns."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator
from typing import IO, Any

from finetune.checks.report import Fault
from finetune.corpus.containers.row import Row
from finetune.corpus.containers.table import name_columns
from finetune.errors import DataError, MissingExtra
from finetune.files import MAX_EXPANDED_BYTES, MAX_EXPANSION
from finetune.text import plural, safe

_DAMAGED = "the workbook ends too early or is damaged"
_MAX_TEXTS = 2**28  # bytes of a workbook's texts, which openpyxl holds in memory
_TEXTS = "xl/sharedStrings.xml"


def read(file: IO[bytes]) -> Iterator[Row]:
    """Yield the rows of the first sheet; of a formula, the value that was saved with it.

    Args:
        file: Seekable.

    Raises:
        DataError: It is damaged, expands without end, or two columns have one name.
        MissingExtra: openpyxl is not installed.
    """
    try:
        import openpyxl
    except ImportError:
        raise MissingExtra("data", "openpyxl") from None
    _weigh(file)
    try:
        values, formulas = (
            openpyxl.load_workbook(file, read_only=True, data_only=saved) for saved in (True, False)
        )
        sheet = values.worksheets[0]
        pairs = zip(sheet.iter_rows(), formulas.worksheets[0].iter_rows(), strict=True)
        header = _header(next(pairs, ((), ()))[0])
    except DataError:
        raise
    except Exception:  # noqa: BLE001 (its XML readers raise whatever they meet)
        raise DataError(_DAMAGED, rule="truncated") from None
    line = 1
    while True:
        try:
            saved, said = next(pairs)
        except StopIteration:
            break
        except Exception:  # noqa: BLE001 (as above)
            yield Row(line + 1, None, Fault("truncated", "", _DAMAGED))
            return
        line += 1
        if any(cell.value is not None for cell in (*saved, *said)):
            yield _row(line, header, saved, said)
    if others := sum(map(_has_rows, values.worksheets[1:])):
        which = f"only the sheet `{safe(sheet.title, 40)}` was read"
        message = f"{which}, and {plural(others, 'other')} not empty"
        yield Row(line + 1, None, Fault("second-list", "", message))


def _weigh(file: IO[bytes]) -> None:
    try:
        entries = zipfile.ZipFile(file).infolist()
    except (zipfile.BadZipFile, OSError, ValueError, IndexError, RuntimeError):
        raise DataError(_DAMAGED, rule="truncated") from None
    size, packed = (sum(getattr(e, key) for e in entries) for key in ("file_size", "compress_size"))
    if size > MAX_EXPANDED_BYTES and size > MAX_EXPANSION * packed:
        fact = f"expands more than {MAX_EXPANSION}-fold, to more than {MAX_EXPANDED_BYTES:,} bytes"
        raise DataError(fact, rule="bomb")
    if any(entry.filename == _TEXTS and entry.file_size > _MAX_TEXTS for entry in entries):
        raise DataError("its texts do not fit in memory", rule="bomb", hint="save it as CSV")


def _header(cells: Any) -> list[str]:
    names = [_value(cell) for cell in cells]
    while names and names[-1] is None:
        names.pop()
    return name_columns(["" if name is None else str(name) for name in names])


def _row(line: int, header: list[str], saved: Any, said: Any) -> Row:
    values = [_value(cell) for cell in saved]
    for index, cell in enumerate(said):
        if values[index] is None and str(cell.value or "").startswith("="):
            message = "a formula whose value was not saved"
            return Row(
                line, None, Fault("formula", header[index] if index < len(header) else "", message)
            )
    extra = [value for value in values[len(header) :] if value is not None]
    if extra:
        message = f"{len(header) + len(extra)} cells, the header has {len(header)}"
        return Row(line, None, Fault("ragged-row", "", message))
    row = dict(zip(header, values, strict=False))
    return Row(line, {key: value for key, value in row.items() if value is not None})


def _value(cell: Any) -> Any:
    """Return a cell's value as JSON has it: a whole number without `.0`, a date as ISO 8601."""
    value = cell.value
    with contextlib.suppress(AttributeError):
        return value.isoformat()
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, str | int | float | None) else str(value)


def _has_rows(sheet: Any) -> bool:
    with contextlib.suppress(Exception):
        return any(cell.value is not None for row in sheet.iter_rows() for cell in row)
    return True
