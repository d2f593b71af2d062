"""Jobs: validated with line numbers, started once, cancelled at any moment, found again after a kill."""

import concurrent.futures
import json
import shlex
import sys
import time

import httpx2
import pytest

from tests.server.conftest import PATIENCE, chats, upload, wait_for


def make(client, rows=None, *, name="train.jsonl", **fields):
    file = upload(client, name, chats(20) if rows is None else rows)
    body = {
        "model": "small",
        "training_files": [{"file_id": file}],
        "hyperparameters": {"training_steps": 20},
        "auto_start": True,
    }
    return client.post("/v1/fine_tuning/jobs", json=body | fields)


@pytest.fixture(scope="module")
def done(server):
    """A job that has ended well."""
    with server.client() as client:
        job = make(client, name="seen.jsonl", suffix="auto").json()["id"]
        return wait_for(client, job, "SUCCESS")


def test_a_job_started_by_itself_makes_a_model(client, done):

    steps = [checkpoint["step_number"] for checkpoint in done["checkpoints"]]
    assert steps == [10, 20]
    assert done["trained_tokens"] == 200
    assert done["fine_tuned_model"] in [
        card["id"] for card in client.get("/v1/models").json()["data"]
    ]
    assert done["fine_tuned_model"].split(":")[:3] == ["ft", "small", "auto"]


def test_the_bill_keeps_the_identity_of_steps_and_epochs(client):
    job = make(client, auto_start=False, hyperparameters={"epochs": 1.5}).json()["id"]
    found = wait_for(client, job, "VALIDATED")
    bill, filled = found["metadata"], found["hyperparameters"]

    seen = filled["training_steps"] * bill["train_tokens_per_step"]
    assert bill["train_tokens"] == seen
    assert filled["epochs"] == seen / bill["data_tokens"]
    assert abs(filled["epochs"] - 1.5) < 0.1
    assert bill["cost"] == pytest.approx(2.0 * seen / 1e6)
    assert bill["cost_currency"] == "EUR"
    client.post(f"/v1/fine_tuning/jobs/{job}/cancel")


def test_a_dry_run_is_a_bill_and_no_job(client, server):
    before = client.get("/v1/fine_tuning/jobs").json()["total"]
    file = upload(client, "dry.jsonl", chats(20))
    body = {
        "model": "small",
        "training_files": [{"file_id": file}],
        "hyperparameters": {"epochs": 2},
    }
    bill = client.post("/v1/fine_tuning/jobs", params={"dry_run": True}, json=body).json()

    assert bill["object"] == "job.metadata"
    assert (
        bill["epochs"]
        == bill["training_steps"] * bill["train_tokens_per_step"] / bill["data_tokens"]
    )
    assert client.get("/v1/fine_tuning/jobs").json()["total"] == before
    known = {path.name[:12] for path in (server.folder / "jobs").iterdir()}
    assert all(
        path.name[4:12] in {name[:8] for name in known}
        for path in (server.folder / "datasets").glob("job-*")
    )


def test_faults_are_named_by_file_line_and_rule(client):
    rows = chats(4)
    rows[2]["messages"].pop()  # nobody answers
    job = make(client, rows, name="faulty.jsonl").json()["id"]
    event = wait_for(client, job, "FAILED_VALIDATION")["events"][-1]

    [fault] = event["data"]["errors"]
    assert (fault["filename"], fault["line"], fault["rule"]) == ("faulty.jsonl", 3, "last-message")
    assert "faulty.jsonl, line 3" in event["data"]["message"]
    assert "How many is 2" not in json.dumps(event)  # nobody's data in a message


def test_so_many_faults_may_be_left_out(client):
    rows = chats(10)
    rows[2]["messages"].pop()
    asked = {"name": "skip.jsonl", "auto_start": False, "invalid_sample_skip_percentage": 0.2}
    job = make(client, rows, **asked).json()["id"]

    assert wait_for(client, job, "VALIDATED")["events"][-1]["data"]["skipped_samples"] == 1


