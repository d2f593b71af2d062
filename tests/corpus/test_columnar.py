"""Parquet, Arrow and Excel: the same rows out of each, damage named, memory bounded."""

from __future__ import annotations

import datetime as dt
import decimal
import gzip
import io
import subprocess
import sys
import textwrap
import zipfile

import pytest

pa = pytest.importorskip("pyarrow")

from finetune.checks import RULES  # noqa: E402
from finetune.corpus.containers import open_container  # noqa: E402
from finetune.errors import DataError, UsageError  # noqa: E402

ROWS = [
    {
        "id": 1,
        "messages": [{"role": "user", "content": "Où ?"}, {"role": "assistant"}],
        "tags": [],
        "note": None,
    },
    {"id": 2, "messages": [{"role": "user", "content": "b"}], "tags": ["x", "y"], "note": "z"},
]


WITHOUT_NULLS = [{key: item for key, item in row.items() if item is not None} for row in ROWS]


def parquet(table, **options):
    from pyarrow import parquet

    sink = io.BytesIO()
    parquet.write_table(table, sink, **options)
    return sink.getvalue()


def arrow(table, new=None):
    sink = io.BytesIO()
    with (new or pa.ipc.new_file)(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=100)
    return sink.getvalue()


def stream(table):
    return arrow(table, pa.ipc.new_stream)


def workbook(*sheets):
    import openpyxl

    book = openpyxl.Workbook()
    book.remove(book.active)
    for number, rows in enumerate(sheets):
        sheet = book.create_sheet(f"Sheet {number}")
        for row in rows:
            sheet.append(row)
    sink = io.BytesIO()
    book.save(sink)
    return sink.getvalue()


def read(data, name="a.parquet"):
    rows = open_container(io.BytesIO(data), name).rows
    return [row.fault.rule if row.fault else row.value for row in rows]


