"""`finetune platform`, and runs over HTTP: real processes against a service on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest

from finetune.recipe import load_recipe
from finetune.runs import list_runs
from tests.backends.platform.service import Service, Site
from tests.backends.platform.simulation import make_dataset, write_sources

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    return Site(folder / "site", *make_dataset(folder))


@pytest.fixture
def serve(site, tmp_path):
    """Give a service on a port, as long as the block."""

    @contextlib.contextmanager
    def start(**options):
        made = Service(site, tmp_path / "server", cost=(0.5, "EUR"), **options)
        with made.serve() as made.url:
            yield made

    return start


@pytest.fixture
def service(serve):
    with serve() as made:
        yield made


@pytest.fixture
def place(tmp_path, service):
    """A folder with a key, data and a recipe."""
    folder = tmp_path / "place"
    folder.mkdir()
    (folder / "key").write_text(f"{service.key}\n")
    write_sources(folder)
    return folder


@pytest.fixture
def platform(finetune, service, place):
    """Run `finetune platform …` against the service."""

    def call(*arguments, key="key"):
        host = ("--host", service.url, "--api-key-file", key)
        return finetune("platform", *arguments, *host, cwd=place)

    return call


@pytest.fixture
def submit(finetune, service, place):
    """Run the recipe against the service."""

    def call(*arguments):
        host = ("-s", f"platform.host={service.url}", "--api-key-file", "key")
        return finetune("run", "r.yaml", *host, *arguments, cwd=place)

    return call


def test_a_run_over_http_ends_with_a_tuned_model_and_the_same_command_has_nothing_to_do(
    submit, finetune, service, place, check_document
):
    asked = submit("--json")
    assert asked.returncode == 7, asked.stderr
    assert "0.5 EUR" in asked.stderr
    assert "--yes" in asked.stderr

    done = submit("--yes", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    check_document("cli/run", document)
    assert document["model"].startswith("ft:mistral-nemo:triage-")
    (run,) = list_runs(place / "runs")
    check_document("files/run", run.state)
    assert run.state["tuned_model"] == document["model"]
    assert len(service.trained) == 1

    again = submit("--yes")
    assert again.returncode == 0
    assert "nothing left to do" in again.stderr
    listed = finetune("runs", cwd=place)
    assert "spent on the platform: 0.50 EUR" in listed.stdout


def test_check_tells_what_is_wrong(platform, finetune, service, place, check_document):
    good = platform("check", "--json")
    assert good.returncode == 0, good.stderr
    check_document("cli/platform", json.loads(good.stdout))

    missing = finetune("platform", "check", "--host", service.url, cwd=place)
    assert (missing.returncode, "no key" in missing.stderr) == (4, True)
    (place / "wrong").write_text("another-key-000000")
    refused = platform("check", key="wrong")
    assert (refused.returncode, "the key is refused" in refused.stderr) == (4, True)
    service.refuse("cards")
    closed = platform("check")
    assert (closed.returncode, "no" in closed.stderr) == (8, True)
    service.refuse("gone")
    retired = platform("check")
    assert (retired.returncode, "retired" in retired.stderr) == (8, True)
    away = finetune("platform", "check", "--host", "http://127.0.0.1:9", "--api-key-file", "key",
                    cwd=place)  # fmt: skip
    assert (away.returncode, "cannot be reached" in away.stderr) == (5, True)


def test_objects_are_listed_shown_changed_and_saved(
    platform, submit, finetune, service, place, check_document
):
    assert submit("--yes", "-s", "platform.keep_files=true", "-q").returncode == 0
    (job,) = service.jobs
    (model,) = [one["fine_tuned_model"] for one in service.jobs.values()]
    file = next(iter(service.files))
    for arguments in (
        ("jobs", "list"),
        ("jobs", "show", job),
        ("models", "archive", model),
        ("files", "download", file, "-o", "back.jsonl"),
        ("backup", "saved"),
    ):
        done = platform(*arguments, "--json")
        assert done.returncode == 0, (arguments, done.stderr)
        check_document("cli/platform", json.loads(done.stdout))

    assert (place / "back.jsonl").read_bytes() == service.files[file]
    assert json.loads((place / "saved" / "jobs" / f"{job}.json").read_bytes())["checkpoints"]
    assert len(list((place / "saved" / "files").glob("*.jsonl"))) == 3
    shown = platform("jobs", "show", job)
    assert "SUCCESS" in shown.stdout
    assert "validation perplexity base 2" in shown.stdout
    assert "{" not in shown.stdout
    # What comes next is asked of the same service: its key is for no other.
    assert (
        shown.stderr.splitlines()[-1] == f"next: finetune platform jobs list --host {service.url}"
    )
    followed = platform("check").stderr.splitlines()[-1]
    assert followed.endswith(f"--backend platform -s platform.host={service.url}")
    facts = finetune("show", "last", cwd=place).stdout
    assert all(fact in facts for fact in (job, model, "0.50 EUR"))

    taken = platform("files", "download", file, "-o", ".")
    assert (taken.returncode, "is a directory" in taken.stderr) == (2, True)
    refused = platform("files", "delete", file)
    assert refused.returncode == 7
    assert file in service.files
    assert platform("files", "delete", file, "--yes").returncode == 0
    assert file not in service.files


def test_a_job_becomes_a_recipe_for_the_service_that_has_it(submit, finetune, service, place):
    assert submit("--yes", "-q").returncode == 0
    (job,) = service.jobs
    options = ("--host", service.url, "--api-key-file", "key")
    done = finetune("recipes", "import", job, "-o", "back.yaml", *options, cwd=place)
    assert done.returncode == 0, done.stderr
    settings = load_recipe(place / "back.yaml").settings
    assert settings["platform"]["host"] == service.url
    assert settings["model"] == "mistral-nemo"
    assert f".jsonl --host {service.url}`" in done.stderr

    asked = len(service.requests)
    typo = finetune("recipes", "import", "no-such-job.json", *options, cwd=place)
    assert (typo.returncode, len(service.requests)) == (2, asked)
    assert "no such file, and no job's id" in typo.stderr


def start(service, place, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "finetune", "run", "r.yaml", "--yes", *arguments,
         "-s", f"platform.host={service.url}", "--api-key-file", "key"],
        cwd=place, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for_start(service):
    end = time.monotonic() + 120
    while not service.trained:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_ctrl_c_detaches_and_the_same_command_goes_on(submit, service, place):
    service.hold()
    process = start(service, place)
    wait_for_start(service)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 130, said
    assert "goes on at" in said
    (run,) = list_runs(place / "runs")
    assert run.state["state"] == "interrupted"

    service.release()
    assert submit("--yes").returncode == 0
    assert len(service.trained) == 1


def test_a_second_shell_is_refused_and_cancel_stops_the_job(submit, finetune, service, place):
    service.hold()
    process = start(service, place)
    wait_for_start(service)
    second = submit("--yes")
    assert second.returncode == 9, second.stderr
    assert f"process {process.pid}" in second.stderr

    cancelled = finetune("cancel", "last", "--api-key-file", "key", cwd=place)
    assert cancelled.returncode == 0, cancelled.stderr
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 6, said
    (run,) = list_runs(place / "runs")
    assert run.state["state"] == "cancelled"
    assert {job["status"] for job in service.jobs.values()} == {"CANCELLED"}


def test_watch_follows_a_job_that_nobody_works_on(finetune, service, place):
    service.hold()
    process = start(service, place)
    wait_for_start(service)
    process.kill()
    process.communicate(timeout=120)
    service.release()
    watched = finetune("watch", "last", "--api-key-file", "key", cwd=place)
    assert watched.returncode == 0, watched.stderr
    assert "success" in watched.stderr
    assert "step 1" in watched.stdout


def test_a_key_is_nowhere_but_in_requests(submit, platform, service, place):
    said = [submit("--yes"), platform("jobs", "list"), platform("backup", "saved")]
    words = httpx2.Response(422, json={"detail": f"key {service.key} may not use this model"})
    service.fate = lambda method, path, _: (
        (lambda _: words) if (method, path) == ("POST", "/v1/fine_tuning/jobs") else None
    )
    said.append(submit("--yes", "--fresh"))
    broken = place / "broken"
    broken.write_text(f"{service.key} {service.key}\n")
    said.append(platform("check", key="broken"))

    words = "".join(done.stdout + done.stderr for done in said)
    assert service.key[:12] not in words
    for path in place.rglob("*"):
        if path.is_file() and path.name not in ("key", "broken"):
            assert service.key[:12].encode() not in path.read_bytes(), path
    assert {key for _, _, key, _ in service.requests} == {f"Bearer {service.key}"}


def test_a_tuned_model_is_measured_and_talked_with(
    submit, finetune, service, place, check_document
):
    assert submit("--yes", "-s", "evaluation.data=0.1", "-q").returncode == 0
    (run,) = list_runs(place / "runs")
    measures = run.evaluation()
    check_document("files/evaluation", measures)
    assert {"base", "tuned"} <= measures.keys()
    assert "loss" not in measures["tuned"]
    assert measures["tuned"]["exact_match"] == measures["base"]["exact_match"]
    assert "the service tells no losses" in measures["note"]

    said = finetune(
        "chat", "last", "--prompt", "hello", "--api-key-file", "key", "--json", cwd=place
    )
    assert said.returncode == 0, said.stderr
    check_document("cli/chat", json.loads(said.stdout))
    assert json.loads(said.stdout)["message"]["content"] == "hello"
    against = f"another@{service.url}/v1"
    beside = finetune(
        "evaluate", "last", "--against", against, "--api-key-file", "key", "--json", cwd=place
    )
    assert beside.returncode == 0, beside.stderr
    check_document("cli/evaluate", json.loads(beside.stdout))
    assert json.loads(beside.stdout)["against_name"] == against
