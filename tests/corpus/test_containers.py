"""Rows out of whatever holds them: whole ones counted, broken ones named, memory bounded."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import subprocess
import sys
import textwrap

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from finetune.checks import RULES
from finetune.corpus.containers import open_container
from finetune.errors import DataError, UsageError
from finetune.files import MAX_LINE_BYTES


def read(data: bytes, name: str = "a.jsonl"):
    container = open_container(io.BytesIO(data), name)
    return [row.fault.rule if row.fault else row.value for row in container.rows]


def faults(data: bytes, name: str = "a.jsonl"):
    rows = open_container(io.BytesIO(data), name).rows
    return [(row.line, row.fault.rule, row.fault.message) for row in rows if row.fault]


A, B = {"a": "é"}, {"b": [1, {"c": ']}\\"'}]}
LINES = b'{"a":"\xc3\xa9"}\n{"b":[1,{"c":"]}\\\\\\""}]}\n'
PRETTY = json.dumps([A, B], indent=2, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("data", "name", "container"),
    [
        (LINES, "a.jsonl", "JSON Lines"),
        (LINES, "stdin", "JSON Lines"),
        (LINES.replace(b"\n", b"\r\n"), "a.jsonl", "JSON Lines"),
        (LINES.replace(b"\n", b"\n\n \n"), "a.jsonl", "JSON Lines"),
        (LINES.rstrip(), "a.txt", "JSON Lines"),
        (PRETTY, "a.json", "a JSON list"),
        (b"[" + LINES.strip().replace(b"\n", b",") + b"]", "stdin", "a JSON list"),
        (b'{"version": 1, "data": ' + PRETTY + b', "end": {"x": []}}', "a.json", "a JSON document"),
        (
            b"\n".join(json.dumps(row, indent=1).encode() for row in (A, B)),
            "a.json",
            "a JSON document",
        ),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress, zstd.compress])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["", "bom"])
def test_json_rows_are_found_in_each_container(data, name, container, pack, mark):
    opened = open_container(io.BytesIO(pack(mark + data)), name)
    assert (opened.name, opened.has_bom) == (container, bool(mark))
    assert [row.value for row in opened.rows] == [A, B]


@pytest.mark.parametrize("delimiter", list(",;\t|^"))
def test_table_of_any_delimiter_with_cells_of_several_lines(delimiter):
    rows = [
        ["question", "answer"],
        ['say "hi"', f"one{delimiter}two"],
        ["x\r\ny", "z\n"],
        ["", "é"],
    ]
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(rows)
    opened = open_container(io.BytesIO(text.getvalue().encode()), "a.csv")
    found = list(opened.rows)
    assert [list(row.value.values()) for row in found] == rows[1:]
    assert [row.line for row in found] == [2, 3, 6]


def test_table_of_one_column_keeps_commas():
    assert read(b"text\none, two\nthree\n", "a.csv") == [{"text": "one, two"}, {"text": "three"}]


@given(
    st.lists(
        st.lists(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0")),
            min_size=2,
            max_size=2,
        ),
        min_size=1,
    )
)
def test_table_gives_back_every_cell(rows):
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([["a", "b"], *rows])
    assert read(text.getvalue().encode(), "a.csv") == [{"a": a, "b": b} for a, b in rows]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
json_rows = st.dictionaries(st.text(), json_values, max_size=3)


@given(st.lists(json_rows, min_size=1), st.booleans(), st.sampled_from([None, 1]))
def test_lists_and_lines_give_back_every_row(rows, ascii_only, indent):
    text = json.dumps(rows, ensure_ascii=ascii_only, indent=indent).encode("utf-8")
    assert read(text, "a.json") == rows
    lines = "\n".join(json.dumps(row, ensure_ascii=ascii_only) for row in rows)
    assert read(lines.encode("utf-8")) == rows


@given(st.binary(max_size=300), st.sampled_from(["a.jsonl", "a.json", "a.csv", "stdin"]))
def test_any_bytes_are_read_or_refused_with_a_reason(data, name):
    try:
        rows = list(open_container(io.BytesIO(data), name).rows)
    except (DataError, UsageError) as error:
        assert str(error)
    else:
        assert all(row.fault is None or row.fault.rule in RULES for row in rows)
        assert [row.line for row in rows] == sorted({row.line for row in rows})


@pytest.mark.parametrize(
    ("data", "name", "expected"),
    [
        (b'{"a":1}\n{"a":"\xff"}\n{"b":2}\n', "a.jsonl", [(2, "utf-8", "not UTF-8 at byte 7")]),
        (
            b'{"a":1}\n{"a":1,}\n{"b":2}\n',
            "a.jsonl",
            [(2, "json", "a key in double quotes is expected, at column 8")],
        ),
        (
            b'{"a":\n{"b":2}\n',
            "a.jsonl",
            [(1, "json", "the line ends in the middle of a value, at column 6")],
        ),
        (b'{"a":NaN}\n{"b":2}\n', "a.jsonl", [(1, "nan", "NaN or Infinity")]),
        (
            b'{"a":1}\n{"b":"cut he',
            "a.jsonl",
            [(2, "truncated", "the file ends inside this row, after 12 bytes")],
        ),
        (
            b'[{"a":1},{"b":',
            "a.json",
            [(2, "truncated", "the file ends inside this row, after 5 bytes")],
        ),
        (b'[{"a":1},', "a.json", [(2, "truncated", "the file ends before the list does")]),
        (
            b'[{"a":1},{bad},{"c":2}]',
            "a.json",
            [(2, "json", "a key in double quotes is expected, at column 2")],
        ),
        (
            b'{"a":1,"a":2}\n{"b":"::"}\n{"a":"\\u003a","b":{}}\n',
            "a.jsonl",
            [(1, "duplicate-key", "a key stands twice in one object")],
        ),
        (
            b'{"a":1e999}\n{"a":"\\ud800"}\n{"b":2}\n{"b":2}\n{"b":2}\n',
            "a.jsonl",
            [
                (1, "number", "a number beyond any float"),
                (2, "surrogate", "half of a surrogate pair in a text"),
            ],
        ),
        (b'[{"a":1},]', "a.json", [(2, "json", "a comma with no value beside it")]),
        (b'[{"a":1}][{"b":2}]', "a.json", [(2, "json", "text behind the end of the list")]),
        (
            b'{"train":[{"a":1}],"test":[{"a":2}]}',
            "a.json",
            [(2, "second-list", "only the list `train` was read, and another one follows")],
        ),
        (b"a,b\n1,2\n3\n4,5\n", "a.csv", [(3, "ragged-row", "1 cell, the header has 2")]),
        (
            b"a,b\n3\n4,5,6\n1,2\n",
            "a.csv",
            [
                (2, "ragged-row", "1 cell, the header has 2"),
                (3, "ragged-row", "3 cells, the header has 2"),
            ],
        ),
        (b"a,b\n1,2\n\xff,3\n", "a.csv", [(3, "utf-8", "not UTF-8 at byte 1 of its cells")]),
        (
            b'a,b\n1,2\n"open,3\n4,5\n',
            "a.csv",
            [(3, "table", "a quoted cell begins here and does not end")],
        ),
        (
            gzip.compress(b'{"a":1}\n', mtime=0)[:-6],
            "a.jsonl.gz",
            [(2, "truncated", "the compressed data end too early or are damaged")],
        ),
    ],
)
def test_broken_rows_are_named_and_the_others_kept(data, name, expected):
    assert faults(data, name) == expected
    assert len(read(data, name)) > len(expected) or name == "a.json"


def test_deep_nesting_is_a_fault():
    assert read(b'{"a":1}\n' + b"[" * 100_000 + b"\n") == [{"a": 1}, "too-deep"]


@pytest.mark.parametrize("data", [b"", b" \n\n", b"\xef\xbb\xbf", gzip.compress(b"", mtime=0)])
def test_empty_file_is_said(data):
    with pytest.raises(DataError, match=r"a\.jsonl: the file is empty  \[empty-file\]"):
        open_container(io.BytesIO(data), "a.jsonl")


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        (b"%PDF-1.7 ...", "a PDF document"),
        (b"Rar!\x1a\x07", "a RAR archive"),
        (b"\x01\x02\x00\x03", "binary data"),
        (b"<html></html>", "a markup document"),
        (b"just words\nand more\n", "text without columns"),
    ],
)
def test_unknown_format_names_what_was_seen_and_what_is_known(data, seen):
    with pytest.raises(UsageError, match=f"a.data: unknown format: it looks like {seen}") as caught:
        open_container(io.BytesIO(data), "a.data")
    documents = ("a PDF document", "a markup document")
    assert ("pdftotext" if seen in documents else "JSON Lines") in str(caught.value.hint)


WORDS = "Où est-ce ?;Là-bas, près de l’église"


@pytest.mark.parametrize(
    ("encoding", "name", "mark"),
    [
        ("utf-8", "utf-8", b""),
        ("utf-8-sig", "utf-8", b""),
        ("utf-16-le", "utf-16-le", b""),
        ("utf-16-be", "utf-16-be", b""),
        ("utf-16-le", "utf-16-le", b"\xff\xfe"),
        ("utf-16-be", "utf-16-be", b"\xfe\xff"),
        ("utf-32-le", "utf-32-le", b""),
        ("utf-32-be", "utf-32-be", b""),
        ("utf-32-le", "utf-32-le", b"\xff\xfe\0\0"),
        ("cp1252", "cp1252", b""),
    ],
)
@pytest.mark.parametrize("rows", [1, 40_000])
def test_text_of_any_encoding_is_read_and_the_encoding_told(encoding, name, mark, rows):
    data = mark + ("question;answer\n" + f"{WORDS}\n" * rows).encode(encoding)
    opened = open_container(io.BytesIO(data), "a.csv")
    assert (opened.encoding, opened.has_bom) == (name, bool(mark) or encoding == "utf-8-sig")
    row = dict(zip(["question", "answer"], WORDS.split(";"), strict=True))
    assert [item.value for item in opened.rows] == [row] * rows


@pytest.mark.parametrize(
    "data",
    [
        '{"a":"été"}\n{"a":"où"}\n'.encode() + b'{"a":"caf\xe9, \xe0 l\xe0"}\n',  # one bad line
        b'{"a":"\xff"}\n{"a":"\xfe\xfd"}\n',  # bytes that no such text has
        '{"a":"вот так"}\n{"b":"и вот так"}\n'.encode("cp1251"),
        '{"a":"žluťoučký kůň"}\n{"b":"úpěl"}\n'.encode("cp1250"),
        '{"a":"日本語のテキスト"}\n'.encode("shift-jis"),
    ],
)
def test_text_of_no_certain_encoding_stays_utf_8_and_its_bad_lines_are_rejected(data):
    opened = open_container(io.BytesIO(data), "a.jsonl")
    assert opened.encoding == "utf-8"
    assert {row.fault.rule for row in opened.rows if row.fault} >= {"utf-8"}


def test_characters_that_the_encoding_does_not_have_cost_their_row():
    text = '{"a":"é"}\n{"b":"?"}\n{"c":"à"}\n'
    late = b'{"a":"\xe9 \xe8"}\n' * 120_000 + b'{"a":"\x81"}\n{"a":"\xe9"}\n'
    assert read(text.encode("utf-16").replace(b"?\0", b"\0\xd8")) == [
        {"a": "é"},
        "utf-8",
        {"c": "à"},
    ]
    assert read(text.encode("utf-16") + b"x") == [{"a": "é"}, {"b": "?"}, {"c": "à"}, "utf-8"]
    assert read(late)[-2:] == ["utf-8", {"a": "é"}]


def test_text_file_is_one_row():
    assert read("Été.\n\nOui, si.\n".encode(), "a.txt") == [{"text": "Été.\n\nOui, si.\n"}]
    assert read(b"# A, b\n\n{c}, d\n", "a.md") == [{"text": "# A, b\n\n{c}, d\n"}]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'a,b\n1,"open\n2,3\n4,"5"\n6,7\n', ["table", ("2", "3"), ("4", "5"), ("6", "7")]),
        (b'a,b\n1,"open\n2,3\n4,5', ["table", ("2", "3"), ("4", "5")]),
        (b'a,b\n1,"two\nlines, of "text\n4,5\n', ["table", ("4", "5")]),
        (b'sep=;\na;b\n1;"2\n3"\n', [("1", "2\n3")]),
    ],
)
def test_quote_that_nobody_closed_costs_its_row(data, expected):
    found = read(data, "a.csv")
    assert [row if row == "table" else tuple(row.values()) for row in found] == expected


def test_quote_in_a_large_table_does_not_swallow_it():
    count = 150_000
    data = b'question,answer\n1,"open\n' + b"is it so,it is so indeed\n" * count
    found = read(data, "a.csv")
    assert found[0] == "table"
    assert len(found) == count + 1
    assert faults(data, "a.csv") == [(2, "table", "a quoted cell begins here and does not end")]


@pytest.mark.parametrize("line", [b"x" * 99, b"x" * 99 + b"\n", b'y""y,' * 20 + b"\n"])
def test_cell_that_is_too_long_costs_its_row(line):
    data = b'a,b\n1,"' + line * 200_000 + b'"\n3,4\n'
    assert read(data, "a.csv") == ["line-too-long", {"a": "3", "b": "4"}]


def test_two_columns_of_one_name_are_refused():
    with pytest.raises(DataError, match=r"two columns have one name: `a`"):
        read(b"a,b,a\n1,2,3\n", "a.csv")


@pytest.mark.parametrize("start", ["", "["])
def test_hundred_megabyte_row_costs_only_itself_and_little_memory(tmp_path, start):
    path = tmp_path / ("a.json" if start else "a.jsonl")
    with open(path, "wb") as file:
        file.write(start.encode() + b'{"a":1}' + (b"," if start else b"\n") + b'{"a":"')
        file.writelines((b"x" * 96 + b'\\"\xc3\xa9') * 10_000 for _ in range(100))
        file.write(b'"}' + (b',{"b":2}]' if start else b'\n{"b":2}\n'))
    script = """
        import resource, sys
        from finetune.corpus.containers import open_container
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with open(sys.argv[1], "rb") as file:
            rows = list(open_container(file, sys.argv[1]).rows)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print([(row.line, row.value, row.fault and row.fault.rule) for row in rows])
        print((after - before) // 1024)
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    rows, grown = done.stdout.splitlines()
    assert rows == "[(1, {'a': 1}, None), (2, None, 'line-too-long'), (3, {'b': 2}, None)]"
    assert int(grown) < 60, "MiB"


def test_row_of_the_largest_size_is_whole_and_one_more_byte_is_not():
    text = b'{"a":"' + b"x" * (MAX_LINE_BYTES - 8) + b'"}'
    assert [isinstance(row, dict) for row in read(text + b"\n{}")] == [True, True]
    assert read(text[:-2] + b'x"}\n{}') == ["line-too-long", {}]
    assert read(b"[" + text[:-2] + b'x"},{}]', "a.json") == ["line-too-long", {}]
