from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from finetune.errors import RunError, UsageError
from finetune.recipe import Recipe
from finetune.runs import Run, find_identity, find_run, identify, list_runs, new_folder


def recipe(**settings):
    return Recipe.model_validate(
        {"name": "support", "model": "m", "data": {"train": [{"path": "a.csv"}]}} | settings
    )


@pytest.fixture
def make(tmp_path):
    def make_run(folder=None, digest="d1", **settings):
        described = recipe(**settings)
        return Run.create(
            folder or new_folder(tmp_path / "runs", described.name),
            described,
            identity=identify(described, digest),
            dataset=tmp_path / "datasets" / "support-d1",
            dataset_digest=digest,
        )

    return make_run


def test_a_run_remembers_recipe_state_events_and_metrics(make, tmp_path):
    run = make()
    run.set_state("training")
    run.metric(step=1, loss=2.0)
    run.metric(step=2, loss=1.5)
    run.metric(step=2, loss=1.4)  # the step was done again after a kill
    again = Run(run.folder)

    assert again.state["state"] == "training"
    assert again.recipe == recipe()
    assert again.metrics() == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.4}]
    assert [event["event"] for event in again.events()] == ["state"]
    assert again.dataset == tmp_path / "datasets" / "support-d1"


def test_identity_is_what_is_trained_and_how(tmp_path):
    same = identify(recipe(), "d1")

    assert identify(recipe(name="other"), "d1") == same
    assert identify(recipe(data={"train": [{"path": "/elsewhere/a.csv"}]}), "d1") == same
    assert identify(recipe(), "d2") != same
    assert identify(recipe(seed=1), "d1") != same
    assert identify(recipe(training={"learning_rate": 2e-4}), "d1") != same


@pytest.mark.parametrize("text", ["[]", "{}", '{"state": "done"}'])
def test_a_document_that_is_no_run(make, text):
    run = make()
    (run.folder / "run.json").write_text(text)
    with pytest.raises(UsageError, match=r"run\.json: does not say what a run says"):
        _ = run.state


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"settings": {"model": "m", "data": {"train": [{"path": "x"}]}, "later": 1}}', "`later`"),
        ("[]", "no `settings`"),
    ],
)
def test_a_recipe_of_another_version_is_named(make, text, said):
    run = make()
    (run.folder / "recipe.resolved.json").write_text(text)
    with pytest.raises(RunError, match=f"not a recipe of finetune .*: {said}") as caught:
        _ = run.recipe
    assert caught.value.hint.startswith("finetune ")


def test_a_local_run_without_its_adapter_is_nobody_elses(make):
    """Its questions must not go to the platform, which has no such model."""
    run = make()
    run.set_state("done", tuned_model="adapter")
    assert run.model is None
    assert "put its folder" in run.find_remedy()


def test_the_newest_run_of_an_identity_that_was_not_cancelled_is_found(make, tmp_path):
    first, second, third = make(), make(), make()
    third.set_state("cancelled")
    newest = list_runs(tmp_path / "runs")

    assert {run.folder for run in newest} == {first.folder, second.folder, third.folder}
    found = find_identity(first.identity, tmp_path / "runs")
    assert found.folder in (first.folder, second.folder)
    assert find_identity("other", tmp_path / "runs") is None


def test_runs_are_found_by_path_name_prefix_and_last(make, tmp_path):
    runs = tmp_path / "runs"
    one = make(runs / "alpha-1")
    two = make(runs / "beta-2", name="beta")

    assert find_run(str(one.folder), runs).folder == one.folder
    assert find_run("alpha", runs).folder == one.folder
    assert find_run("beta", runs).folder == two.folder
    assert find_run("last", runs).folder in (one.folder, two.folder)


@pytest.mark.parametrize("name", ["gamma", "a", ""])
def test_a_run_that_is_not_there_or_not_unique_is_a_usage_error(make, tmp_path, name):
    make(tmp_path / "runs" / "alpha-1")
    make(tmp_path / "runs" / "alpha-2")

    with pytest.raises(UsageError):
        find_run(name, tmp_path / "runs")


def test_a_folder_that_holds_a_run_is_not_made_again(make, tmp_path):
    make(tmp_path / "runs" / "one")
    with pytest.raises(RunError):
        make(tmp_path / "runs" / "one")


def test_cancel_asks_the_process_that_works_there(make):
    run = make()
    assert not run.cancel()
    code = (
        "import sys, time; from pathlib import Path; from finetune.runs import Run\n"
        "with Run(Path(sys.argv[1])).lock():\n    print('held', flush=True)\n    time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(run.folder)], stdout=subprocess.PIPE, env=os.environ
    ) as other:
        other.stdout.readline()
        assert run.worker() == other.pid
        assert run.cancel()
        assert other.wait(10) == -signal.SIGTERM
    assert run.worker() is None


def test_what_a_killed_process_left_is_removed_and_its_torn_line_ended(make):
    run = make()
    for name in (".run.json.tmp-1", ".report.html.tmp-2"):
        (run.folder / name).write_bytes(b"half")
    run.metric(step=1, loss=2.0)
    with open(run.folder / "metrics.jsonl", "ab") as file:
        file.write(b'{"step":2,"lo')
    run.tidy()
    run.metric(step=2, loss=1.0)
    assert [line["loss"] for line in run.metrics()] == [2.0, 1.0]
    assert not list(run.folder.glob(".*.tmp-*"))
    assert run.state["state"] == "preparing"
