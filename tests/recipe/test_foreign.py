"""Jobs of La Plateforme and configs of mistral-finetune become recipes that load."""

from __future__ import annotations

import json

import pytest

from finetune.errors import UsageError
from finetune.recipe import load_recipe
from finetune.recipe.foreign import import_settings

JOB = {
    "id": "2813b7e6", "object": "job", "status": "SUCCESS", "model": "open-mistral-nemo",
    "suffix": "support-1a2b3c", "job_type": "completion", "created_at": 1, "auto_start": False,
    "hyperparameters": {"learning_rate": 1e-4, "weight_decay": 0.1, "warmup_fraction": 0.05,
                        "epochs": 2.5, "training_steps": 40, "fim_ratio": 0.9, "seq_len": None,
                        "novel": 3},
    "training_files": ["f1", "f2"], "validation_files": ["f3"], "events": [], "checkpoints": [],
}  # fmt: skip
CONFIG = """
data: {instruct_data: "/data/a.jsonl:5.0,/data/b.jsonl:2", eval_instruct_data: /data/c.jsonl}
model_id_or_path: /models/7B
lora: {rank: 64}
seq_len: 8192
batch_size: 2
max_steps: 300
optim: {lr: 6.e-5, weight_decay: 0.1, pct_start: 0.05}
seed: 3
log_freq: 1
ckpt_freq: 100
save_adapters: true
run_dir: /runs/x
"""


def load(settings, tmp_path):
    path = tmp_path / "made.yaml"
    path.write_text(json.dumps(settings))
    return load_recipe(path)


def test_a_job_becomes_a_recipe_and_says_what_is_missing(tmp_path):
    made = import_settings(JOB, {"f1": "files/f1-train.jsonl"})
    recipe = load(made.settings, tmp_path)

    assert (recipe.model, recipe.backend) == ("mistral-nemo", "platform")
    assert (recipe.training.epochs, recipe.training.steps) == (2.5, None)
    assert recipe.platform.suffix == "support"
    assert [source.path.name for source in recipe.data.train] == ["f1-train.jsonl", "f2.jsonl"]
    assert len(recipe.data.validation) == 1
    notes = "\n".join(made.notes)
    for word in ("training_steps: 40", "fim_ratio", "novel: 3", "download f2", "weights"):
        assert word in notes
    assert "download f1" not in notes


def test_a_config_of_mistral_finetune_becomes_a_recipe(finetune, tmp_path, check_document):
    (tmp_path / "7B.yaml").write_text(CONFIG)
    done = finetune("recipes", "import", "7B.yaml", "-o", "mine.yaml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    check_document("cli/recipes", document)
    recipe = load_recipe(tmp_path / "mine.yaml")

    assert [source.weight for source in recipe.data.train] == [5, 2]
    assert (recipe.training.steps, recipe.training.seq_len, recipe.seed) == (300, 8192, 3)
    assert recipe.training.learning_rate == 6e-5
    assert recipe.local.batch_tokens == 16384
    assert (recipe.local.lora.rank, recipe.local.lora.alpha) == (64, 128)
    assert {"log_freq: no equal", "save_adapters: no equal"} <= set(document["notes"])


def test_anything_else_is_refused():
    with pytest.raises(UsageError, match="neither a job"):
        import_settings({"a": 1}, {})
