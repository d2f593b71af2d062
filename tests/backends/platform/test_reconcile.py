"""A run's way over the service: whatever goes wrong, a job is started once."""

from __future__ import annotations

import json

import httpx2
import pytest

from finetune.backends.platform import check_egress
from finetune.backends.platform.access import read_address
from finetune.corpus import prepare
from finetune.errors import ConfirmationNeeded, FinetuneError, PlatformError, TrainingError
from finetune.recipe import load_recipe
from finetune.server import validation
from tests.backends.platform.service import MODEL
from tests.backends.platform.simulation import (
    Crash,
    Time,
    make_run,
    simulate,
    submit,
    write_sources,
)


def named(run, name):
    return [event for event in run.events() if event["event"] == name]


def test_a_submission_uploads_creates_starts_once_and_takes_its_files_back(
    run, prepared, service, check_document
):
    job = submit(run, *prepared, service)

    assert job.status == "SUCCESS"
    assert service.trained == [job.id]
    assert run.state["tuned_model"] == job.fine_tuned_model
    assert run.state["cost"] == {"amount": 8.2, "currency": "EUR"}
    assert service.files == {}
    receipts = json.loads((run.folder / "receipts.json").read_bytes())
    assert [one["deleted"] for one in receipts] == [True] * 3
    check_document("files/receipts", receipts)
    check_document("files/run", run.state)
    (line,) = run.metrics()
    check_document("files/metric", line)
    assert line == {
        "step": 1,
        "loss": 2.0,
        "validation_loss": 1.0,
        "validation_perplexity_base_2": 2.0,
    }


def test_what_is_sent_is_what_the_recipe_says(run, prepared, service):
    submit(run, *prepared, service)
    (job,) = [
        json.loads(content)
        for method, path, _, content in service.requests
        if (method, path) == ("POST", "/v1/fine_tuning/jobs")
    ]

    assert job["suffix"].startswith("triage-")
    assert len(job["suffix"]) == len("triage-") + 6
    assert job["model"] == MODEL
    assert job["auto_start"] is False
    assert job["job_type"] == "completion"
    assert job["hyperparameters"] == {
        "epochs": 3.0,
        "learning_rate": 1e-4,
        "weight_decay": 0.1,
        "warmup_fraction": 0.05,
        "seq_len": 4096,
    }
    assert [file["weight"] for file in job["training_files"]] == [1.0, 2.0]
    assert len(job["validation_files"]) == 1


@pytest.mark.parametrize("number", range(23))
def test_a_crash_at_any_step_is_made_good_by_the_same_command(
    number, prepared, site, steps, tmp_path
):
    """`benchmarks/submissions.py simulate` makes a thousand; so do the other two for theirs."""
    assert len(steps) == 22
    service, status = simulate(number, tmp_path, *prepared, site, len(steps))

    assert status == "SUCCESS"
    assert len(service.trained) == 1
    assert service.files == {}


def test_a_job_that_was_made_behind_a_lost_reply_is_adopted(run, prepared, serve):
    lost = iter(["drop"])
    service = serve(
        lambda method, path, _: (
            next(lost, None) if (method, path) == ("POST", "/v1/fine_tuning/jobs") else None
        )
    )
    submit(run, *prepared, service)

    assert len(service.jobs) == 1
    assert len(named(run, "adopted")) == 1


def test_a_job_is_adopted_whatever_its_epochs_have_become(run, prepared, service):
    """Validated by then, it has a step of 4.5 epochs: records of the second source weigh twice."""

    def stop(step):
        if step == "create: sent":
            raise Crash

    with pytest.raises(Crash):
        submit(run, *prepared, service, reach=stop)
    service.step()
    service.step()
    (job,) = service.jobs.values()
    assert (job["status"], job["hyperparameters"]["training_steps"]) == ("VALIDATED", 1)
    assert job["hyperparameters"]["epochs"] > 4
    assert submit(run, *prepared, service).id == job["id"]
    assert len(service.jobs) == 1


