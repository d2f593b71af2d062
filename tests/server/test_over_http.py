"""A recipe over a server of its own: uploaded, validated and trained there as it is at home."""

from __future__ import annotations

import pytest

from finetune import load_recipe, pipeline
from finetune.runs import Run, list_runs
from finetune.shipped import shipped_folder

pytestmark = pytest.mark.heavy

DEMO = shipped_folder("recipes") / "platform-demo.yaml"
SHORT = {
    "training.epochs": "null",
    "training.steps": "3",
    "training.seq_len": "100",  # many are longer: they are left out on both sides
    "local.threads": "1",
    "evaluation.measure": "false",
    "seed": "7",
}


@pytest.fixture
def _threads():
    """Leave other tests the threads that they had."""
    import torch

    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("_threads")
def test_the_same_samples_are_trained_in_the_same_order_over_http(small_model, finetune, tmp_path):
    settings = [f"{key}={value}" for key, value in (SHORT | {"model": str(small_model)}).items()]
    options = [part for setting in settings for part in ("-s", setting)]
    done = finetune("run", DEMO, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [run] = list_runs(tmp_path / "runs")
    recipe = load_recipe(DEMO, overrides=[*settings, "backend=local"])
    home = pipeline.run(recipe, folder=tmp_path / "home", datasets=tmp_path / "datasets")

    assert run.state["tuned_model"].startswith("ft:model:triage-")
    [job] = [Run(path.parent) for path in run.folder.glob("server/runs/*/run.json")]
    assert job.recipe.seed == 7
    there, here = (read_training(one) for one in (job, home))
    assert there["samples"] == here["samples"] < 400
    assert there["tokens"] == here["tokens"]
    assert there["losses"] == pytest.approx(here["losses"], rel=1e-5)


def read_training(run):
    [started] = [event for event in run.events() if event["event"] == "training"]
    metrics = run.metrics()
    return {
        "samples": started["samples"],
        "tokens": [line["tokens"] for line in metrics],
        "losses": [line["loss"] for line in metrics],
    }
