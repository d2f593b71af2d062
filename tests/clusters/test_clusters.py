"""Task files: golden texts, what a shell makes of them, and what is refused."""

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import finetune
from finetune import load_recipe, pipeline
from finetune.clusters import write_task
from finetune.clusters.skypilot import REGIONS
from finetune.errors import DataError, UsageError

GOLDEN = Path(__file__).with_name("golden")
BASE = """\
model: ministral-3-8b
training: {epochs: 1}
"""
RECIPE = """\
extends: base.yaml
data:
  train:
    - {path: data/pairs.jsonl}
    - {path: "data/more-*.jsonl", weight: 0.5}
  validation:
    - {path: ../held-out.jsonl}
local:
  launch: {processes: 8}
"""


def write_records(path, count, words=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    answer = {"role": "assistant", "content": "word " * words}
    lines = [
        json.dumps({"messages": [{"role": "user", "content": f"{path.stem} {number}"}, answer]})
        for number in range(count)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder whose recipe names files in every way: beside it, below it, by a pattern, above."""
    folder = tmp_path / "project"
    write_records(folder / "recipes" / "data" / "pairs.jsonl", 5)
    write_records(folder / "recipes" / "data" / "more-1.jsonl", 4)
    write_records(folder / "held-out.jsonl", 2)
    (folder / "recipes" / "base.yaml").write_text(BASE)
    (folder / "recipes" / "helpdesk.yaml").write_text(RECIPE)
    monkeypatch.chdir(folder)
    return folder


def launch(place, *overrides, **options):
    recipe = load_recipe(place / "recipes" / "helpdesk.yaml", overrides)
    return pipeline.launch(recipe, overrides=overrides, **options)


GOLDENS = {
    "one-gpu.sbatch": ("slurm", ["local.launch.processes=1", "local.quantize=4bit"], None),
    "nodes.sbatch": ("slurm", ["local.launch={processes: 8, nodes: 2, strategy: fsdp}"], None),
    "aws.sky.yaml": ("skypilot", [], "s3://runs-of-ours"),
    "gcp.sky.yaml": ("skypilot", ["model=smollm2-135m"], "gs://runs-of-ours"),
}


@pytest.mark.parametrize("name", GOLDENS)
def test_task_file_is_the_golden_one(place, name):
    to, overrides, bucket = GOLDENS[name]
    job = launch(place, *overrides, bucket=bucket, gpu="RTX6000")._replace(disk=50_000_000_000)
    command = write_task(job, to, place / name)
    assert command.endswith(str(place / name))
    text = (place / name).read_text(encoding="utf-8")
    for now, always in {
        str(place): "/home/me/project",
        finetune.__version__: "VERSION",
        job.name: "helpdesk-0123abcd",
    }.items():
        text = text.replace(now, always)
    assert text == (GOLDEN / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", GOLDENS)
def test_shells_accept_what_they_are_given(name):
    text = (GOLDEN / name).read_text(encoding="utf-8")
    scripts = [text]
    if name.endswith(".yaml"):
        document = YAML(typ="safe").load(text)
        scripts = [document["setup"], document["run"]]
    for script in scripts:
        done = subprocess.run(
            ["bash", "-n"], input=script, text=True, capture_output=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_every_file_stands_where_the_recipe_looks_for_it(place):
    job = launch(place, bucket="s3://runs")
    write_task(job, "skypilot", place / "task")
    mounts = YAML(typ="safe").load((place / "task").read_text())["file_mounts"]
    del mounts["/runs"]
    recipe = Path("~/task/recipes/helpdesk.yaml")
    assert mounts.pop(str(recipe)) == str(place / "recipes" / "helpdesk.yaml")
    for written in ("base.yaml", "data", "../held-out.jsonl"):
        there = os.path.normpath(recipe.parent / written)
        assert mounts.pop(there) == os.path.normpath(place / "recipes" / written)
    assert mounts == {}


def test_another_recipe_is_another_job_and_the_same_is_the_same(place):
    names = [launch(place, *more).name for more in ([], [], ["training.epochs=2"])]
    assert names[0] == names[1] != names[2]
    assert names[0].startswith("helpdesk-")


@pytest.mark.parametrize(
    ("overrides", "gpu"),
    [
        (["local.quantize=4bit"], "L4"),
        (["model=mistral-nemo"], "A100"),
        (["model=mistral-small-3.2", "local.launch.strategy=fsdp"], "L4"),
        (["model=mistral-small-3.2"], "A100-80GB"),
    ],
    ids=["4 bits", "bfloat16", "sharded", "large"],
)
def test_the_smallest_gpu_that_holds_a_process_is_asked_for(place, overrides, gpu):
    assert launch(place, *overrides).gpu.name == gpu


def test_regions_are_of_the_union():
    names = {region for _, regions in REGIONS.values() for region in regions}
    outside = {"eu-west-2", "eu-central-2", "europe-west2", "europe-west6", "uksouth", "norwayeast"}
    assert not names & outside
    assert all(len(regions) > 3 for _, regions in REGIONS.values())


@pytest.mark.parametrize(
    ("overrides", "to", "options", "message"),
    [
        ([], "slrm", {}, "--to slrm: no such cluster"),
        ([], "skypilot", {}, "--bucket: missing"),
        ([], "skypilot", {"bucket": "ftp://x"}, "--bucket ftp://x: the run folder needs"),
        (["local.launch.nodes=2"], "skypilot", {"bucket": "s3://x"}, "local.launch.nodes: several"),
        (
            ["backend=platform", "platform.model=x"],
            "slurm",
            {},
            "backend: `platform` trains on La Plateforme",
        ),
        (["model=mixtral-8x22b"], "slurm", {}, "a process needs about"),
    ],
    ids=["cluster", "no bucket", "bucket", "nodes", "backend", "too large"],
)
def test_what_does_not_fit_is_refused(place, overrides, to, options, message):
    with pytest.raises(UsageError) as caught:
        write_task(launch(place, *overrides, **options), to, place / "task")
    assert message in str(caught.value)
    assert caught.value.hint
    assert not (place / "task").exists()


def test_data_that_would_stop_the_job_stop_its_task_file(place):
    write_records(place / "recipes" / "data" / "pairs.jsonl", 5, words=4000)
    with pytest.raises(DataError, match=r"longer than `training.seq_len`"):
        launch(place, "training.seq_len=1000")


@pytest.mark.parametrize(("code", "requeued"), [(0, ""), (6, ""), (143, "requeue 7\n")])
def test_script_goes_back_into_the_queue_only_when_it_was_interrupted(place, code, requeued):
    write_task(launch(place, "local.launch.processes=2"), "slurm", place / "task.sbatch")
    programs = place / "bin"
    for path, script in {
        programs / "srun": 'shift; exec "$@"',  # after --kill-on-bad-exit=1
        programs / "scontrol": f'[ "$1" = show ] && echo node-1 || echo "$@" >> {place}/queue',
        place
        / ".finetune-env"
        / "bin"
        / "finetune": f'echo "$@" $MASTER_ADDR $MASTER_PORT; exit {code}',
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    done = subprocess.run(
        ["bash", "task.sbatch"],
        cwd=place,
        env=os.environ
        | {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_NODELIST": "n",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert done.stdout.startswith(f"run {place}/recipes/helpdesk.yaml --run runs/helpdesk-")
    assert done.stdout.endswith("-s local.launch.processes=2 node-1 20007\n")
    queue = place / "queue"
    assert (queue.read_text() if queue.exists() else "") == requeued
