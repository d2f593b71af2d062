"""A run's way over the service: whatever goes wrong, a job is started once."""

from __future__ import annotations

import json

import pytest

from finetune.errors import ConfirmationNeeded, FinetuneError, PlatformError, TrainingError
from tests.backends.platform.service import Service
from tests.backends.platform.simulation import (
    Crash,
    Time,
    make_run,
    simulate,
    submit,
)


def named(run, name):
    return [event for event in run.events() if event["event"] == name]


def test_a_submission_uploads_creates_starts_once_and_takes_its_files_back(
    run, prepared, check_document
):
    service = Service()
    job = submit(run, *prepared, service)

    assert job.status == "SUCCESS"
    assert list(service.starts.values()) == [1]
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
        "step": 10,
        "loss": 1.5,
        "validation_loss": 1.0,
        "validation_perplexity_base_2": 2.0,
    }


def test_what_is_sent_is_what_the_recipe_says(run, prepared):
    service = Service()
    submit(run, *prepared, service)
    (job,) = service.jobs.values()

    assert job["suffix"].startswith("triage-")
    assert len(job["suffix"]) == len("triage-") + 6
    assert job["model"] == "open-mistral-nemo"
    assert job["job_type"] == "completion"
    assert job["hyperparameters"] == {
        "epochs": 3.0,
        "learning_rate": 1e-4,
        "weight_decay": 0.1,
        "warmup_fraction": 0.05,
        "seq_len": 4096,
    }
    assert len(job["training_files"]) == 2
    assert len(job["validation_files"]) == 1


@pytest.mark.parametrize("number", range(23))
def test_a_crash_at_any_step_is_made_good_by_the_same_command(number, prepared, steps, tmp_path):
    assert len(steps) == 22
    service, status = simulate(number, tmp_path, *prepared, steps)

    assert status == "SUCCESS"
    assert list(service.starts.values()) == [1]
    assert service.files == {}


def test_troubled_submissions_start_their_job_once(prepared, steps, tmp_path):
    for number in range(100, 140):
        service, status = simulate(number, tmp_path, *prepared, steps)
        assert (number, status) == (number, "SUCCESS")
        assert (number, list(service.starts.values())) == (number, [1])
        assert service.files == {}


def test_a_job_that_was_made_behind_a_lost_reply_is_adopted(run, prepared):
    lost = iter(["drop"])
    service = Service(
        lambda method, path, _: (
            next(lost, None) if (method, path) == ("POST", "/v1/fine_tuning/jobs") else None
        )
    )
    submit(run, *prepared, service)

    assert len(service.jobs) == 1
    assert len(named(run, "adopted")) == 1


def test_a_job_with_this_suffix_and_another_model_is_not_adopted(run, prepared):
    service = Service()

    def stop(step):
        if step == "create: intended":
            raise Crash

    with pytest.raises(Crash):
        submit(run, *prepared, service, reach=stop)
    (suffix,) = named(run, "suffix")
    stranger = {"id": "another", "model": "codestral-latest", "suffix": suffix["suffix"],
                "status": "SUCCESS", "hyperparameters": {}, "training_files": []}  # fmt: skip
    service.jobs["another"] = stranger
    job = submit(run, *prepared, service)

    assert job.id != "another"
    assert len(service.jobs) == 2


def test_nobody_to_ask_means_nothing_is_started_and_yes_goes_on(run, prepared):
    service = Service()
    with pytest.raises(ConfirmationNeeded, match=r"8\.2 EUR") as caught:
        submit(run, *prepared, service, confirm=None)
    assert caught.value.exit_code == 7
    assert not service.starts

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
def test_a_job_above_the_limit_is_not_started_whoever_says_yes(run, prepared, cost, words):
    service = Service()
    service.cost = cost
    with pytest.raises(ConfirmationNeeded, match=words) as caught:
        submit(run, *prepared, service)
    assert caught.value.exit_code == 7
    assert not service.starts


def test_a_cost_that_nobody_tells_is_asked_about(run, prepared):
    service = Service()
    service.cost = (0.0, "EUR")
    with pytest.raises(ConfirmationNeeded, match="does not tell"):
        submit(run, *prepared, service, confirm=None)


def no_access(service, how):
    if how == "cards":
        service.offers = False
    elif how == "create":
        text = "Model not available for this type of fine-tuning (completion)."
        service.create_says = (422, {"detail": text})
    else:
        service.jobs_say = (how, {"detail": "gone"})


@pytest.mark.parametrize("how", ["cards", "create", 403, 404, 410], ids=str)
def test_no_access_is_exit_8_with_the_ways_on_and_nothing_left(run, prepared, how):
    service = Service()
    no_access(service, how)
    with pytest.raises(PlatformError) as caught:
        submit(run, *prepared, service)

    assert caught.value.exit_code == 8
    assert "--backend local" in caught.value.hint
    assert "finetune serve" in caught.value.hint
    assert service.files == {}
    assert service.calls["POST", "/v1/files"] == (3 if how == "create" else 0)