def test_a_job_with_this_suffix_and_another_model_is_not_adopted(run, prepared, service):
    def stop(step):
        if step == "create: intended":
            raise Crash

    with pytest.raises(Crash):
        submit(run, *prepared, service, reach=stop)
    (event,) = named(run, "suffix")
    stranger = service.order(*prepared, suffix=event["suffix"], model="codestral-latest")
    job = submit(run, *prepared, service)

    assert job.id != stranger
    assert service.jobs.keys() == {job.id, stranger}
    assert service.trained == [job.id]


def test_nobody_to_ask_means_nothing_is_started_and_yes_goes_on(run, prepared, service):
    with pytest.raises(ConfirmationNeeded, match=r"8\.2 EUR") as caught:
        submit(run, *prepared, service, confirm=None)
    assert caught.value.exit_code == 7
    assert not service.trained

    asked = []
    submit(run, *prepared, service, confirm=lambda words: asked.append(words) or True)
    assert len(asked) == 1
    assert "8.2 EUR" in asked[0]
    assert len(service.jobs) == 1


@pytest.mark.parametrize(
    ("cost", "words"),
    [((20.01, "EUR"), "20.01 EUR"), ((1, "USD"), "1 USD")],
    ids=["too much", "another currency"],
)
def test_a_job_above_the_limit_is_not_started_whoever_says_yes(run, prepared, serve, cost, words):
    service = serve(cost=cost)
    with pytest.raises(ConfirmationNeeded, match=words) as caught:
        submit(run, *prepared, service)
    assert caught.value.exit_code == 7
    assert not service.trained


def test_a_cost_that_nobody_tells_is_asked_about(run, prepared, serve):
    service = serve(cost=(0.0, "EUR"))
    with pytest.raises(ConfirmationNeeded, match="does not tell"):
        submit(run, *prepared, service, confirm=None)


def forbid(method, path, count):
    return 403 if "jobs" in path else None


@pytest.mark.parametrize("how", ["cards", "create", "missing", "gone", "forbidden"])
def test_no_access_is_exit_8_with_the_ways_on_and_nothing_left(run, prepared, serve, how):
    service = serve(forbid) if how == "forbidden" else serve(refuse=how)
    with pytest.raises(PlatformError) as caught:
        submit(run, *prepared, service)

    assert caught.value.exit_code == 8
    assert "--backend local" in caught.value.hint
    assert "finetune serve" in caught.value.hint
    assert service.files == {}
    assert service.calls["POST", "/v1/files"] == (3 if how == "create" else 0)


def test_files_that_were_there_before_are_neither_sent_nor_deleted(
    run, prepared, service, tmp_path
):
    recipe, dataset = prepared
    keeping = recipe.model_copy(
        update={"platform": recipe.platform.model_copy(update={"keep_files": True})}
    )
    submit(make_run(tmp_path / "first", recipe, dataset), keeping, dataset, service)
    before = service.files
    assert len(before) == 3

    submit(run, recipe, dataset, service)
    assert service.files == before
    assert service.calls["POST", "/v1/files"] == 3
    receipts = json.loads((run.folder / "receipts.json").read_bytes())
    assert {one["kept"] for one in receipts} == {"it was there before"}


def test_a_failed_validation_names_the_line_of_the_source(run, prepared, service):
    def name_file(step):
        if step == "create: noted":
            uploaded = named(run, "uploaded")[0]
            fault = validation.Fault(
                "no assistant message",
                file_id=uploaded["file_id"],
                filename=uploaded["file"],
                line=3,
            )
            text = f"1 of 60 samples are invalid; {fault.filename}, line 3: {fault.message}"
            service.find(validation.Verdict(faults=[fault], message=text))

    with pytest.raises(TrainingError, match="no assistant message") as caught:
        submit(run, *prepared, service, reach=name_file)
    assert caught.value.exit_code == 6
    assert "train-a.jsonl:3" in caught.value.hint
    assert "a.jsonl:" in caught.value.hint.split("made of")[1]


def test_a_status_that_nobody_knows_is_waited_out(run, prepared, serve):
    def rename(reply):
        body = reply.json()
        if body.get("status") == "RUNNING":
            body["status"] = "CONTEMPLATING"
        return httpx2.Response(200, json=body)

    service = serve(lambda _, path, __: rename if "jobs/" in path else None)
    assert submit(run, *prepared, service).status == "SUCCESS"
    assert "CONTEMPLATING" in [event["status"] for event in named(run, "status")]


