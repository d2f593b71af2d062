from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from finetune.cli import COMMANDS
from finetune.cli.explain import EXIT_CODES
from finetune.recipe import Recipe
from finetune.runs import Run

ROOT = Path(__file__).parents[2]


def test_help_lists_every_command_and_loads_none_of_the_heavy_libraries():
    code = (
        "import sys\nfrom finetune.cli import main\nsys.argv = ['finetune', '--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(sorted({'torch','transformers','datasets','pyarrow','pydantic','mistral_common',"
        "'rich','jsonschema','numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"
    for name, (_, summary) in COMMANDS.items():
        assert f"  {name} " in done.stdout
        assert summary in done.stdout


@pytest.mark.parametrize(
    ("place", "method", "said"),
    [
        ("runs/demo-1", "sft", "next: finetune chat demo-1\n"),
        ("runs/demo-1", "classifier", "next: finetune classify demo-1\n"),
        ("else where/demo-1", "sft", "next: finetune chat 'else where/demo-1'\n"),
    ],
)
def test_the_next_command_finds_the_run_and_fits_it(finetune, tmp_path, place, method, said):
    recipe = Recipe.model_validate(
        {"model": "m", "method": method, "data": {"train": [{"path": "x"}]}}
    )
    facts = {"identity": "0", "dataset": tmp_path / "dataset", "dataset_digest": "0"}
    run = Run.create(tmp_path / place, recipe, **facts)
    run.set_state("done")
    for command in ("show", "report"):
        assert finetune(command, place, cwd=tmp_path).stderr == said
    run.set_state("failed")
    assert finetune("show", place, cwd=tmp_path).stderr == "next: finetune run RECIPE\n"


PARTS = {"privacy": ("find", "erase"), "platform": ("check", "backup")}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_json(finetune, tmp_path, name):
    done = finetune(name, "--help", cwd=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    parts = [[name, part] for part in PARTS.get(name, ())] or [[name]]
    for command in parts:
        assert "--json" in finetune(*command, "--help", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["rnu"], 2, "did you mean `run`?"),
        (["run"], 2, "Missing argument 'RECIPE'"),
        (["run", "gone.yaml"], 2, "error: gone.yaml: no such recipe"),
        (["run", "--frech", "x.yaml"], 2, "--fresh"),
        (["show", "gone"], 2, "no runs here"),
        (["explain", "training.epoch"], 2, "training.epochs"),
        (["explain", "99"], 2, "is not an exit code"),
    ],
)
def test_a_wrong_command_says_what_to_do(finetune, tmp_path, arguments, code, said):
    done = finetune(*arguments, cwd=tmp_path)

    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_explain_knows_every_exit_code_and_the_docs_do_too(finetune, tmp_path):
    page = (ROOT / "docs" / "runs.md").read_text(encoding="utf-8")
    for code, meaning in EXIT_CODES.items():
        assert meaning.split(";")[0] in finetune("explain", code, cwd=tmp_path).stdout
        assert str(code) in page


def test_explain_json_is_one_document(finetune, tmp_path):
    done = finetune("explain", "local.lora.rank", "--json", cwd=tmp_path)

    assert done.stdout.startswith('{"name":"local.lora.rank"')
    assert done.stderr == ""


def test_a_closed_pipe_is_no_error():
    done = subprocess.run(
        f"{sys.executable} -m finetune --help | head -1",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stderr == ""
