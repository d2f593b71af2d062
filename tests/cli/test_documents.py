"""Every `--json` document is what its schema in `data_schemas/cli` says."""

from __future__ import annotations

import json

import pytest

from finetune.cli import COMMANDS
from finetune.shipped import shipped_folder

QUICKSTART = shipped_folder("recipes") / "quickstart.yaml"
CHATS = shipped_folder("recipes") / "data" / "chats.json"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_schema_of_its_document(name):
    assert (shipped_folder("data_schemas") / "cli" / f"{name}.schema.json").is_file()


@pytest.mark.parametrize(
    ("name", "arguments", "code"),
    [
        ("convert", [CHATS, "-o", "out.jsonl"], 3),
        ("init", [CHATS], 0),
        ("prepare", [QUICKSTART], 0),
        ("plan", [QUICKSTART], 0),
        ("plan", [QUICKSTART.with_name("laplateforme.yaml")], 0),
        ("plan", [QUICKSTART.with_name("platform-demo.yaml")], 0),
        ("plan", [QUICKSTART.with_name("ministral-3-8b-24gb.yaml"), "--memory", "24"], 0),
        ("launch", [QUICKSTART, "--to", "slurm"], 0),
        ("doctor", [], 0),
        ("models", [], 0),
        ("models", ["mistral-nemo"], 0),
        ("recipes", [], 0),
        ("recipes", ["copy", "quickstart"], 0),
        ("explain", ["local"], 0),
        ("explain", ["call-id"], 0),
        ("explain", ["sft"], 0),
        ("explain", ["3"], 0),
        ("runs", [], 0),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_json_is_what_its_schema_says(finetune, check_document, tmp_path, name, arguments, code):
    done = finetune(name, *arguments, "--json", cwd=tmp_path)

    assert done.returncode == code, done.stderr
    check_document(f"cli/{name}", json.loads(done.stdout))
