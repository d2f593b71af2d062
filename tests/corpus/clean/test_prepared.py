"""What `prepare` makes of the settings of cleaning, from files to files."""

from __future__ import annotations

import json
import random

import pytest

from finetune.corpus import prepare
from finetune.recipe import Recipe

WORDS = [f"word{number}" for number in range(400)]


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def make(folder, sources, *, workers=1, method="sft", validation=0.3, **data):
    recipe = Recipe.model_validate(
        {
            "model": "smollm2-135m",
            "method": method,
            "data": {"train": sources, "validation": validation, **data},
        }
    )
    return prepare(recipe, folder=folder, workers=workers)


@pytest.fixture
def rows():
    """Return 120 rows: each third one is the one before it with a word changed."""
    chance = random.Random(0)
    found = []
    for number in range(120):
        words = [chance.choice(WORDS) for _ in range(150)]
        if number % 3 == 2:
            words = found[-1]["answer"].split()
            words[chance.randrange(60)] = "changed"
        found.append({"question": f"Number {number}?", "answer": " ".join(words)})
    return found


@pytest.fixture
def source(tmp_path, rows):
    return {"path": write(tmp_path / "rows.jsonl", rows)}


def test_near_duplicates_go_name_what_was_kept_and_never_stand_on_two_sides(tmp_path, rows, source):
    dataset = make(tmp_path / "a", [source], clean={"deduplicate": "near"})
    rejected = lines(dataset.folder / "rejected.jsonl")
    origins = {
        origin["row"]: origin["output"] for origin in lines(dataset.folder / "origins.jsonl")
    }
    assert len(rejected) == 40
    rules = set()
    for line in rejected:
        assert {line["line"], line["kept"]["line"]} in [{n - 1, n} for n in range(3, 121, 3)]
        assert line["line"] not in origins
        held_out = origins[line["kept"]["line"]] == "validation.jsonl"
        rules.add(line["rule"])
        if line["rule"] == "near-duplicate-of-validation":
            assert held_out
    assert rules == {"near-duplicate", "near-duplicate-of-validation"}
    assert dataset.manifest["records"] == {"made": 120, "written": 80, "rejected": 0, "removed": 40}


def test_workers_make_no_difference(tmp_path, rows, source):
    clean = {
        "deduplicate": "near",
        "decontaminate": [write(tmp_path / "eval.jsonl", rows[5:9])],
    }
    made = [
        make(tmp_path / str(workers), [source], workers=workers, clean=clean) for workers in (1, 2)
    ]
    one, two = ({p.name: p.read_bytes() for p in dataset.folder.iterdir()} for dataset in made)
    assert one == two


def test_contaminated_records_name_the_item(tmp_path, rows, source):
    evaluation = write(tmp_path / "eval.jsonl", [rows[30], {"q": "short"}, rows[60]])
    clean = {"decontaminate": [evaluation]}
    dataset = make(tmp_path / "a", [source], validation=0, clean=clean)
    found = [
        (line["line"], line["rule"], line["evaluation"])
        for line in lines(dataset.folder / "rejected.jsonl")
    ]
    assert found == [(31, "contaminated", "eval.jsonl:1"), (61, "contaminated", "eval.jsonl:3")]


def test_caps_hold_a_source_and_its_choice_to_the_lowest_hashes(tmp_path, rows, source):
    one = make(tmp_path / "a", [{**source, "max_records": 10}])
    other = {"path": write(tmp_path / "other.jsonl", [{"question": "Q", "answer": "A"}])}
    two = make(tmp_path / "b", [{**source, "max_records": 10}, other])
    assert one.train[0].records == 10
    assert one.train[0].path.read_bytes() == two.train[0].path.read_bytes()
    assert one.validation.read_bytes() == two.validation.read_bytes()
    rules = {line["rule"] for line in lines(one.folder / "rejected.jsonl")}
    assert rules == {"max-records"}


def test_classes_are_balanced_and_missing_labels_noted(tmp_path):
    table = [
        {"text": f"Ticket {n} {WORDS[n]}", "label": "rare" if n % 10 == 0 else "usual"}
        for n in range(100)
    ]
    held_out = {
        "path": write(
            tmp_path / "held.jsonl", [row for row in table[:20] if row["label"] == "usual"]
        )
    }
    source = {"path": write(tmp_path / "table.jsonl", table[20:])}
    dataset = make(
        tmp_path / "a",
        [source],
        method="classifier",
        validation=[held_out],
        clean={"balance": "downsample"},
    )
    labels = [record["labels"]["label"] for record in lines(dataset.train[0].path)]
    assert sorted(labels) == ["rare"] * 8 + ["usual"] * 8
    assert dataset.manifest["notes"] == [
        {"rule": "label-not-validated", "message": "`label`: no validation record has `rare`"}
    ]


@pytest.mark.parametrize(
    "more", [{"privacy": "mask"}, {"clean": {"deduplicate": "near"}}, {"shuffled": True}]
)
def test_a_record_keeps_its_side_whatever_else_is_done(tmp_path, rows, source, more):
    def sides(dataset):
        found = {}
        for origin in lines(dataset.folder / "origins.jsonl"):
            if origin["file"] != "new.jsonl":
                number = lines(tmp_path / origin["file"])[origin["row"] - 1]["question"]
                found[number] = origin["output"] == "validation.jsonl"
        return found

    before = sides(make(tmp_path / "a", [source]))
    if more.pop("shuffled", False):
        random.Random(1).shuffle(rows)
        source = {"path": write(tmp_path / "rows2.jsonl", rows)}
    new = {"path": write(tmp_path / "new.jsonl", [{"question": "New?", "answer": "Yes."}])}
    after = sides(make(tmp_path / "b", [new, source], **more))
    assert len(before) == 120
    assert len(after) >= 80
    assert after == {number: before[number] for number in after}
