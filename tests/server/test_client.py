"""Our client against our server: whole runs in processes of their own, over HTTP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from finetune.files import read_journal
from finetune.runs import list_runs
from tests.server.conftest import PATIENCE, chats
from tests.server.proxy import Proxy

ROOT = Path(__file__).parents[2]
RECIPE = """
model: smollm2-135m
backend: platform
data: {train: [{path: chats.jsonl}], validation: 0.2}
training: {steps: 20, seq_len: 256}
evaluation: {measure: false}
platform: {model: small, suffix: client, max_cost: 1 EUR}
"""


@pytest.fixture
def place(tmp_path):
    return write_place(tmp_path / "place")


def write_place(folder):
    """Write a recipe and its data into a new folder, and return it."""
    folder.mkdir()
    lines = [json.dumps(row) + "\n" for row in chats(60)]
    (folder / "chats.jsonl").write_text("".join(lines))
    (folder / "r.yaml").write_text(RECIPE)
    return folder


@pytest.fixture
def client(place):
    """Start `finetune …` with a server's key: the process."""

    def start(server, *arguments):
        (place / "key").write_text(server.key())
        return subprocess.Popen(
            [sys.executable, "-m", "finetune", *arguments, "--api-key-file", "key"],
            cwd=place, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    return start


@pytest.fixture
def proxy():
    """A proxy that loses the first upload half-way, and the replies to the first job and start."""
    lost = {("POST", "files"): "cut", ("POST", "jobs"): "drop", ("POST", "start"): "drop"}
    made = Proxy(lambda method, path: lost.pop((method, path.rpartition("/")[2]), None))
    yield made
    made.close()
    assert not lost


def submit(url, *arguments):
    return "run", "r.yaml", "-s", f"platform.host={url}", *arguments


def finish(process):
    said = process.communicate(timeout=PATIENCE)
    return process.returncode, *said


def test_a_run_over_the_real_server_survives_kills_and_lost_replies_and_trains_once(
    serve, client, place, proxy
):
    """`benchmarks/submissions.py kill` makes fifty, at random."""
    server = serve()
    proxy.port = int(server.url.rpartition(":")[2])
    code, _, said = finish(client(server, *submit(proxy.url)))
    assert (code, "start it?" in said) == (7, True), said
    (run,) = list_runs(place / "runs")
    assert {"upload", "uploaded", "create", "adopted", "created", "cost"} <= {
        event["event"] for event in run.events()
    }

    process = client(server, *submit(proxy.url, "--yes"))
    until = time.monotonic() + PATIENCE
    journal = run.folder / "events.jsonl"
    while not any(event["event"] == "start" for event in read_journal(journal)):
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    code, out, said = finish(client(server, *submit(proxy.url, "--yes", "--json")))
    assert code == 0, said
    assert json.loads(out)["model"].startswith("ft:small:client-")
    assert len((server.folder / "trained.log").read_text().splitlines()) == 1
    assert [line["validation_loss"] for line in run.metrics()] != []
    with server.client() as http:
        assert http.get("/v1/files").json()["data"] == []
        (job,) = http.get("/v1/fine_tuning/jobs").json()["data"]
    assert job["fine_tuned_model"] == run.state["tuned_model"]


@pytest.mark.parametrize("mode", ["cards", "create"])
def test_a_server_that_says_no_is_exit_8_with_both_ways_on_and_nothing_left(
    mode, serve, client, place
):
    server = serve("--refuse", mode)
    code, _, said = finish(client(server, *submit(server.url, "--yes")))
    assert code == 8, said
    assert "--backend local" in said
    assert "finetune serve" in said
    assert "Traceback" not in said
    with server.client() as http:
        assert http.get("/v1/files").json()["data"] == []
