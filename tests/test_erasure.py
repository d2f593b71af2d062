"""Erasure: a person is found in datasets and runs, deleted, and kept out afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from finetune.runs import Run

ROOT = Path(__file__).parent.parent
PERSON = {"name": "Zoé Canari", "mail": "zoe.canari@acme.fr", "id": "C-48213"}
RECIPE = """
model: {model}
data:
  train:
    - {{path: tickets.csv, columns: {{user: question, assistant: answer}}, known: [name, id]}}
  validation: 0.0
  privacy: "{mode}"
"""


@pytest.fixture
def place(tmp_path):
    """A folder with tickets of several people; the person's are in rows 3 and 6."""
    rows = ["name,id,question,answer"]
    for number in range(1, 9):
        name, mail, code = (
            (PERSON["name"], PERSON["mail"], PERSON["id"])
            if number in (2, 5)
            else (f"Max Muster{'abcdefghij'[number]}", f"max{number}@web.de", f"C-7000{number}")
        )
        rows.append(
            f"{name},{code},Ici {name} ({mail}) ticket {number},Bonjour {name.upper()} : {code}"
        )
    (tmp_path / "tickets.csv").write_text("\n".join(rows), encoding="utf-8")
    return tmp_path


@pytest.fixture
def finetune_at(place):
    """Run the command line with a user's data directory of its own."""

    def run(*arguments, text=None):
        home = {"XDG_DATA_HOME": str(place / "home"), "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            [sys.executable, "-m", "finetune", *map(str, arguments)],
            cwd=place, env=os.environ | home, capture_output=True, text=True, check=False,
            **({"stdin": subprocess.DEVNULL} if text is None else {"input": text}),
        )  # fmt: skip

    return run


def prepare(finetune_at, place, mode):
    (place / "r.yaml").write_text(RECIPE.format(model="mistral-nemo", mode=mode))
    done = finetune_at("prepare", "r.yaml", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def add_run(place, folder):
    """A finished run on a dataset, with an adapter, an upload and answers that quote the person."""
    from finetune.recipe import load_recipe

    run = Run.create(
        place / "runs" / "r-1", load_recipe(place / "r.yaml"), identity="0" * 16,
        dataset=place / folder, dataset_digest="d",
    )  # fmt: skip
    run.adapter.mkdir()
    run.event("upload", file_id="file-123")
    run.set_state("done", tuned_model="adapter")
    lines = [{"record": 1, "reference": "x"}, {"record": 2, "reference": f"à {PERSON['name']}"}]
    (run.folder / "predictions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return run


@pytest.mark.parametrize("subject", PERSON.values(), ids=PERSON)
def test_a_person_is_found_with_the_origin_of_each_record(
    finetune_at, check_document, place, subject
):
    folder = prepare(finetune_at, place, "off")["folder"]
    add_run(place, folder)

    done = finetune_at("privacy", "find", "--subject", subject, "--json")

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    check_document("cli/privacy", found)
    (dataset,), (run,) = found["datasets"], found["runs"]
    assert [(one["source_file"], one["row"]) for one in dataset["records"]] == [
        ("tickets.csv", 3),
        ("tickets.csv", 6),
    ]
    assert all(one["certain"] for one in dataset["records"])
    assert (run["tuned_model"], run["remote_files"]) == ("adapter", ["file-123"])
    assert run["predictions"] == ([2] if subject == PERSON["name"] else [])


def test_nobody_is_deleted_unasked(finetune_at, place):
    prepare(finetune_at, place, "off")
    before = sorted(path for path in place.rglob("*") if path.is_file())

    done = finetune_at("privacy", "erase", "--subject", PERSON["mail"])

    assert done.returncode == 7
    after = [path for path in place.rglob("*") if path.is_file() and path.name != "privacy.key"]
    assert sorted(after) == [path for path in before if path.name != "privacy.key"]


@pytest.mark.parametrize("arguments", [["--subject", "42"], ["--subject", "empty.txt"], []])
def test_what_is_nobody_is_refused(finetune_at, place, arguments):
    (place / "empty.txt").write_text("\n")
    assert finetune_at("privacy", "find", *arguments).returncode == 2
