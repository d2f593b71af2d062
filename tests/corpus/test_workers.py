"""Worker processes: the same bytes whatever their number, and none that outlives its parent."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from finetune.checks.targets import find_target
from finetune.corpus import Reading, convert_files, prepare
from finetune.errors import RunError
from finetune.recipe import Recipe

ROOT = Path(__file__).parents[2]
WORDS = ["order", "parcel", "refund", "invoice", "address", "thanks", "été", "facture", "colis"]


def talk(rng: random.Random, number: int) -> dict:
    text = " ".join(rng.choices(WORDS, k=rng.randint(3, 30)))
    answer = rng.choice([text[::-1], "", "Write to jean.dupont@acme.fr", text])
    turns = [{"from": "human", "value": text}, {"from": "gpt", "value": answer}]
    if number % 7 == 0:
        turns.insert(1, {"from": "human", "value": "And?"})  # a fix joins the two
    return {"id": number, "conversations": turns}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Give a folder with JSON Lines, a JSON list and a table, several tasks each, with faults."""
    folder = tmp_path_factory.mktemp("sources")
    rng = random.Random(3)
    talks = [talk(rng, number) for number in range(1100)]
    near = {**talks[1], "conversations": [dict(turn) for turn in talks[1]["conversations"]]}
    near["conversations"][0]["value"] = " ".join(WORDS * 9)
    far = json.loads(json.dumps(near).replace("order", "ordre", 1))
    lines = [json.dumps(one) for one in [*talks, near, far]]
    lines[5:5] = ["{broken", '{"conversations": 3}', '{"id": 1, "id": 2, "conversations": []}']
    (folder / "lines.jsonl").write_text("\n".join([*lines, lines[0], '{"cut": ']))
    (folder / "list.json").write_text(json.dumps([talk(rng, -n) for n in range(600)], indent=1))
    rows = "".join(f"q{n} {' '.join(rng.choices(WORDS, k=9))},a{n}\n" for n in range(600))
    (folder / "table.csv").write_text("question,answer\n" + rows + "one cell\n")
    return folder


def describe(sources: Path) -> Recipe:
    return Recipe.model_validate(
        {
            "model": "smollm2-135m",
            "data": {
                "train": [
                    {"path": str(sources / "lines.jsonl"), "max_records": 500},
                    {"path": str(sources / "list.json"), "system": "Be brief."},
                    {"path": str(sources / "table.csv")},
                ],
                "validation": 0.1,
                "max_rejected": 1.0,
                "privacy": "mask",
                "clean": {"deduplicate": "near", "fix": ["merge-turns"], "min_characters": 40},
            },
            "evaluation": {"data": 0.05},
        }
    )


def test_bytes_do_not_depend_on_the_number_of_workers(sources, tmp_path):
    trees, manifests = [], []
    for workers in (1, 2, 3):
        dataset = prepare(describe(sources), folder=tmp_path / str(workers), workers=workers)
        trees.append({p.name: p.read_bytes() for p in dataset.folder.iterdir()})
        manifests.append(dataset.manifest)
    assert trees[0] == trees[1] == trees[2]
    manifest = manifests[0]
    steps = {step["step"] for step in manifest["waterfall"]}
    assert steps == {"check", "filter", "near-duplicate", "duplicate", "limit"}
    assert manifest["fixes"]["merge-turns"]["records"] > 50
    assert manifest["privacy"]["counts"]["email"]["messages.assistant"] > 100
    assert manifest["waterfall"][-1]["left"] == manifest["records"]["written"]
    assert b"acme.fr" not in b"".join(trees[0].values())


def convert(path: Path, workers: int):
    out: list[bytes] = []
    lost: list[str] = []
    done = convert_files(
        [(path.name, path.open("rb"))],
        out.append,
        Reading(),
        target=find_target("platform"),
        reject=lambda finding: lost.append(str(finding)),
        workers=workers,
    )
    return b"".join(out), lost, done


@pytest.mark.parametrize("name", ["lines.jsonl", "list.json", "table.csv"])
def test_converted_bytes_and_findings_do_not_depend_on_the_workers(sources, name):
    one, two = convert(sources / name, 1), convert(sources / name, 2)
    assert one[:2] == two[:2]
    assert one[2].account.to_dict() == two[2].account.to_dict()
    assert one[0].count(b"\n") == one[2].account.records["written"] > 400


def children(parent: int) -> list[int]:
    found = subprocess.run(
        ["pgrep", "-P", str(parent)], capture_output=True, text=True, check=False
    )
    return [int(line) for line in found.stdout.split()]


def test_killed_worker_is_said(sources):
    def kill_one():
        yield "lines.jsonl", (sources / "lines.jsonl").open("rb")
        os.kill(children(os.getpid())[0], signal.SIGKILL)
        yield "list.json", (sources / "list.json").open("rb")

    with pytest.raises(RunError, match="a worker process ended: signal 9"):
        convert_files(
            kill_one(),
            lambda _: None,
            Reading(),
            target=find_target("platform"),
            reject=lambda _: None,
            workers=2,
        )
    assert not children(os.getpid())


def start_endless(tmp_path: Path) -> tuple[subprocess.Popen, list[int]]:
    """Start a conversion that waits for more of its input, with two workers: itself and another."""
    command = [
        "env",
        "--default-signal=INT",  # where the tests themselves were started with Ctrl-C ignored
        sys.executable,
        "-m",
        "finetune",
        "convert",
        "-",
        "-o",
        "out.jsonl",
        "--workers",
        "2",
    ]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    line = json.dumps(talk(random.Random(1), 1)).encode() + b"\n"
    process.stdin.write(line * 3000)
    process.stdin.flush()
    deadline = time.monotonic() + 60
    while not ((found := children(process.pid)) and list(tmp_path.glob(".out.jsonl*"))):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process, found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_parent(tmp_path, number):
    process, workers = start_endless(tmp_path)
    process.send_signal(number)
    process.wait(timeout=60)  # while its input stays open: it does not end for want of that
    _, words = process.communicate()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.05)
    assert b"Traceback" not in words
    assert not (tmp_path / "out.jsonl").exists()
