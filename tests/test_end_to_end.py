"""The whole job on the embedded model, in a few steps: run, look, continue, use."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

import finetune as finetune_package
from finetune.runs import Run, list_runs
from finetune.shipped import shipped_folder

pytestmark = pytest.mark.heavy

RECIPE = shipped_folder("recipes") / "quickstart.yaml"
SHORT = [
    *("-s", "training.epochs=null", "-s", "training.steps=6", "-s", "local.save_every=2"),
    *("-s", "local.batch_tokens=300", "-s", "local.threads=1"),
    *("-s", "evaluation.limit=4", "-s", "evaluation.max_new_tokens=12"),
    *("-s", "evaluation.data=0.02", "-s", "data.validation=0.02"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def unbroken(home, finetune, embedded_model):
    done = finetune("run", RECIPE, *SHORT, "--json", cwd=home)
    assert done.returncode == 0, done.stderr
    return Run(list_runs(home / "runs")[0].folder), json.loads(done.stdout)


def test_a_run_ends_with_an_adapter_measures_and_a_report(unbroken, check_document):
    run, document = unbroken

    check_document("cli/run", document)
    check_document("files/run", run.state)
    check_document("files/evaluation", run.evaluation())
    check_document("files/manifest", run.manifest())
    for line in run.metrics():
        check_document("files/metric", line)
    for line in run.events():
        check_document("files/event", line)
    for path, schema in (
        (run.folder / "predictions.jsonl", "files/prediction"),
        (run.dataset / "rejected.jsonl", "files/rejected"),
        (run.dataset / "origins.jsonl", "files/origin"),
    ):
        for line in path.read_text(encoding="utf-8").splitlines():
            check_document(schema, json.loads(line))
    assert (run.state["state"], document["state"]) == ("done", "done")
    assert [line["step"] for line in run.metrics()] == [1, 2, 3, 4, 5, 6]
    assert run.metrics()[-1]["loss"] < run.metrics()[0]["loss"]
    assert (run.adapter / "adapter_model.safetensors").is_file()
    assert run.evaluation()["tuned"]["loss"]["value"] < run.evaluation()["base"]["loss"]["value"]
    page = (run.folder / "report.html").read_text()
    HTMLParser().feed(page)
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_the_same_command_again_says_that_nothing_is_left(unbroken, home, finetune):
    run, _ = unbroken
    started = time.monotonic()
    done = finetune("run", RECIPE, *SHORT, cwd=home)

    assert done.returncode == 0
    assert "nothing left to do" in done.stderr
    assert run.folder.name in done.stdout
    assert time.monotonic() - started < 30
    assert len(list_runs(home / "runs")) == 1


def test_the_plan_was_exact(unbroken, home, finetune):
    plan = json.loads(finetune("plan", RECIPE, *SHORT, "--json", cwd=home).stdout)
    last = unbroken[0].metrics()[-1]

    assert (plan["steps"], plan["tokens_seen"]) == (last["step"], last["tokens"])
    assert plan["epochs"] == pytest.approx(last["epoch"])
    assert plan["seconds"] > 0  # from the speed that the run measured


def test_a_killed_run_continues_to_the_same_end(unbroken, tmp_path, finetune):
    command = [sys.executable, "-m", "finetune", "run", str(RECIPE), *SHORT]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and process.poll() is None:
            runs = list_runs(tmp_path / "runs") if (tmp_path / "runs").exists() else []
            if runs and len(runs[0].metrics()) >= 3:
                break
            time.sleep(0.05)
        busy = finetune("run", RECIPE, *SHORT, cwd=tmp_path)
        process.send_signal(signal.SIGKILL)
    killed = list_runs(tmp_path / "runs")[0]
    assert process.returncode == -signal.SIGKILL
    assert killed.state["state"] == "training"
    assert busy.returncode == 9
    assert f"process {process.pid} " in busy.stderr

    done = finetune("run", RECIPE, *SHORT, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert [run.folder for run in list_runs(tmp_path / "runs")] == [killed.folder]
    expected, found = unbroken[0].metrics(), killed.metrics()
    assert [line["step"] for line in found] == [line["step"] for line in expected]
    assert abs(found[-1]["loss"] - expected[-1]["loss"]) <= 1e-6


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_says_how_to_go_on(unbroken, tmp_path, number, code):
    command = [sys.executable, "-m", "finetune", "run", str(RECIPE), *SHORT]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            runs = list_runs(tmp_path / "runs") if (tmp_path / "runs").exists() else []
            if runs and runs[0].metrics():
                break
            time.sleep(0.05)
        process.send_signal(number)
        errors = process.communicate(timeout=120)[1]

    assert process.returncode == code
    assert "the same command goes on" in errors
    assert list_runs(tmp_path / "runs")[0].state["state"] == "interrupted"


def test_a_run_can_be_looked_at_and_used(unbroken, home, finetune, check_document):
    run, _ = unbroken
    name = run.folder.name
    for command in (
        ["runs"],
        ["show", "last"],
        ["report", name],
        ["evaluate", name],
        ["chat", name, "--prompt", "Where is my parcel 12345?", "--max-new-tokens", "8"],
        ["export", name, "--to", "merged", "-o", "merged"],
    ):
        done = finetune(*command, "--json", cwd=home)
        assert done.returncode == 0, done.stderr
        check_document(f"cli/{command[0]}", json.loads(done.stdout))
    watched = finetune("watch", name, "--json", cwd=home)
    for line in watched.stdout.splitlines():
        check_document("cli/watch", json.loads(line))
    assert len(watched.stdout.splitlines()) == 6
    assert (home / "merged" / "model.safetensors").is_file()


def test_a_folder_with_another_run_is_refused(unbroken, home, finetune):
    run, _ = unbroken
    done = finetune("run", RECIPE, *SHORT, "-s", "seed=1", "--run", run.folder, cwd=home)

    assert done.returncode == 1
    assert "another recipe or other data" in done.stderr


def test_documents_are_trained_as_middles_to_fill_in(embedded_model, tmp_path, finetune):
    folder = Path(finetune_package.__file__).parent
    source = "\n\n\n".join((folder / name).read_text() for name in ("text.py", "errors.py"))
    parts = [part for part in source.split("\n\n\n") if 80 < len(part) < 500][:16]
    rows = [json.dumps({"text": part}) + "\n" for part in parts]
    (tmp_path / "code.jsonl").write_text("".join(rows), encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(
        "model: smollm2-135m\nmethod: pretrain\n"
        "data: {train: [{path: code.jsonl}], validation: 0.4}\n"
        "training: {epochs: 2, fim_ratio: 0.5, seq_len: 1024}\n"
        "evaluation: {limit: 2, max_new_tokens: 8, forgetting: false}\n"
        "local: {batch_tokens: 512, threads: 1}\n"
    )
    plan = json.loads(finetune("plan", "recipe.yaml", "--json", cwd=tmp_path).stdout)
    done = finetune("run", "recipe.yaml", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    run = list_runs(tmp_path / "runs")[0]
    last, evaluation = run.metrics()[-1], run.evaluation()
    assert (plan["steps"], plan["tokens_seen"]) == (last["step"], last["tokens"])
    assert last["epoch"] == 2
    assert evaluation["records"] == 2
    assert evaluation["tuned"]["loss"]["value"] < evaluation["base"]["loss"]["value"]
    assert "exact_match" in evaluation["tuned"]