def test_a_service_that_is_away_for_hours_is_waited_for(run, prepared, serve):
    time = Time()
    service = serve(lambda *_: "lose" if 1000 < time.now < 10_000 else None)
    step = service.step
    service.step = lambda: step() if not service.trained or time.now > 15_000 else None
    assert submit(run, *prepared, service, time=time).status == "SUCCESS"
    assert time.now > 15_000


def test_a_key_that_is_refused_meanwhile_is_exit_4_and_the_job_stays(run, prepared, serve):
    broken = []
    service = serve(lambda *_: 401 if broken else None)
    with pytest.raises(PlatformError) as caught:
        submit(
            run, *prepared, service, reach=lambda s: broken.append(s) if s == "start: noted" else 0
        )
    assert caught.value.exit_code == 4
    broken.clear()
    assert submit(run, *prepared, service).status == "SUCCESS"
    assert len(service.trained) == 1


def test_a_job_that_is_gone_is_said_to_be(run, prepared, service):
    def lose(step):
        if step == "start: noted":
            with service.server.store.write() as database:
                database.execute("DELETE FROM job")

    with pytest.raises(TrainingError, match="is gone"):
        submit(run, *prepared, service, reach=lose)


def test_a_file_that_goes_before_the_job_is_made_is_sent_again(run, prepared, serve):
    def lose(method, path, count):
        if (method, path, count) == ("POST", "/v1/fine_tuning/jobs", 1):
            with service.server.store.write() as database:
                database.execute("DELETE FROM file")

    service = serve(lose)
    with pytest.raises(TrainingError, match="a file of the job has gone") as caught:
        submit(run, *prepared, service)
    assert "the same command" in caught.value.hint

    assert submit(run, *prepared, service).status == "SUCCESS"
    assert len(service.trained) == 1


def test_a_similar_live_job_of_somebody_else_is_named(run, prepared, serve):
    service = serve(
        lambda method, path, _: (
            409 if (method, path) == ("POST", "/v1/fine_tuning/jobs") and here else None
        )
    )
    here = []
    here.append(service.order(*prepared))
    with pytest.raises(FinetuneError, match="answered 409") as caught:
        submit(run, *prepared, service)
    assert here[0] in caught.value.message


def test_large_files_are_split_at_line_ends(run, prepared, service):
    def look(step):
        if step == "start: noted":
            files = service.files
            events = [event for event in named(run, "uploaded") if "train" in event["file"]]
            pieces = [files[event["file_id"]] for event in events]
            assert len(pieces) > 4
            assert all(len(piece) <= 1000 and piece.endswith(b"\n") for piece in pieces)
            sources = [file.path.read_bytes() for file in prepared[1].train]
            assert b"".join(pieces) == b"".join(sources)

    submit(run, *prepared, service, reach=look, most=1000)
    assert len(service.trained) == 1


def test_personal_data_are_masked_in_all_that_leaves_and_all_that_is_kept(serve, tmp_path):
    canary = "zoe.canari@canari.example"
    folder = tmp_path / "place"
    folder.mkdir()
    write_sources(folder)
    for path in folder.glob("*.jsonl"):
        path.write_text(path.read_text().replace('content":"', f'content":"{canary} '))
    text = (folder / "r.yaml").read_text().replace("  validation", "  privacy: mask\n  validation")
    (folder / "r.yaml").write_text(text.replace("personal_data: any", "personal_data: masked"))
    recipe = load_recipe(folder / "r.yaml")
    dataset = prepare(recipe, folder=tmp_path / "datasets")
    run, service = make_run(tmp_path / "run", recipe, dataset), serve()
    check_egress(recipe, dataset, read_address("api.mistral.ai"))
    submit(run, recipe, dataset, service)

    uploads = [content for _, path, _, content in service.requests if path == "/v1/files"]
    assert b"[EMAIL]" in b"".join(uploads)
    for _, path, _, content in service.requests:
        assert b"canari" not in content, path
    for place in (run.folder, dataset.folder):
        for path in place.rglob("*"):
            assert path.is_dir() or b"canari" not in path.read_bytes(), path
