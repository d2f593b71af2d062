"""Documents, source trees and message tables on their whole way, each row accounted for."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from finetune.corpus import prepare
from finetune.corpus.sources import find_files
from finetune.errors import UsageError
from finetune.recipe import Recipe
from finetune.tokens import load_tokenizer

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3\n"


def recipe(source, *, model="v3-tekken", method="pretrain", **data) -> Recipe:
    source = {**source, "path": str(source["path"])}
    return Recipe.model_validate(
        {
            "model": model,
            "method": method,
            "backend": "platform",
            "data": {"train": [source], "validation": 0.0, **data},
        }
    )


def lines(path: Path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_tree(folder: Path) -> Path:
    files = {
        "src/main.py": "import os\n",
        "src/util.c": "int f(void);\n",
        "run": "#!/bin/sh\nls\n",
        ".github/build.yml": "on: push\n",
        "LICENSE": "MIT\n",
        "data.json": "{}\n",
        "node_modules/a/index.js": "x = 1\n",
        "key.py": f'k = """{KEY}"""\n',
        "empty.py": "",
        "ignored.py": "secret = 1\n",
        ".gitignore": "ignored.py\n",
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "logo.png").write_bytes(b"\x89PNG\0\xff")
    (folder / "latin.py").write_bytes("é = 1".encode("latin-1"))
    (folder / "big.py").write_text("x = 1\n" * 200_000)
    (folder / "link.py").symlink_to("/etc/hostname")
    return folder


LEFT_OUT = {
    "licence-file": 1,
    "vendored-file": 1,
    "secret-in-file": 1,
    "binary-file": 2,
    "file-too-large": 1,
    "empty-file": 1,
    "not-code": 2,
}


def test_every_file_of_a_source_tree_is_a_record_or_left_out_with_the_reason(tmp_path):
    tree = write_tree(tmp_path / "tree")
    dataset = prepare(recipe({"path": tree, "format": "code"}), folder=tmp_path / "d")
    assert [record["text"] for record in lines(dataset.train[0].path)] == [
        "# .github/build.yml\non: push\n",
        "# ignored.py\nsecret = 1\n",
        "#!/bin/sh\n# run\nls\n",
        "# src/main.py\nimport os\n",
        "// src/util.c\nint f(void);\n",
    ]
    manifest = dataset.manifest
    assert manifest["rows"] == {"read": 14, "converted": 5, "rejected": 9}
    assert manifest["by_rule"] == LEFT_OUT
    assert manifest["sources"][0]["licences"] == ["LICENSE"]
    assert manifest["sources"][0]["left_out"] == ["link.py"]
    rejected = Counter(one["rule"] for one in lines(dataset.folder / "rejected.jsonl"))
    assert rejected == LEFT_OUT


def test_a_checkout_is_what_git_knows(tmp_path):
    tree = write_tree(tmp_path / "tree")
    subprocess.run(["git", "init", "-q", tree], check=True)
    (tree / ".git" / "config").write_text("[core]\n\tfsmonitor = touch owned; false\n")
    files, left_out = find_files(tree, tree=True)
    names = [file.name for file in files]
    assert "src/main.py" in names
    assert "ignored.py" not in names
    assert not [name for name in names if name.startswith(".git/")]
    assert left_out == ["link.py"]
    assert not (tree / "owned").exists()  # a program that a checkout names is not run


def test_a_folder_of_sources_says_how_to_read_it(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    with pytest.raises(UsageError) as caught:
        find_files(tmp_path)
    assert "`--from code`" in caught.value.hint


def test_texts_count_where_a_folder_holds_nothing_else(tmp_path):
    (tmp_path / "a.md").write_text("# A\n")
    (tmp_path / "b.txt").write_text("B\n")
    assert [file.name for file in find_files(tmp_path)[0]] == ["a.md", "b.txt"]
    (tmp_path / "c.jsonl").write_text("{}\n")
    files, left_out = find_files(tmp_path)
    assert [file.name for file in files] == ["c.jsonl"]
    assert left_out == ["a.md", "b.txt"]


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        ("a.txt", "It was late, and dark.\nNobody came, but one.\n\nThen, now, a knock.\n", None),
        ("a.md", "<p align=center>\nTitle\n", None),
        ("a.txt", "[1] A note, not JSON.\n", "text"),
        ("a.txt", "<b>Hi</b>, there\n", "text"),
        ("a.txt", "a,b\n1,2\n3,4\n", "text"),
    ],
)
def test_prose_is_a_document(tmp_path, name, text, named):
    (tmp_path / name).write_text(text)
    dataset = prepare(recipe({"path": tmp_path / name, "format": named}), folder=tmp_path / "d")
    assert lines(dataset.train[0].path) == [{"text": text}]


def test_documents_are_cut_into_windows_of_the_models_tokens(tmp_path):
    text = "".join(f"Satz {n} über Fahrräder, der nicht sehr lang ist.\n" for n in range(40))
    (tmp_path / "a.md").write_text(text)
    chunks = {"by": "window", "tokens": 64}
    source = {"path": tmp_path / "a.md", "chunks": chunks}
    dataset = prepare(recipe(source), folder=tmp_path / "d")
    pieces = [record["text"] for record in lines(dataset.train[0].path)]
    tokenizer = load_tokenizer("v3-tekken")
    sizes = [len(tokenizer.encode_text(piece)) for piece in pieces]
    assert "".join(pieces) == text
    assert max(sizes) <= 64
    assert dataset.manifest["records"]["made"] == len(pieces) > 5
    assert dataset.manifest["rows"]["converted"] == 1
    other = prepare(recipe(source, model="v3"), folder=tmp_path / "d")
    assert other.digest != dataset.digest  # another tokenizer cuts elsewhere


TICKETS = """ticket;who;body;at;customer
7;agent;Hello;2026-01-02;Ann
8;customer;Bye;2026-01-05;Bob
7;customer;Hi;2026-01-01;Ann
8;agent;So long;2026-01-06;Bob
9;robot;Beep;2026-01-01;Cid
;customer;Lost;2026-01-01;Dan
"""
TABLE = {
    "columns": {"conversation": "ticket", "role": "who", "content": "body", "order": "at"},
    "roles": {"agent": "assistant", "customer": "user"},
    "system": "Be kind.",
}


def test_message_tables_count_rows_and_records_apart(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(TICKETS)
    source = {"path": path, **TABLE}
    dataset = prepare(recipe(source, method="sft", max_rejected=0.5), folder=tmp_path / "d")
    assert [
        [message["content"] for message in record["messages"]]
        for record in lines(dataset.train[0].path)
    ] == [["Be kind.", "Hi", "Hello"], ["Be kind.", "Bye", "So long"]]
    manifest = dataset.manifest
    assert manifest["rows"] == {"read": 6, "converted": 4, "rejected": 2}
    assert manifest["records"]["made"] == 2
    assert manifest["by_rule"] == {"no-conversation": 1, "role": 1}
    assert manifest["unused"] == {"customer": 4}
    origins = lines(dataset.folder / "origins.jsonl")
    assert [origin["row"] for origin in origins] == [4, 3]


def test_a_conversation_stays_on_its_side_when_it_grows(tmp_path):
    def sides(more):
        path = tmp_path / "t.csv"
        rows = [
            f"{n};{who};{who} {n}{' and more' * more};2026-01-0{1 + (who == 'agent')};x"
            for n in range(60)
            for who in ("customer", "agent")
        ]
        path.write_text("\n".join([TICKETS.splitlines()[0], *rows]) + "\n")
        source = {"path": path, **TABLE}
        dataset = prepare(recipe(source, method="sft", validation=0.4), folder=tmp_path / "d")
        held = lines(dataset.validation)
        return {record["messages"][1]["content"].split()[1] for record in held}

    first = sides(0)
    assert 10 < len(first) < 40
    assert sides(1) == first