@pytest.mark.parametrize(
    ("write", "container"),
    [(parquet, "Parquet"), (arrow, "Arrow"), (stream, "an Arrow stream")],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_rows_are_those_that_were_written(write, container, pack):
    opened = open_container(io.BytesIO(pack(write(pa.Table.from_pylist(ROWS)))), "stdin")
    rows = list(opened.rows)
    assert opened.name == container
    assert [row.value for row in rows] == WITHOUT_NULLS
    assert [row.line for row in rows] == [1, 2]


def test_pipe_that_cannot_seek_is_read():
    class Pipe(io.BufferedReader):
        def seekable(self):
            return False

        def seek(self, *_):
            raise io.UnsupportedOperation

    data = parquet(pa.Table.from_pylist(ROWS))
    opened = open_container(Pipe(io.BytesIO(data)), "stdin")
    assert [row.value for row in opened.rows] == WITHOUT_NULLS


@pytest.mark.parametrize("write", [parquet, stream])
def test_labels_of_the_hugging_face_schema_become_names(write):
    from datasets import ClassLabel, Features, Json, List, Value

    names = ClassLabel(names=["neg", "pos"])
    features = Features(
        {
            "text": Value("string"),
            "label": names,
            "labels": List(names),
            "nested": {"label": names},
            "many": List({"label": names}),
            "free": Json(),
        }
    )
    schema = features.arrow_schema
    columns = {
        "text": ["a", "b"],
        "label": [1, -1],
        "labels": [[0, 1], None],
        "nested": [{"label": 0}, None],
        "many": [[{"label": 1}], []],
        "free": ['{"x":[1,null]}', "[2]"],
    }
    assert read(write(pa.table(columns, schema=schema))) == [
        {
            "text": "a",
            "label": "pos",
            "labels": ["neg", "pos"],
            "nested": {"label": "neg"},
            "many": [{"label": "pos"}],
            "free": {"x": [1, None]},
        },
        {"text": "b", "many": [], "free": [2]},
    ]


def test_values_that_json_does_not_have_become_texts():
    row = {
        "time": dt.datetime(2026, 2, 3, 4, 5, 6, tzinfo=dt.UTC),
        "day": dt.date(2026, 2, 3),
        "price": decimal.Decimal("1.50"),
        "image": b"\x89PNG",
    }
    assert read(parquet(pa.Table.from_pylist([row]))) == [
        {
            "time": "2026-02-03 04:05:06.000000Z",
            "day": "2026-02-03",
            "price": "1.50",
            "image": "iVBORw==",
        }
    ]


def test_number_that_is_none_costs_its_row():
    assert read(parquet(pa.table({"x": [1.5, float("nan"), 2.0]}))) == [{"x": 1.5}, "nan", {"x": 2}]


@pytest.mark.parametrize("write", [parquet, arrow, stream])
def test_damage_is_named_and_never_more(write):
    table = pa.table({"x": [f"{n} {n * 7919 % 10007}" for n in range(1000)]})
    data = write(table, row_group_size=100) if write is parquet else write(table)
    for cut in range(8, len(data), 997):
        for damaged in (data[:cut], data[:cut] + bytes([data[cut] ^ 255]) + data[cut + 1 :]):
            try:
                found = list(open_container(io.BytesIO(damaged), "a.data").rows)
            except (DataError, UsageError) as error:
                assert str(error)
            else:
                assert all(row.fault is None or row.fault.rule in RULES for row in found)


def test_rows_before_the_cut_of_a_stream_are_kept():
    data = stream(pa.table({"x": [str(n) for n in range(1000)]}))
    found = read(data[: len(data) // 2], "a.arrow")
    assert found[-1] == "truncated"
    assert len(found) % 100 == 1
    assert found[:-1] == [{"x": str(n)} for n in range(len(found) - 1)]


def test_workbook_gives_the_rows_of_its_first_sheet():
    rows = [
        ["question", "answer", "n"],
        ["Où ?", "two\nlines", 3.0],
        [None, None, None],
        [True, dt.date(2026, 2, 3), 0.5],
        ["x", "y", "=1+1"],
        ["x", None, None, "more"],
    ]
    assert read(workbook(rows, []), "a.xlsx") == [
        {"question": "Où ?", "answer": "two\nlines", "n": 3},
        {"question": True, "answer": "2026-02-03T00:00:00", "n": 0.5},
        "formula",
        "ragged-row",
    ]
    rows = list(open_container(io.BytesIO(workbook(rows[:2], rows[:2])), "a.xlsx").rows)
    assert [row.line for row in rows] == [2, 3]
    assert rows[1].fault.message == "only the sheet `Sheet 0` was read, and 1 other not empty"


def archive(**members):
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as file:
        for name, data in members.items():
            file.writestr(name.replace("__", "/").replace("_xml", ".xml"), data)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        (archive(word__document_xml="<w/>"), "a Word document"),
        (archive(mimetype="application/vnd.oasis.opendocument.text"), "an OpenDocument file"),
        (archive(mimetype="application/epub+zip"), "an e-book"),
        (archive(a="{}"), "a zip archive"),
    ],
)
def test_documents_in_a_zip_are_refused_by_their_name(data, seen):
    with pytest.raises(UsageError, match=seen):
        read(data, "a.docx")


@pytest.mark.parametrize(
    "data", [b"PK\x03\x04....", b"PAR1....", b"ARROW1\0\0....", workbook([["a"]])[:-40]]
)
def test_file_without_its_end_is_damaged(data):
    with pytest.raises(DataError, match="too early or is damaged"):
        read(data, "a.xlsx")


def test_parquet_of_half_a_gigabyte_needs_little_memory(tmp_path):
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    block = pa.table({"x": [f"{n:08}" * 200 for n in range(20_000)]})
    with parquet.ParquetWriter(path, block.schema, use_dictionary=False) as writer:
        for _ in range(16):
            writer.write_table(block)
    script = """
        import resource, sys
        import pyarrow.parquet
        from finetune.corpus.containers import open_container
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with open(sys.argv[1], "rb") as file:
            count = sum(1 for _ in open_container(file, sys.argv[1]).rows)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(count, (after - before) // 1024)
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    count, grown = map(int, done.stdout.split())
    assert count == 320_000
    assert grown < 100, "MiB"
