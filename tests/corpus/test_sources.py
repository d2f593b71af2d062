"""What a path stands for: files, folders, archives, saved datasets, the hub."""

from __future__ import annotations

import gzip
import io
import os
import random
import stat
import tarfile
import zipfile

import pytest

from finetune.corpus.containers import open_container
from finetune.corpus.sources import find_files
from finetune.errors import DataError, UsageError

LINES = b'{"text":"a"}\n{"text":"b"}\n'
ROWS = [{"text": "a"}, {"text": "b"}]


def read(path, **options):
    files, left_out = find_files(path, **options)
    rows = {}
    for file in files:
        with file.open() as stream:
            items = open_container(stream, file.name).rows
            rows[file.name] = [row.fault.rule if row.fault else row.value for row in items]
    return rows, left_out


def write_zip(path, members, **options):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data, **options)


def write_tar(path, members, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            entry = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo(name)
            if data is entry:
                archive.addfile(entry)
            else:
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))


MEMBERS = {
    "b/train.jsonl": LINES,
    "a.csv.gz": gzip.compress(b"text,n\na,1\nb,2\n"),
    "readme.pdf": b"%PDF",
    "__MACOSX/._a.csv": b"\0\0",
}


@pytest.mark.parametrize("name", ["d.zip", "d.tar", "d.tar.gz", "d.tgz", "d.tar.zst", "d.tar.xz"])
def test_archive_is_read_member_by_member(tmp_path, name):
    path = tmp_path / name
    if name == "d.zip":
        write_zip(path, MEMBERS)
    elif name.endswith(".zst"):
        from backports import zstd

        write_tar(tmp_path / "d.tar", MEMBERS)
        path.write_bytes(zstd.compress((tmp_path / "d.tar").read_bytes()))
        (tmp_path / "d.tar").unlink()
    else:
        write_tar(
            path,
            MEMBERS,
            "w:" + {"r": "", "z": "gz"}.get(name[-1], "xz")[:2] if name[-1] != "r" else "w",
        )
    expected = {
        f"{name}/b/train.jsonl": ROWS,
        f"{name}/a.csv.gz": [{"text": "a", "n": "1"}, {"text": "b", "n": "2"}],
    }
    assert read(path) == (expected, [f"{name}/readme.pdf", f"{name}/__MACOSX/._a.csv"])
    assert read(tmp_path)[0] == expected
    assert [path.name for path in tmp_path.iterdir()] == [name]  # nothing was extracted


def test_members_of_an_archive_may_be_opened_in_any_order_and_again(tmp_path):
    write_tar(tmp_path / "d.tar.gz", {"a.jsonl": LINES, "b.jsonl": b"{}\n"}, "w:gz")
    first, second = find_files(tmp_path / "d.tar.gz")[0]
    for file, data in ((second, b"{}\n"), (first, LINES), (first, LINES), (second, b"{}\n")):
        with file.open() as stream:
            assert stream.read() == data


def link(name, target):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    return entry


def zip_link(name):
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


@pytest.mark.parametrize(
    ("members", "fact"),
    [
        ({"../x.jsonl": LINES}, "names a place outside the archive"),
        ({"/etc/x.jsonl": LINES}, "names a place outside the archive"),
        ({"a.jsonl": LINES, "x\\..\\..\\y": b""}, "names a place outside the archive"),
        ({"a.jsonl": link("a.jsonl", "/etc/passwd")}, "is a link"),
        ({"a.jsonl": LINES, "b.zip": b"PK"}, "is an archive in an archive"),
    ],
)
@pytest.mark.parametrize("name", ["d.zip", "d.tar.gz"])
def test_archive_that_hides_something_is_refused_by_name(tmp_path, members, fact, name):
    if name == "d.zip":
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for member, data in members.items():
                entry = zip_link(member) if isinstance(data, tarfile.TarInfo) else member
                archive.writestr(entry, data if isinstance(data, bytes) else b"/etc/passwd")
    else:
        write_tar(tmp_path / name, members, "w:gz")
    with pytest.raises(DataError, match=fact) as caught:
        find_files(tmp_path / name)
    assert caught.value.rule == "archive-member"
    assert caught.value.file.startswith(name)


def test_encrypted_member_is_refused(tmp_path):
    path = tmp_path / "d.zip"
    write_zip(path, {"a.jsonl": LINES})
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset] |= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"d.zip/a.jsonl: is encrypted  \[archive-member\]"):
        find_files(path)


def test_rows_before_the_end_of_a_cut_archive_are_kept(tmp_path):
    path = tmp_path / "d.tar"
    write_tar(path, {"a.jsonl": LINES, "b.jsonl": b'{"n":1}\n' * 10_000})
    path.write_bytes(path.read_bytes()[: 1536 + 2**14 + 20])
    rows, _ = read(path)
    assert rows["d.tar/a.jsonl"] == ROWS
    assert rows["d.tar/b.jsonl"] == [{"n": 1}] * (2**14 // 8) + ["truncated"]

    write_tar(
        tmp_path / "e.tgz",
        {"a.jsonl": LINES, "b.jsonl": random.Random(0).randbytes(40_000).hex().encode()},
        "w:gz",
    )
    (tmp_path / "e.tgz").write_bytes((tmp_path / "e.tgz").read_bytes()[:-900])
    rows, _ = read(tmp_path / "e.tgz")
    assert rows == {"e.tgz/a.jsonl": ROWS, "e.tgz/b.jsonl": ["truncated"]}

    write_zip(tmp_path / "f.zip", {"a.jsonl": LINES})
    (tmp_path / "f.zip").write_bytes((tmp_path / "f.zip").read_bytes()[:-30])
    with pytest.raises(DataError, match="truncated"):
        find_files(tmp_path / "f.zip")


def test_changed_byte_in_a_zip_is_found(tmp_path):
    path = tmp_path / "d.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jsonl", LINES * 2000)
    path.write_bytes(path.read_bytes()[::-1].replace(b'"a"', b'"c"', 1)[::-1])
    rows = read(path)[0]["d.zip/a.jsonl"]
    assert rows[-1] == "truncated"
    assert rows[:-1] == (ROWS * 2000)[: len(rows) - 1]
    assert len(rows) > 1000


