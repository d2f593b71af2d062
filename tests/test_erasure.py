"""Erasure: a person is found in datasets and runs, deleted, and kept out afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from finetune import corpus
from finetune.erasure import erase_subject, find_subject, read_subject
from finetune.errors import RunLocked, UsageError
from finetune.recipe import load_recipe
from finetune.runs import Run

ROOT = Path(__file__).parent.parent
PERSON = {"name": "Zoé Canari", "mail": "zoe.canari@acme.fr", "id": "C-48213"}
RECIPE = """
model: mistral-nemo
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


def prepare(place, mode):
    (place / "r.yaml").write_text(RECIPE.format(mode=mode))
    home = place / "home" / "finetune"
    return corpus.prepare(load_recipe(place / "r.yaml"), folder=place / "datasets", home=home)


def find(place, *values):
    home = place / "home" / "finetune"
    return find_subject(values, datasets=place / "datasets", runs=place / "runs", home=home)


def add_run(place, folder):
    """A finished run on a dataset, with an adapter, an upload and answers that quote the person."""
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


@pytest.mark.parametrize("mode", ["off", "pseudonymize"])
@pytest.mark.parametrize("value", PERSON.values(), ids=PERSON)
def test_a_person_is_found_with_the_origin_of_each_record(place, value, mode):
    dataset = prepare(place, mode)
    add_run(place, dataset.folder)
    text = dataset.train[0].path.read_text(encoding="utf-8").lower()
    assert ("canari" in text) == (mode == "off")

    found = find(place, value)

    assert found.datasets[0].searched == ("values" if mode == "off" else "values and pseudonyms")
    assert [(one.source_file, one.row, one.certain) for one in found.datasets[0].places] == [
        ("tickets.csv", 3, True),
        ("tickets.csv", 6, True),
    ]
    (run,) = found.runs
    assert (run.tuned_model, run.remote_files) == ("adapter", ["file-123"])
    assert run.predictions == ([2] if value == PERSON["name"] else [])


def test_what_cannot_be_searched_is_said(place):
    prepare(place, "mask")
    assert find(place, PERSON["name"]).datasets[0].searched == "values only: masked"
    prepare(place, "pseudonymize")
    (place / "home" / "finetune" / "privacy.key").unlink()
    assert "values only: made with another key" in [
        one.searched for one in find(place, PERSON["name"]).datasets
    ]


def test_a_pseudonym_that_two_can_have_is_no_proof(place):
    lines = ["name,id,question,answer", ",,Appelez le 06 12 34 56 78,oui", ",,rien,non"]
    (place / "tickets.csv").write_text("\n".join(lines), encoding="utf-8")
    prepare(place, "pseudonymize")
    (one,) = find(place, "+33 6 12 34 56 78").datasets[0].places
    assert (one.row, one.certain) == (2, False)


def test_nobody_is_deleted_unasked(finetune_at, place):
    prepare(place, "off")
    before = {path for path in place.rglob("*") if path.is_file()}

    done = finetune_at("privacy", "erase", "--subject", PERSON["mail"])

    assert done.returncode == 7
    after = {path for path in place.rglob("*") if path.is_file()}
    assert after - before == {place / "home" / "finetune" / "privacy.key"}
    assert before <= after


def test_an_erased_person_is_gone_and_stays_out(finetune_at, check_document, place):
    first = prepare(place, "off")
    run = add_run(place, first.folder)
    (place / "person.txt").write_text("\n".join(PERSON.values()), encoding="utf-8")

    done = finetune_at("privacy", "erase", "--subject", "person.txt", "--yes")
    asked = finetune_at("privacy", "find", "--subject", "-", "--json", text=PERSON["name"])
    (place / "person.txt").unlink()

    assert done.returncode == 0, done.stderr
    assert "retrain r-1" in done.stderr
    assert "delete the remote file file-123" in done.stderr
    assert not first.folder.exists()
    assert run.state["erased"]
    check_document("files/run", run.state)
    check_document("cli/privacy", json.loads(asked.stdout))
    second = prepare(place, "off")
    assert second.manifest["by_rule"] == {"excluded": 2}
    assert second.manifest["records"]["written"] == 6
    assert second.digest != first.digest
    (place / "tickets.csv").unlink()
    for path in place.rglob("*"):
        if path.is_file():
            text = path.read_bytes().lower()
            assert not any(value.lower().encode() in text for value in PERSON.values()), path
    for value in PERSON.values():
        assert value not in done.stdout + done.stderr + asked.stdout + asked.stderr


def test_a_run_at_work_is_left_alone(place):
    dataset = prepare(place, "off")
    run = add_run(place, dataset.folder)
    with run.lock(), pytest.raises(RunLocked):
        erase_subject(find(place, PERSON["id"]), [PERSON["id"]], home=place / "home" / "finetune")
    assert dataset.folder.exists()
    assert "erased" not in run.state


@pytest.mark.parametrize("text", ["42", "empty.txt", "binary"])
def test_what_is_nobody_is_refused(place, monkeypatch, text):
    monkeypatch.chdir(place)
    (place / "empty.txt").write_text("\n")
    (place / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError) as raised:
        find(place, *read_subject(text))
    assert "42" not in str(raised.value)
