import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN = (
    "import sys, finetune.cli as c\n"
    "try: c.main()\n"
    "finally: assert not {'torch', 'transformers', 'datasets'} & sys.modules.keys()\n"
)


@pytest.fixture
def finetune(tmp_path):
    """Call the command in a process of its own, in an empty folder; torch must stay unloaded."""

    def call(*arguments):
        return subprocess.run(
            [sys.executable, "-c", RUN, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=False,
        )

    return call


@pytest.fixture
def recipe(tmp_path):
    row = {
        "messages": [
            {"role": "user", "content": "What is {}?"},
            {"role": "assistant", "content": "It is {}."},
        ]
    }
    lines = (json.dumps(row).replace("{}", str(n)) + "\n" for n in range(30))
    (tmp_path / "chats.jsonl").write_text("".join(lines), encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(
        "model: mistral-nemo\ndata: {train: [{path: chats.jsonl}], validation: 0.1}\n"
        "training: {seq_len: 512}\n",
        encoding="utf-8",
    )
    return "recipe.yaml"


def test_plan_shows_the_bill_on_stdout_and_the_next_command_on_stderr(finetune, recipe):
    done = finetune("plan", recipe, "--memory", "24")
    assert done.returncode == 0, done.stderr
    for word in ("records", "tokens", "steps", "weights", "largest that fits", "download"):
        assert word in done.stdout
    assert done.stderr.endswith(f"next: finetune run {recipe}\n")


def test_what_was_planned_is_what_the_next_command_runs(finetune, recipe):
    done = finetune("plan", recipe, "-s", "training.epochs=2", "-s", "data.ignore=[]")
    wanted = f"next: finetune run {recipe} -s training.epochs=2 -s 'data.ignore=[]'\n"
    assert done.stderr.endswith(wanted)


def test_plan_prints_one_json_document(finetune, recipe):
    done = finetune("plan", recipe, "--json", "-s", "training.epochs=2", "--memory", "24")
    made = json.loads(done.stdout)
    assert made["epochs"] == 2
    assert made["memory"]["available_bytes"] == 24_000_000_000
    assert made["records"] + made["validation_records"] == 30


@pytest.mark.parametrize("memory", ["nan", "inf", "0"])
def test_memory_that_no_gpu_has_exits_2(finetune, recipe, memory):
    done = finetune("plan", recipe, "--memory", memory)
    assert done.returncode == 2
    assert "--memory" in done.stderr


def test_plan_exits_3_where_the_data_would_stop_the_run(finetune, recipe, tmp_path):
    text = (tmp_path / "chats.jsonl").read_text(encoding="utf-8")
    (tmp_path / "chats.jsonl").write_text(text.replace("What is 1", "What is 1" + " 1" * 600))
    done = finetune("plan", recipe)
    assert done.returncode == 3
    assert "problem" in done.stdout


def test_seq_len_above_the_context_exits_2_before_the_data_are_read(finetune, recipe, tmp_path):
    (tmp_path / "chats.jsonl").unlink()
    done = finetune("plan", recipe, "-s", "training.seq_len=200000")
    assert done.returncode == 2
    assert "above the context" in done.stderr


JUDGE = "evaluation.judge={url: 'https://judge.example/v1', model: judge-1, limit: 7}"


def test_plan_says_what_a_judge_would_see(finetune, recipe):
    done = finetune("plan", recipe, "-s", JUDGE, "-s", "egress.personal_data=any")
    assert done.returncode == 0, done.stderr
    assert "up to 7 held-out records and the answers to them go to judge.example" in done.stdout


def test_a_judge_that_may_not_see_the_data_exits_2(finetune, recipe):
    done = finetune("plan", recipe, "-s", JUDGE)
    assert done.returncode == 2
    assert "records would go to `judge.example`, personal data were not looked for" in done.stderr


def test_models_lists_the_catalog_and_shows_one(finetune):
    assert "ministral-3-8b" in finetune("models", "-q").stdout.splitlines()
    shown = json.loads(finetune("models", "ministral-8b-2410", "--json").stdout)
    assert shown["commercial_use"] is False
    assert shown["params"] == 8_019_808_256
    assert "not from a source" in finetune("models", "ministral-8b-2410").stdout


def test_an_unknown_model_exits_2_with_a_hint(finetune):
    done = finetune("models", "mistral-nemmo")
    assert done.returncode == 2
    assert "did you mean `mistral-nemo`?" in done.stderr