def test_files_that_were_there_before_are_neither_sent_nor_deleted(run, prepared, tmp_path):
    service, (recipe, dataset) = Service(), prepared
    keeping = recipe.model_copy(
        update={"platform": recipe.platform.model_copy(update={"keep_files": True})}
    )
    submit(make_run(tmp_path / "first", recipe, dataset), keeping, dataset, service)
    before = dict(service.files)
    assert len(before) == 3

    submit(run, recipe, dataset, service)
    assert service.files == before
    assert service.calls["POST", "/v1/files"] == 3
    receipts = json.loads((run.folder / "receipts.json").read_bytes())
    assert {one["kept"] for one in receipts} == {"it was there before"}


def test_a_failed_validation_names_the_line_of_the_source(run, prepared):
    service = Service()
    data = {"status": "FAILED_VALIDATION", "error": "train file FILE: line 3: no assistant message"}
    events = [{"name": "status-updated", "created_at": 1, "data": data}]
    service.fails = ("FAILED_VALIDATION", events)

    def name_file(step):
        if step == "create: noted":
            data["error"] = data["error"].replace("FILE", named(run, "uploaded")[0]["file"])

    with pytest.raises(TrainingError, match="no assistant message") as caught:
        submit(run, *prepared, service, reach=name_file)
    assert caught.value.exit_code == 6
    assert "train-a.jsonl:3" in caught.value.hint
    assert "a.jsonl:" in caught.value.hint.split("made of")[1]


def test_a_status_that_nobody_knows_is_waited_out(run, prepared):
    service = Service()
    advance, looks = service.advance, iter(range(4))

    def strange(job):
        if job["status"] == "RUNNING" and next(looks, None) is not None:
            job["status"] = "CONTEMPLATING"
        elif job["status"] == "CONTEMPLATING":
            job["status"] = "RUNNING"
        else:
            advance(job)

    service.advance = strange
    assert submit(run, *prepared, service).status == "SUCCESS"
    assert "CONTEMPLATING" in [event["status"] for event in named(run, "status")]


def test_a_service_that_is_away_for_hours_is_waited_for(run, prepared):
    time = Time()
    away = (1000, 20_000)

    def fate(method, path, _):
        return "lose" if away[0] < time.now < away[1] else None

    service = Service(fate)
    service.wall = time.wall
    advance = service.advance
    service.advance = lambda job: advance(job) if time.now > 500 or not service.starts else None
    service.advance = lambda job: (
        advance(job) if time.now > 30_000 or job["status"] != "RUNNING" else None
    )
    assert submit(run, *prepared, service, time=time).status == "SUCCESS"
    assert time.now > 30_000


def test_a_key_that_is_refused_meanwhile_is_exit_4_and_the_job_stays(run, prepared):
    broken = []
    service = Service(lambda *_: 401 if broken else None)
    with pytest.raises(PlatformError) as caught:
        submit(
            run, *prepared, service, reach=lambda s: broken.append(s) if s == "start: noted" else 0
        )
    assert caught.value.exit_code == 4
    broken.clear()
    assert submit(run, *prepared, service).status == "SUCCESS"
    assert list(service.starts.values()) == [1]


def test_a_job_that_is_gone_is_said_to_be(run, prepared):
    service = Service()

    def lose(step):
        if step == "start: noted":
            service.jobs.clear()

    with pytest.raises(TrainingError, match="is gone"):
        submit(run, *prepared, service, reach=lose)


def test_a_similar_live_job_of_somebody_else_is_named(run, prepared, tmp_path):
    service, (recipe, dataset) = Service(), prepared
    with pytest.raises(ConfirmationNeeded):
        submit(
            make_run(tmp_path / "first", recipe, dataset), recipe, dataset, service, confirm=None
        )
    with pytest.raises(FinetuneError, match="similar job") as caught:
        submit(run, recipe, dataset, service)
    assert next(iter(service.jobs)) in caught.value.message


def test_large_files_are_split_at_line_ends(run, prepared):
    service = Service()

    def look(step):
        if step == "start: noted":
            pieces = [f["content"] for f in service.files.values() if "train" in f["filename"]]
            assert len(pieces) > 4
            assert all(len(piece) <= 1000 and piece.endswith(b"\n") for piece in pieces)
            sources = [file.path.read_bytes() for file in prepared[1].train]
            assert b"".join(pieces) == b"".join(sources)

    submit(run, *prepared, service, reach=look, most=1000)
    assert len(service.starts) == 1
