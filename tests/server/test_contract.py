"""The description of the API is kept to, whatever is sent."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from tests.server.conftest import chats, check_component, upload, wait_for


def test_the_description_names_every_path_of_the_contract(server):
    described = httpx2.get(f"{server.url}/openapi.json", trust_env=False).json()

    assert described["openapi"].startswith("3.1")
    calls = {(path, method) for path, methods in described["paths"].items() for method in methods}
    assert len(calls) == 21
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], (path, method)
            assert "401" in operation["responses"], (path, method)


def test_the_check_of_replies_finds_a_fault():
    with pytest.raises(Exception, match="'id' is a required property"):
        check_component("DeleteModelOut", {"object": "model"})


@pytest.mark.heavy
def test_nothing_that_is_sent_breaks_the_description(server, client, tmp_path):
    """A short walk, the same each time; `benchmarks/serve.py fuzz` takes the long one."""
    job = client.post(
        "/v1/fine_tuning/jobs",
        json={
            "model": "small",
            "training_files": [{"file_id": upload(client, "fuzz.jsonl", chats(12))}],
            "hyperparameters": {"training_steps": 12},
            "auto_start": True,
        },
    ).json()["id"]
    wait_for(client, job, "SUCCESS")
    shutil.copy(Path(__file__).with_name("schemathesis.toml"), tmp_path)
    command = [
        Path(sys.executable).with_name("st"), "--config-file", tmp_path / "schemathesis.toml", "run", f"{server.url}/openapi.json",
        "-H", f"Authorization: Bearer {server.key()}",
        "--phases", "coverage", "--mode", "all", "--generation-deterministic",
        "--exclude-path-regex", "completions|classifications|models|{", "--no-color",
        "--report", "json", "--report-json-path", tmp_path / "report.json",
    ]  # fmt: skip
    done = subprocess.run(
        list(map(str, command)), cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout[-4000:]
    assert json.loads((tmp_path / "report.json").read_text())
    assert server.process.poll() is None
