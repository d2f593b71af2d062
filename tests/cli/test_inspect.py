"""`finetune inspect`, as people call it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

ROOT = Path(__file__).parent.parent.parent

RECORD = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yo"},
        {"role": "user", "content": "Bye"},
        {"role": "assistant", "content": "Ciao", "weight": 0.5},
    ]
}


@pytest.fixture
def chats(tmp_path):
    path = tmp_path / "chats.jsonl"
    path.write_text(f"{json.dumps({'text': 'A document.'})}\n{json.dumps(RECORD)}\n{{\n")
    return path


def inspect(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "finetune", "inspect", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_trained_tokens_stand_in_brackets_without_colours(chats):
    done = inspect(f"{chats}:2", "--model", "v7")
    assert done.returncode == 0
    assert "[INST]▁Hi[/INST]⟦▁Yo</s>⟧[INST]▁Bye[/INST]⟦▁C" in done.stdout.replace("▁Y⟦o", "▁Yo")
    assert done.stdout.startswith("line 2, sample 1/1: ")
    assert done.stderr.splitlines()[-1].startswith("next: ")


def test_json_gives_one_line_a_sample(chats):
    done = inspect(f"{chats}:2", "--model", "v3", "--json")
    samples = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(s["line"], s["sample"]) for s in samples] == [(2, 1), (2, 2)]
    assert samples[0]["weights"] is None
    assert set(samples[1]["weights"]) == {0.0, 0.5}
    schema = json.loads((ROOT / "data_schemas" / "cli" / "inspect.schema.json").read_text())
    for sample in samples:
        jsonschema.validate(sample, schema)
        assert len(sample["input_ids"]) == len(sample["labels"]) == len(sample["tokens"])
        assert sample["tokens"][-1] == "</s>"


@pytest.mark.parametrize(
    ("place", "model", "code", "message"),
    [
        ("{chats}:9", "v7", 2, "no such line"),
        ("{chats}:3", "v7", 3, "chats.jsonl:3: not a record"),
        ("{chats}.no:1", "v7", 2, "no such file"),
        ("{chats}:2", "v99", 2, "no tokenizer file, model folder or known model"),
    ],
)
def test_what_is_not_there_is_told_with_its_exit_code(chats, place, model, code, message):
    done = inspect(place.format(chats=chats), "--model", model)
    assert done.returncode == code
    assert message in done.stderr
    assert done.stderr.count("\n") <= 2
