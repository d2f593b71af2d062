"""The description of the API is kept to, whatever is sent."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from tests.server.conftest import chats, check_component, upload, wait_for

NO_FILE = "00000000-0000-4000-8000-000000000000"


def test_the_description_names_every_path_of_the_contract(server):
    described = httpx2.get(f"{server.url}/openapi.json", trust_env=False).json()

    assert described["openapi"].startswith("3.1")
    calls = {(path, method) for path, methods in described["paths"].items() for method in methods}
    assert len(calls) == 21
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], (path, method)
            assert "401" in operation["responses"], (path, method)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("chat/completions", '{"model": "small", "messages": [{"role": "user", "content": "%s"}]}'),
        ("fim/completions", '{"model": "small", "prompt": "%s"}'),
        ("classifications", '{"model": "%s", "input": "a"}'),
        ("chat/classifications", '{"model": "%s", "input": {"messages": []}}'),
        (
            "fine_tuning/jobs",
            '{"model": "%s", "hyperparameters": {}, "training_files": [{"file_id": "'
            + NO_FILE
            + '"}]}',
        ),
    ],
)
def test_half_of_a_surrogate_pair_is_no_text(client, path, body):
    headers = {"Content-Type": "application/json"}
    reply = client.post(f"/v1/{path}", content=body % r"\ud800", headers=headers)

    assert reply.status_code == 422
    assert "half of a surrogate pair" in reply.text


def test_each_path_tells_its_methods(client, server):
    for path, methods in (
        ("/v1/files", "GET, POST"),
        ("/v1/models/small", "DELETE, GET"),
        ("/health", "GET"),
        ("/", "GET"),
    ):
        reply = client.put(path)
        assert (reply.status_code, reply.headers["Allow"]) == (405, methods)

    reply = client.patch("/v1/fine_tuning/models/ft:a/b/archive", json={"name": "c"})
    assert reply.status_code == 405
    assert httpx2.head(f"{server.url}/health", trust_env=False).status_code == 200


def test_a_name_with_a_slash_is_a_name(client):
    for path in ("models/org%2Fbase", "models/org/base"):
        reply = client.get(f"/v1/{path}")
        assert (reply.status_code, reply.json()) == (404, {"detail": "Model org/base not found."})
    reply = client.post("/v1/fine_tuning/models/ft:org%2Fbase:x/archive")
    assert reply.json() == {"detail": "Model ft:org/base:x not found."}


def test_a_base_is_not_changed(client):
    path = "/v1/fine_tuning/models/small"
    replies = [
        client.delete("/v1/models/small"),
        client.patch(path, json={"name": "x"}),
        client.post(f"{path}/archive"),
        client.delete(f"{path}/archive"),
    ]
    assert {reply.status_code for reply in replies} == {403}
    assert all("is a base" in reply.text for reply in replies)


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
