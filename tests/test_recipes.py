"""The shipped recipes and the quickstart's data."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from finetune import load_recipe
from finetune.corpus import prepare

RECIPES = Path(__file__).parent.parent / "recipes"
FILES = sorted(RECIPES.glob("*.yaml"))
FIELDS = ["language", "category", "product", "order", "urgent"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    recipe = load_recipe(RECIPES / "quickstart.yaml")
    return prepare(recipe, folder=tmp_path_factory.mktemp("datasets"))


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_there_are_recipes():
    assert {"quickstart", "ministral-3-8b-24gb", "laplateforme"} <= {path.stem for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_recipe_loads_and_names_its_schema_and_command(path):
    recipe = load_recipe(path)
    assert all(source.path.exists() for source in recipe.data.train)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=../data_schemas/recipe.schema.json\n")
    assert f"#   finetune run recipes/{path.name}" in text


def test_readme_lists_every_recipe_once():
    listed = re.findall(
        r"^\| \[(.+?)\]\(\1\.yaml\) \|", (RECIPES / "README.md").read_text(), re.MULTILINE
    )
    assert sorted(listed) == [path.stem for path in FILES]


def test_account_of_the_quickstart(dataset):
    manifest = dataset.manifest
    assert manifest["rows"] == {"read": 567, "converted": 564, "rejected": 3}
    assert manifest["records"] == {"made": 564, "written": 533, "rejected": 4, "removed": 27}
    assert manifest["by_rule"] == {
        "duplicate": 23,
        "empty-assistant": 3,
        "held-out": 4,  # rows equal to a held-out one: they must not be trained on
        "last-message": 1,
        "null": 1,
        "ragged-row": 1,
        "role": 1,
    }
    assert manifest["warnings"] == {}


def test_data_page_tells_the_rows(dataset):
    page = (RECIPES / "data" / "README.md").read_text(encoding="utf-8")
    told = [int(count) for count in re.findall(r"^\| `[\w.]+` \| (\d+)[ ,]", page, re.MULTILINE)]
    assert sum(told) == dataset.manifest["rows"]["read"]


def test_at_least_60_records_are_held_out_and_bring_new_values(dataset):
    trained = [record for file in dataset.train for record in read(file.path)]
    held_out = read(dataset.evaluation)
    assert len(held_out) >= 60
    assert read(dataset.validation)

    def values(records):
        texts = [m["content"] for r in records for m in r["messages"] if m["role"] == "user"]
        return set(texts), {n for text in texts for n in re.findall(r"\b\d{5}\b", text)}

    for seen, new in zip(values(trained), values(held_out), strict=True):
        assert new
        assert not seen & new


def test_every_answer_follows_from_its_messages(dataset):
    files = [*(file.path for file in dataset.train), dataset.validation, dataset.evaluation]
    records = [record for path in files for record in read(path)]
    products, letters = set(), 0
    for record in records:
        said = ""
        for message in record["messages"]:
            if message["role"] == "user":
                said += message["content"]
            elif message["role"] == "assistant" and message["content"].startswith("Bonjour"):
                letters += 1  # the form letter that somebody pasted as an answer: too long to train
            elif message["role"] == "assistant":
                answer = json.loads(message["content"])
                assert list(answer) == FIELDS
                assert answer["order"] is None or answer["order"] in said
                assert type(answer["urgent"]) is bool
                products.add(answer["product"])
    assert letters == 1
    assert len(products - {None}) == 8


def test_table_is_as_dirty_as_its_page_says():
    data = (RECIPES / "data" / "tickets.csv").read_bytes()
    assert data.startswith(b"\xef\xbb\xbf")
    assert b";" in data.splitlines()[0]
    rows = list(csv.DictReader(data.decode("utf-8-sig").splitlines(keepends=True), delimiter=";"))
    assert sum(row["answer"] == "" for row in rows) == 2
    assert sum(row["answer"] is None for row in rows) == 1
    assert any("\n" in row["question"] for row in rows)
