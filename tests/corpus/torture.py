"""Files that break readers, as a table: what each holds, and what has to be said about it.

Every file that can hold a record holds CANARY, which no message may repeat.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

from backports import zstd

CANARY = "ZANZIBAR-Ω7f3"


class Case(NamedTuple):
    """A file and what is said about it.

    Attributes:
        name: What is wrong with it.
        file: Its name.
        data: What it holds.
        places: `LINE:RULE` of each finding of `convert`, in order; only the rule for the file.
        checked: The same of `validate`, where it differs.
        code: The exit code of both.
        rows: How many rows give a record all the same.
    """

    name: str
    file: str
    data: bytes
    places: tuple[str, ...]
    rows: int = 0
    checked: tuple[str, ...] | None = None
    code: int = 3


def record(text: str = CANARY, end: str = "") -> bytes:
    turns = f'{{"role":"user","content":"{text}"}},{{"role":"assistant","content":"so {text}"}}'
    return f'{{"messages":[{turns}]{end}}}'.encode()


GOOD = record()
LINES = GOOD + b"\n" + GOOD + b"\n"
TABLE = f"question,answer\n{CANARY},yes\n{CANARY} too,no\n".encode()
C = CANARY.encode()

# A row that is no JSON, the rule that says so, and the one of `validate` where it differs.
JSON_FAULTS: dict[str, tuple[bytes, str]] = {
    "trailing comma": (GOOD[:-1] + b",}", "json"),
    "trailing comma in a list": (GOOD[:-2] + b",]}", "json"),
    "comment": (GOOD[:-1] + b"/* " + C + b" */}", "json"),
    "line comment": (GOOD[:-1] + b"// " + C + b"\r}", "json"),
    "single quotes": (GOOD.replace(b'"role"', b"'role'"), "json"),
    "key without quotes": (GOOD.replace(b'"role"', b"role"), "json"),
    "missing colon": (GOOD.replace(b'"role":', b'"role" '), "json"),
    "missing comma": (GOOD.replace(b"},{", b"} {"), "json"),
    "two commas": (GOOD.replace(b"},{", b"},,{"), "json"),
    "Python's words": (GOOD[:-1] + b',"x":None}', "json"),
    "Python's capitals": (GOOD[:-1] + b',"x":True}', "json"),
    "NaN": (GOOD[:-1] + b',"x":NaN}', "nan"),
    "Infinity": (GOOD[:-1] + b',"x":Infinity}', "nan"),
    "negative Infinity": (GOOD[:-1] + b',"x":-Infinity}', "nan"),
    "number beyond floats": (GOOD[:-1] + b',"x":1e999}', "number"),
    "leading zero": (GOOD[:-1] + b',"x":01}', "json"),
    "leading plus": (GOOD[:-1] + b',"x":+1}', "json"),
    "hexadecimal": (GOOD[:-1] + b',"x":0x1F}', "json"),
    "point without digits": (GOOD[:-1] + b',"x":1.}', "json"),
    "duplicate key": (GOOD[:-1] + b',"messages":[]}', "duplicate-key"),
    "duplicate key inside": (GOOD.replace(b'"role"', b'"role":"user","role"', 1), "duplicate-key"),
    "duplicate key by escape": (
        GOOD[:-1] + b',"\\u006dessages":[],"x":"\\u003a"}',
        "duplicate-key",
    ),
    "unknown escape": (record(CANARY + r"\x41"), "json"),
    "short escape": (record(CANARY + r"\u12"), "json"),
    "lone high surrogate": (record(CANARY + r"\ud800"), "surrogate"),
    "lone low surrogate": (record(CANARY + r"\udc00"), "surrogate"),
    "surrogates in the wrong order": (record(CANARY + r"\udc00\ud800"), "surrogate"),
    "raw control character": (record(CANARY + "\x01"), "json"),
    "raw tab": (record(CANARY + "\t"), "json"),
    "substitute character": (record(CANARY + "\x1a"), "json"),
    "depth of 2,000": (GOOD[:-1] + b',"x":' + b"[" * 2000 + b"]" * 2000 + b"}", "too-deep"),
    "depth of 100,000": (GOOD[:-1] + b',"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too-deep"),
    "byte that is not UTF-8": (record().replace(C, C + b"\xff"), "utf-8"),
    "cut character": (record().replace(C, C + b"\xc3"), "utf-8"),
    "overlong slash": (record().replace(C, C + b"\xc0\xaf"), "utf-8"),
    "surrogate as bytes (CESU-8)": (record().replace(C, C + b"\xed\xa0\x80\xed\xb0\x80"), "utf-8"),
    "beyond Unicode": (record().replace(C, C + b"\xf4\x90\x80\x80"), "utf-8"),
}


def json_cases() -> Iterator[Case]:
    for name, (bad, rule) in JSON_FAULTS.items():
        yield Case(
            f"{name}, in a line", "a.jsonl", GOOD + b"\n" + bad + b"\n" + GOOD, (f"2:{rule}",), 2
        )
        yield Case(
            f"{name}, in a list",
            "a.json",
            b"[" + GOOD + b"," + bad + b",\n" + GOOD + b"]",
            (f"2:{rule}",),
            2,
        )
    whole = LINES + GOOD[:50]
    yield Case("last line cut", "a.jsonl", whole, ("3:truncated",), 2, ("3:json",))
    yield Case("list cut in a row", "a.json", b"[" + GOOD + b"," + GOOD[:50], ("2:truncated",), 1)
    yield Case("list cut behind a comma", "a.json", b"[" + GOOD + b",", ("2:truncated",), 1)
    yield Case("list cut behind a row", "a.json", b"[" + GOOD, ("2:truncated",), 1)
    yield Case(
        "document cut", "a.json", b'{"data":[' + GOOD + b"," + GOOD[:50], ("2:truncated",), 1
    )
    yield Case("value behind the list", "a.json", b"[" + GOOD + b"]" + GOOD, ("2:json",), 1)
    yield Case("comma behind the last row", "a.json", b"[" + GOOD + b",]", ("2:json",), 1)
    yield Case("comma before the first row", "a.json", b"[," + GOOD + b"]", ("1:json",), 1)
    yield Case(
        "two lists",
        "a.json",
        b'{"train":[' + GOOD + b'],"test":[' + GOOD + b"]}",
        ("2:second-list",),
        1,
    )
    yield Case(
        "two values a line", "a.jsonl", LINES + GOOD + b" " + GOOD + b"\n" + GOOD, ("3:json",), 3
    )
    yield Case("lines in carriage returns", "a.jsonl", GOOD + b"\r" + GOOD + b"\r", ("1:json",))
    yield Case(
        "list as a line", "a.jsonl", LINES + b"[" + GOOD + b"]\n", ("3:type",), 2, ("3:not-object",)
    )
    yield Case(
        "text as a line", "a.jsonl", LINES + b'"' + C + b'"\n', ("3:type",), 2, ("3:not-object",)
    )
    yield Case("number as a line", "a.jsonl", LINES + b"17\n", ("3:type",), 2, ("3:not-object",))
    yield Case("null as a line", "a.jsonl", LINES + b"null\n", ("3:type",), 2, ("3:not-object",))
    yield Case("mark before a later line", "a.jsonl", LINES + b"\xef\xbb\xbf" + GOOD, ("3:bom",), 2)
    yield Case("NUL in a line", "a.jsonl", LINES + GOOD.replace(C, C + b"\0"), ("3:utf-8",), 2)
    yield Case("NULs behind the last line", "a.jsonl", LINES + bytes(512), ("3:utf-8",), 2)
    yield Case("HTML in a line", "a.jsonl", LINES + b"<p>" + C + b"</p>\n", ("3:json",), 2)


def table_cases() -> Iterator[Case]:
    def table(name: str, rest: bytes, *places: str, rows: int = 2) -> Case:
        return Case(name, "a.csv", TABLE + rest, places, rows)

    yield table("row too short", C + b"\n", "4:ragged-row")
    yield table("row too long", C + b",a,b\n", "4:ragged-row")
    yield table("quote never closed", b'"' + C + b",a\nb,c\nd,e\n", "4:table", rows=4)
    yield table("quote never closed, at the end", b'x,"' + C, "4:table")
    yield table("text behind a quote", b'"a"' + C + b",b\nc,d\n", "4:table", rows=3)
    yield table("byte that is not UTF-8", C + b"\xff,a\nc,d\n", "4:utf-8", rows=3)
    yield table(
        "bytes of two encodings", "é,à\n".encode() + C + b"\xe9\xe8,\xe0\n", "5:utf-8", rows=3
    )
    yield table("carriage return in a cell", C + b"\rb,c\nd,e\n", "4:table", rows=3)
    yield table("commas for semicolons", b"a;" + C + b"\n", "4:ragged-row")
    yield table("only commas", b",,,,,\n", "4:ragged-row")
    yield Case(
        "two columns of one name", "a.csv", b"a,b,a\n" + C + b",2,3\n", ("1:duplicate-column",)
    )
    yield Case("header with a quote never closed", "a.csv", b'"a,b\n' + C + b",1\n", ("1:table",))
    yield Case(
        "header that is not UTF-8", "a.csv", b"question,answer\xff\n" + C + b",2\n", ("1:utf-8",)
    )
    yield Case("carriage returns alone", "a.csv", TABLE.replace(b"\n", b"\r"), ("1:table",))
    columns = ",".join(f"c{n}" for n in range(20_000)).encode()
    yield Case("20,000 columns", "a.csv", columns + b"\n" + columns + b"\n", ("1:table",))
    yield Case("a header alone", "a.csv", b"question,answer\n", ("empty-file",))
    yield Case(
        "a cell of 17 MiB",
        "a.csv",
        TABLE + b'"' + C + b"x" * (17 * 2**20) + b'",b\nc,d\n',
        ("4:line-too-long",),
        3,
    )
    lines = (C + b" is a line of this cell\n") * 400_000
    yield Case(
        "a cell of many lines",
        "a.csv",
        TABLE + b'"' + lines + b'",b\nc,d\n',
        ("4:line-too-long",),
        3,
    )
    yield Case(
        "a quote before 100,000 good rows",
        "a.csv",
        TABLE + b'a,"' + (C + b",b\n") * 100_000,
        ("4:table",),
        100_001,
    )


PACKS: dict[str, Callable[[bytes], bytes]] = {
    "gz": lambda data: gzip.compress(data, mtime=0),
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstd.compress,
}


def compression_cases() -> Iterator[Case]:
    rng = random.Random(0)
    text = b"".join(record(f"{CANARY} {rng.getrandbits(400):x}") + b"\n" for _ in range(4000))
    for suffix, pack in PACKS.items():
        packed, name = pack(text), f"a.jsonl.{suffix}"
        yield Case(
            f"{suffix} cut in its middle", name, packed[: len(packed) // 2], ("*:truncated",)
        )
        yield Case(f"{suffix} without its last bytes", name, packed[:-3], ("*:truncated",))
        yield Case(f"{suffix} of a few bytes", name, packed[:12], ("1:truncated",))
        flipped = bytearray(packed)
        flipped[
            -6 if suffix == "gz" else -9 if suffix == "bz2" else -30 if suffix == "xz" else -3
        ] ^= 0x5A
        yield Case(f"{suffix} with a changed byte", name, bytes(flipped), ("*:truncated",))
        yield Case(f"{suffix} with more behind", name, pack(LINES) + C, ("3:truncated",), 2)
        second = pack(LINES) + packed[: len(packed) // 2]
        yield Case(f"{suffix} whose second member is cut", name, second, ("*:truncated",))
        yield Case(f"{suffix} of nothing", name, pack(b""), ("empty-file",))
        yield Case(
            f"{suffix} of a list that is cut",
            f"a.json.{suffix}",
            pack(b"[" + GOOD + b"," + GOOD[:9]),
            ("2:truncated",),
            1,
        )
        yield Case(
            f"{suffix} in gz", f"a.jsonl.{suffix}.gz", gzip.compress(pack(LINES)), (), code=2
        )
    yield Case(
        "gz cut in a table",
        "a.csv.gz",
        gzip.compress(TABLE + random.Random(0).randbytes(9000).hex().encode() + b",a\n")[:-2000],
        ("4:truncated",),
        2,
    )
    bomb = gzip.compress(b" " * 2**20, 9) * 1030
    yield Case(
        "gz that expands to a gigabyte", "a.jsonl.gz", gzip.compress(LINES) + bomb, ("3:bomb",), 2
    )
    yield Case(
        "zst that expands to a gigabyte",
        "a.jsonl.zst",
        zstd.compress(LINES) + zstd.compress(b" " * 2**24) * 70,
        ("3:bomb",),
        2,
    )
    window = b"\x28\xb5\x2f\xfd\x04" + bytes([(31 - 10) << 3]) + LINES
    yield Case("zst that wants a window of 2 GiB", "a.jsonl.zst", window, ("1:truncated",))


def encoding_cases() -> Iterator[Case]:
    text = LINES.decode()
    for encoding in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
        data = text.encode(encoding)
        width = 2 if "16" in encoding else 4
        bad = {
            "utf-16-le": b"\0\xd8",
            "utf-16-be": b"\xd8\0",
            "utf-32-le": b"\0\0\x11\0",
            "utf-32-be": b"\0\x11\0\0",
        }
        second = data.rindex(CANARY.encode(encoding))
        broken = data[:second] + bad[encoding] + data[second + width :]
        yield Case(f"{encoding} with what it does not allow", "a.json", broken, ("2:utf-8",), 1)
        yield Case(f"{encoding} of an odd length", "a.json", data + b"\n", ("3:utf-8",), 2)
    yield Case(
        "cp1252 with a byte it does not have",
        "a.csv",
        ("question,answer\n" + f"é {CANARY[:8]},à\n" * 99).encode("cp1252") + b"\x81,b\n",
        ("101:utf-8",),
        99,
    )
    yield Case(
        "cp1252 in one line of UTF-8",
        "a.jsonl",
        record("é") + b"\n" + LINES + record("où").decode().encode("cp1252"),
        ("4:utf-8",),
        3,
    )
    yield Case("cp1251", "a.csv", "question,answer\nпривет,пока\n".encode("cp1251"), ("2:utf-8",))
    yield Case("UTF-7", "a.csv", TABLE + b"caf+AOk-,b,c\n", ("4:ragged-row",), 2)


def pack_zip(**members: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            entry = zipfile.ZipInfo(name)  # dated 1980: the same bytes at any time
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return sink.getvalue()


def pack_tar(*entries: tuple[str, bytes, bytes]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, kind, data in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.size = kind, len(data)
            entry.linkname = "/etc/passwd" if kind == tarfile.SYMTYPE else ""
            archive.addfile(entry, io.BytesIO(data))
    return sink.getvalue()


def archive_cases() -> Iterator[Case]:
    good = pack_zip(**{"a.jsonl": LINES})
    encrypted = bytearray(good)
    encrypted[6] |= 1
    encrypted[good.index(b"PK\x01\x02") + 8] |= 1
    plain, link, fifo = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE
    refused = {
        "zip that leaves its folder": ("a.zip", pack_zip(**{"../a.jsonl": LINES})),
        "zip with an absolute name": ("a.zip", pack_zip(**{"/tmp/a.jsonl": LINES})),
        "zip with backslashes": ("a.zip", pack_zip(**{"..\\a.jsonl": LINES})),
        "encrypted zip": ("a.zip", bytes(encrypted)),
        "zip in a zip": ("a.zip", pack_zip(**{"a.jsonl": LINES, "b.zip": good})),
        "tar that leaves its folder": ("a.tar", pack_tar(("../a.jsonl", plain, LINES))),
        "tar with a link": ("a.tar", pack_tar(("a.jsonl", link, b""))),
        "tar with a pipe": ("a.tar", pack_tar(("a.jsonl", fifo, b""))),
        "tar with one name twice": (
            "a.tar",
            pack_tar(("a.jsonl", plain, LINES), ("a.jsonl", plain, LINES)),
        ),
        "tar in a tar": ("a.tar", pack_tar(("b.tar", plain, pack_tar(("a.jsonl", plain, LINES))))),
    }
    for name, (file, data) in refused.items():
        yield Case(name, file, data, ("archive-member",))
    yield Case("zip without its end", "a.zip", good[:-30], ("truncated",))
    yield Case(
        "zip with a changed byte",
        "a.zip",
        good[:60] + bytes([good[60] ^ 255]) + good[61:],
        ("1:truncated",),
    )
    yield Case("zip without data", "a.zip", pack_zip(**{"a.png": b"\x89PNG"}), ("empty-file",))
    yield Case("zip of nothing", "a.zip", pack_zip(), ("empty-file",))
    yield Case("zip of an empty file", "a.zip", pack_zip(**{"a.jsonl": b""}), ("empty-file",))
    yield Case("tar that is none", "a.tar", LINES, ("truncated",))
    yield Case(
        "tar cut in a member",
        "a.tar",
        pack_tar(("a.jsonl", plain, LINES * 999))[:70_000],
        ("*:truncated",),
    )


def columnar_cases() -> Iterator[Case]:
    import pyarrow as pa
    from pyarrow import parquet

    turns = [{"role": "user", "content": CANARY}, {"role": "assistant", "content": f"so {CANARY}"}]
    table = pa.table({"messages": [turns] * 500})

    def write(rows: pa.Table, **options: int) -> bytes:
        sink = io.BytesIO()
        parquet.write_table(rows, sink, compression="snappy", **options)
        return sink.getvalue()

    def stream(rows: pa.Table, new: Callable[..., pa.ipc.RecordBatchStreamWriter]) -> bytes:
        sink = io.BytesIO()
        with new(sink, rows.schema) as writer:
            writer.write_table(rows, max_chunksize=100)
        return sink.getvalue()

    data = write(table, row_group_size=100)
    yield Case("Parquet without its footer", "a.parquet", data[:-100], ("truncated",))
    yield Case("Parquet of four bytes", "a.parquet", b"PAR1", ("truncated",))
    yield Case(
        "Parquet with a footer of no sense",
        "a.parquet",
        data[:-8] + struct.pack("<I", 2**31) + b"PAR1",
        ("truncated",),
    )
    yield Case(
        "Parquet with a broken footer",
        "a.parquet",
        data[:-300] + bytes(292) + data[-8:],
        ("truncated",),
    )
    broken = bytearray(data)
    broken[4:40] = bytes(36)
    yield Case("Parquet with a broken row group", "a.parquet", bytes(broken), ("1:truncated",), 400)
    yield Case("Parquet of no rows", "a.parquet", write(table.slice(0, 0)), ("empty-file",))
    arrow, arrows = stream(table, pa.ipc.new_file), stream(table, pa.ipc.new_stream)
    yield Case("Arrow without its footer", "a.arrow", arrow[:-50], ("truncated",))
    yield Case("Arrow stream that is cut", "a.arrow", arrows[: len(arrows) // 2], ("*:truncated",))
    yield Case(
        "Arrow stream that is cut between batches", "a.arrow", arrows[:-8], ("501:truncated",), 500
    )
    yield Case(
        "Parquet with a number that is none",
        "a.parquet",
        write(table.slice(0, 3).append_column("x", pa.array([1.0, float("nan"), 2.0]))),
        ("2:nan",),
        2,
    )
    yield Case(
        "xlsx without its end",
        "a.xlsx",
        pack_zip(**{"xl/workbook.xml": b"<x/>"})[:-20],
        ("truncated",),
    )
    yield Case(
        "xlsx that is none", "a.xlsx", pack_zip(**{"xl/workbook.xml": b"<x>"}), ("truncated",)
    )


def refused_cases() -> Iterator[Case]:
    office = {
        "Word document": {"word/document.xml": b"<w/>", "[Content_Types].xml": b"<t/>"},
        "OpenDocument text": {"mimetype": b"application/vnd.oasis.opendocument.text"},
        "e-book": {"mimetype": b"application/epub+zip"},
    }
    for name, members in office.items():
        yield Case(name, "a.docx", pack_zip(**members), (), code=2)
    heads = {
        "PDF": b"%PDF-1.7\n" + C,
        "old office document": bytes.fromhex("d0cf11e0a1b11ae1") + C,
        "HTML": b"<!doctype html><p>" + C,
        "7z": b"7z\xbc\xaf\x27\x1c" + C,
        "RAR": b"Rar!\x1a\x07\x01\0" + C,
        "LZ4": b"\x04\x22\x4d\x18" + C,
        "SQLite": b"SQLite format 3\0" + C,
        "pickle": b"\x80\x04\x95" + C,
        "PNG": b"\x89PNG\r\n\x1a\n" + C,
        "JPEG": b"\xff\xd8\xff\xe0" + C,
        "random bytes": bytes(range(256)) * 4 + C,
        "prose": C + b" is an island\nof cloves\n",
    }
    for name, data in heads.items():
        yield Case(name, "a.data", data, (), code=2)
    for name, data in {
        "nothing": b"",
        "white space": b" \n\t\r\n",
        "a mark alone": b"\xef\xbb\xbf",
    }.items():
        yield Case(name, "a.json", data, ("empty-file",))
    yield Case("nothing, as lines", "a.jsonl", b"", ("empty-file",))
    yield Case(
        "blank lines alone",
        "a.jsonl",
        b"\n\n\n",
        ("empty-file",),
        checked=("1:blank-line", "2:blank-line", "3:blank-line"),
    )
    yield Case("empty list", "a.json", b"[]", ("empty-file",))
    yield Case("a document without rows", "a.json", b'{"data":[]}', ("*:*",), code=2)


def size_cases() -> Iterator[Case]:
    long = record("x" * (17 * 2**20))
    yield Case(
        "a line of 17 MiB", "a.jsonl", GOOD + b"\n" + long + b"\n" + GOOD, ("2:line-too-long",), 2
    )
    yield Case("a last line of 17 MiB", "a.jsonl", LINES + long, ("3:line-too-long",), 2)
    yield Case(
        "17 MiB that never end", "a.jsonl", LINES + b"[" * (17 * 2**20), ("3:line-too-long",), 2
    )
    yield Case(
        "a row of 17 MiB in a list",
        "a.json",
        b"[" + GOOD + b"," + long + b"," + GOOD + b"]",
        ("2:line-too-long",),
        2,
    )
    yield Case(
        "a list of 17 MiB of commas", "a.json", b"[" + GOOD + b"]" + b"," * 100, ("2:json",), 1
    )


CASES = [
    *json_cases(),
    *table_cases(),
    *compression_cases(),
    *encoding_cases(),
    *archive_cases(),
    *columnar_cases(),
    *refused_cases(),
    *size_cases(),
]