def test_member_that_expands_without_end_is_stopped(tmp_path):
    path = tmp_path / "d.zip"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.jsonl", "w") as file,
    ):
        file.write(LINES)
        for _ in range(1100):
            file.write(b" " * 2**20)
    assert read(path)[0] == {"d.zip/a.jsonl": [*ROWS, "bomb"]}


def test_link_that_leaves_the_folder_is_refused_and_one_inside_is_followed(tmp_path):
    inside = tmp_path / "in"
    inside.mkdir()
    (tmp_path / "out.jsonl").write_bytes(LINES)
    (inside / "a.jsonl").write_bytes(LINES)
    (inside / "b.jsonl").symlink_to("a.jsonl")
    assert list(read(inside)[0]) == ["a.jsonl", "b.jsonl"]
    (inside / "c.jsonl").symlink_to("../out.jsonl")
    with pytest.raises(UsageError, match=r"`c\.jsonl` is a link that leads out of this folder"):
        find_files(inside)


def test_split_is_chosen_by_the_names_of_files(tmp_path):
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001", "training"):
        (tmp_path / f"{name}.jsonl").write_bytes(LINES)
    assert list(read(tmp_path, split="train")[0]) == [
        "train-00000-of-00002.jsonl",
        "train-00001-of-00002.jsonl",
    ]
    with pytest.raises(UsageError, match="no file has `dev` in its name"):
        find_files(tmp_path, split="dev")


def test_folder_that_the_hugging_face_libraries_saved_is_read_with_labels(tmp_path):
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})

    def make(*texts):
        columns = {"text": texts, "label": [number % 2 for number in range(len(texts))]}
        return Dataset.from_dict(columns, features=features)

    DatasetDict(train=make("a", "b", "c"), test=make("d")).save_to_disk(
        tmp_path / "d", num_shards={"train": 2, "test": 1}
    )
    train = {
        "train/data-00000-of-00002.arrow": [
            {"text": "a", "label": "neg"},
            {"text": "b", "label": "pos"},
        ],
        "train/data-00001-of-00002.arrow": [{"text": "c", "label": "neg"}],
    }
    test = {"test/data-00000-of-00001.arrow": [{"text": "d", "label": "neg"}]}
    assert read(tmp_path / "d") == (train | test, [])
    assert read(tmp_path / "d", split="test") == (test, [])
    assert list(read(tmp_path / "d" / "test")[0].values()) == list(test.values())
    with pytest.raises(UsageError, match="no split `dev`") as caught:
        find_files(tmp_path / "d", split="dev")
    assert caught.value.hint == "there are `train`, `test`"
    (tmp_path / "d/train/data-00001-of-00002.arrow").unlink()
    with pytest.raises(DataError, match=r"train/state.json: is damaged"):
        find_files(tmp_path / "d")


def test_dataset_of_the_hub_is_read_as_it_streams():
    from datasets import ClassLabel, Dataset, Features, Image, Value

    from finetune.corpus.hub import encode_rows

    features = Features(
        {"text": Value("string"), "label": ClassLabel(names=["neg", "pos"]), "image": Image()}
    )
    columns = {"text": ["a"], "label": [1], "image": [{"bytes": b"\x89PNG", "path": "a.png"}]}
    part = Dataset.from_dict(columns, features=features).to_iterable_dataset()
    assert (
        list(encode_rows([part, part]))
        == [b'{"text":"a","label":"pos","image":{"bytes":"iVBORw==","path":"a.png"}}\n'] * 2
    )


def test_hub_that_cannot_be_reached_is_said(finetune, tmp_path):
    script = """
        from pathlib import Path
        from finetune.corpus.sources import find_files
        from finetune.errors import PlatformError
        [file] = find_files(Path("hub:owner/name"), split="train")[0]
        for read in (file.open, file.digest):
            try:
                read()
            except PlatformError as error:
                print(error.exit_code, error)
        """
    import subprocess
    import sys
    import textwrap

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["5 hub:owner/name: the hub cannot be reached"] * 2
    assert done.stderr == ""


@pytest.mark.parametrize("name", ["hub:", "hub:../x", "hub:a/b/c", "hub:a b"])
def test_name_that_no_dataset_has_is_refused(name):
    from pathlib import Path

    [file] = find_files(Path(name))[0]
    with pytest.raises(UsageError, match="no name of a dataset"):
        file.digest()


def test_convert_names_the_files_that_it_does_not_read(finetune, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(b'{"question":"a","answer":"b"}\n')
    (folder / "notes.pdf").write_bytes(b"%PDF")
    done = finetune("convert", "in", "-o", "out.jsonl", cwd=tmp_path)
    assert done.returncode == 0
    assert "notes.pdf: not read: no data file by its name" in done.stderr