def test_a_similar_job_is_refused_while_the_first_lives(client):
    asked = {"name": "similar.jsonl", "auto_start": False}
    first = make(client, **asked).json()["id"]
    again = make(client, **asked)
    assert again.status_code == 409
    assert first in again.json()["detail"]
    assert make(client, **asked, suffix="other").status_code == 200

    client.post(f"/v1/fine_tuning/jobs/{first}/cancel")
    wait_for(client, first, "CANCELLED")
    assert make(client, **asked).status_code == 200


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"model": "mistral-small-latest"}, 422, "`mistral-small-latest: {model: "),
        ({"training_files": []}, 422, "At least one training file or repository is required."),
        (
            {"training_files": [{"file_id": "0" * 8 + "-0000-4000-8000-" + "0" * 12}]},
            404,
            "No file",
        ),
        ({"hyperparameters": {"epochs": 1, "training_steps": 1}}, 422, "not both"),
        ({"hyperparameters": {"learning_rate": 5}}, 422, "less than or equal to 1"),
        ({"suffix": "an/evil:suffix"}, 422, "letters, digits"),
        ({"invalid_sample_skip_percentage": 3}, 422, "less than or equal to 0.5"),
        ({"integrations": [{"project": "p", "api_key": "k" * 40}]}, 422, "trackers"),
        ({"repositories": [{"name": "n", "owner": "o", "token": "t"}]}, 422, "repositories"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_cannot_be_done_is_refused_with_the_reason(client, change, status, words):
    reply = make(client, name="refused.jsonl", **change)

    assert reply.status_code == status
    assert words in reply.text
    assert "k" * 40 not in reply.text


def test_a_job_can_be_cancelled_at_any_moment(client):
    early = make(client, name="early.jsonl").json()["id"]
    assert client.post(f"/v1/fine_tuning/jobs/{early}/cancel").status_code == 200
    late = make(client, name="late.jsonl", hyperparameters={"training_steps": 5000}).json()["id"]
    until = time.monotonic() + PATIENCE
    while not client.get(f"/v1/fine_tuning/jobs/{late}").json()["trained_tokens"]:
        assert time.monotonic() < until
        time.sleep(0.1)
    asked = client.post(f"/v1/fine_tuning/jobs/{late}/cancel").json()

    assert asked["status"] == "CANCELLATION_REQUESTED"
    assert wait_for(client, early, "CANCELLED")["fine_tuned_model"] is None
    assert wait_for(client, late, "CANCELLED")["fine_tuned_model"] is None
    assert client.post(f"/v1/fine_tuning/jobs/{late}/start").status_code == 422
    assert client.post(f"/v1/fine_tuning/jobs/{late}/cancel").json()["status"] == "CANCELLED"


def test_lists_are_filtered(client):
    job = make(client, name="listed.jsonl", auto_start=False, suffix="listed").json()

    def ids(**query):
        return [
            found["id"] for found in client.get("/v1/fine_tuning/jobs", params=query).json()["data"]
        ]

    assert ids(suffix="listed") == [job["id"]]
    assert ids(suffix="listed", model="other") == ids(suffix="listed", status="SUCCESS") == []
    assert ids(suffix="listed", created_after="2000-01-01T00:00:00Z") == [job["id"]]
    assert ids(suffix="listed", created_before="2000-01-01T00:00:00Z") == []
    assert ids(suffix="listed", created_by_me=True, page_size=1) == [job["id"]]
    assert ids(wandb_project="p") == ids(suffix="listed", page=1, page_size=1) == []
    found = client.get("/v1/fine_tuning/jobs", params={"suffix": "listed"}).json()["data"][0]
    assert "events" not in found
    unknown = client.get("/v1/fine_tuning/jobs/00000000-0000-4000-8000-000000000000")
    assert unknown.json() == {"detail": "No fine tuning job matches the given query."}
    client.post(f"/v1/fine_tuning/jobs/{job['id']}/cancel")


def test_a_tuned_model_is_renamed_put_aside_and_deleted(client, server):
    job = make(client, name="model.jsonl").json()["id"]
    model = wait_for(client, job, "SUCCESS")["fine_tuned_model"]
    path = f"/v1/fine_tuning/models/{model}"

    changed = client.patch(path, json={"name": "Support"}).json()
    assert (changed["name"], changed["model_type"], changed["job"]) == (
        "Support",
        "completion",
        job,
    )
    assert client.post(f"{path}/archive").json()["archived"]
    assert client.get(f"/v1/models/{model}").json()["archived"]
    question = {"model": model, "messages": [{"role": "user", "content": "?"}]}
    assert client.post("/v1/chat/completions", json=question).status_code == 422
    assert not client.delete(f"{path}/archive").json()["archived"]
    assert client.delete(f"/v1/models/{model}").json() == {
        "id": model,
        "object": "model",
        "deleted": True,
    }
    assert client.get(f"/v1/models/{model}").status_code == 404
    assert not (server.folder / "runs" / job / "adapter").exists()
    assert client.delete("/v1/models/small").status_code == 403


@pytest.mark.parametrize(
    ("refuse", "tunable", "listed", "created"),
    [
        ("cards", False, 200, 422),
        ("create", True, 200, 422),
        ("gone", True, 410, 410),
        ("missing", True, 404, 404),
    ],
)
def test_a_server_can_say_no_for_the_tests_of_clients(serve, refuse, tunable, listed, created):
    server = serve("--refuse", refuse)
    with server.client() as client:
        cards = client.get("/v1/models").json()["data"]
        assert {card["capabilities"]["fine_tuning"] for card in cards} == {tunable}
        assert client.get("/v1/fine_tuning/jobs").status_code == listed
        assert make(client).status_code == created


def test_jobs_outlive_a_killed_server_and_a_stopped_one(serve):
    server = serve()
    with server.client() as client:
        long = make(client, hyperparameters={"training_steps": 60}).json()["id"]
        wait_for(client, long, "RUNNING")
        waiting = make(client, name="waiting.jsonl").json()["id"]
    server.kill()
    server.start()
    with server.client() as client:
        assert client.get(f"/v1/fine_tuning/jobs/{long}").json()["status"] in ("RUNNING", "SUCCESS")
        for job in (long, waiting):
            wait_for(client, job, "SUCCESS")
        stopped = make(client, name="stopped.jsonl", hyperparameters={"training_steps": 80}).json()[
            "id"
        ]
        wait_for(client, stopped, "RUNNING")
    assert server.stop() == 0
    server.start()
    with server.client() as client:
        wait_for(client, stopped, "SUCCESS")
    trained = (server.folder / "trained.log").read_text().split()
    assert trained.count(long) == trained.count(waiting) == 1


def test_a_worker_that_cannot_be_started_fails_its_job_and_no_other(serve):
    server = serve("--trainer", "/no/such/trainer --of jobs")
    with server.client() as client:
        for name in ("first.jsonl", "second.jsonl"):
            job = make(client, name=name).json()["id"]
            event = wait_for(client, job, "FAILED")["events"][-1]
            assert event["data"]["message"] == (
                "the worker can't be started: /no/such/trainer: no such file or directory"
            )


STOPS = """
import sys
from pathlib import Path
from finetune import pipeline
from finetune.errors import Interrupted
from finetune.recipe import load_recipe

def train(*_, **__):
    raise Interrupted(15, "stopped")

pipeline.BACKENDS["local"] = "__main__:train"
try:
    pipeline.run(load_recipe(sys.argv[1]), run_folder=Path(sys.argv[3]))
except Interrupted:
    sys.exit("error: stopped again")
"""


def test_a_worker_that_stops_again_and_again_fails_its_job(serve):
    server = serve("--trainer", shlex.join([sys.executable, "-c", STOPS]))
    with server.client() as client:
        job = make(client).json()["id"]
        event = wait_for(client, job, "FAILED")["events"][-1]
    assert event["data"]["message"] == (
        "the worker was stopped, three times without progress; it said: stopped again"
    )


def test_weights_that_an_alias_means_are_not_deleted(serve):
    server = serve()
    with server.client() as client:
        job = make(client).json()["id"]
        model = wait_for(client, job, "SUCCESS")["fine_tuned_model"]
    server.stop()
    again = serve("--alias", f"ft:old:name={server.folder / 'runs' / job}")
    with again.client("operator") as client:
        refused = client.delete(f"/v1/models/{model}")
        assert (refused.status_code, "ft:old:name" in refused.text) == (403, True)
        assert client.get("/v1/models/ft:old:name").status_code == 200
    assert (server.folder / "runs" / job / "adapter").is_dir()


def test_dry_runs_come_one_at_a_time(client):
    body = {
        "model": "small",
        "training_files": [{"file_id": upload(client, "dry-runs.jsonl", chats(20))}],
        "hyperparameters": {"epochs": 2},
    }

    def ask(_):
        return client.post("/v1/fine_tuning/jobs", params={"dry_run": True}, json=body)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(ask, range(4)))
    assert 200 in {reply.status_code for reply in replies}
    for reply in replies:
        assert reply.status_code == 200 or (reply.status_code, reply.headers["Retry-After"]) == (
            503,
            "10",
        )
    assert ask(0).status_code == 200


def test_people_see_jobs_with_their_curves(server, done):
    job = done["id"]
    browser = httpx2.Client(base_url=server.url, auth=("anyone", server.key()), trust_env=False)
    with browser:
        overview, page = browser.get("/"), browser.get(f"/jobs/{job}")
        assert browser.get("/jobs/00000000-0000-4000-8000-000000000000").status_code == 404

    assert f'href="/jobs/{job}"' in overview.text
    assert "seen.jsonl" in overview.text
    assert '<path class="train0" d="M' in page.text.replace("\n", "")
    assert page.text.count("<script") == overview.text.count("<script") == 0
    refused = httpx2.get(server.url, trust_env=False)
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"].startswith("Basic")
    health = httpx2.get(f"{server.url}/health", trust_env=False)
    assert health.json()["status"] == "ok"
