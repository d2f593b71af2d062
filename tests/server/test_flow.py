"""The documented flow against a real server: upload, validate, start, train, chat."""

import json

import pytest

from tests.server.conftest import chats, upload, wait_for


@pytest.mark.heavy
def test_a_job_really_trains_and_its_model_answers(real_server):
    with real_server.client() as client:
        train, held = (
            upload(client, "train.jsonl", chats(40)),
            upload(client, "v.jsonl", chats(3, 90)),
        )
        asked = {
            "model": "small",
            "training_files": [{"file_id": train, "weight": 1}],
            "validation_files": [held],
            "hyperparameters": {"training_steps": 12, "learning_rate": 0.01},
            "suffix": "counts",
            "auto_start": False,
        }
        made = client.post("/v1/fine_tuning/jobs", json=asked).json()
        assert made["status"] == "QUEUED"
        assert made["metadata"]["cost"] == 0.0
        again = client.post("/v1/fine_tuning/jobs", json=asked)
        assert again.status_code == 409
        job = made["id"]

        bill = wait_for(client, job, "VALIDATED")
        figures, filled = bill["metadata"], bill["hyperparameters"]
        seen = filled["training_steps"] * figures["train_tokens_per_step"]
        assert figures["train_tokens"] == seen
        assert filled["epochs"] == seen / figures["data_tokens"]
        assert figures["cost"] == pytest.approx(2.0 * seen / 1e6)

        assert client.post(f"/v1/fine_tuning/jobs/{job}/start").status_code == 200
        assert client.post(f"/v1/fine_tuning/jobs/{job}/start").status_code == 422
        done = wait_for(client, job, "SUCCESS")
        assert [event["data"]["status"] for event in done["events"]] == [
            "QUEUED", "VALIDATING", "VALIDATED", "QUEUED", "RUNNING", "SUCCESS",
        ]  # fmt: skip
        assert [checkpoint["step_number"] for checkpoint in done["checkpoints"]] == [10, 12]
        for checkpoint in done["checkpoints"]:
            metrics = checkpoint["metrics"]
            assert metrics["valid_mean_token_accuracy"] == 2 ** metrics["valid_loss"]

        model = done["fine_tuned_model"]
        assert model.startswith("ft:small:counts:")
        assert model.endswith(job[:8])
        card = client.get(f"/v1/models/{model}").json()
        assert (card["job"], card["root"], card["type"]) == (job, "small", "fine-tuned")

        question = {"model": model, "messages": chats(1)[0]["messages"][:1], "max_tokens": 8}
        answer = client.post("/v1/chat/completions", json=question).json()
        parts = client.post("/v1/chat/completions", json=question | {"stream": True}).text
        *events, last = [part.removeprefix("data: ") for part in parts.strip().split("\n\n")]
        assert last == "[DONE]"
        pieces = [json.loads(event)["choices"][0]["delta"].get("content") or "" for event in events]
        assert "".join(pieces) == answer["choices"][0]["message"]["content"]
        assert (
            answer["usage"]["completion_tokens"]
            == json.loads(events[-1])["usage"]["completion_tokens"]
        )

        assert client.delete("/v1/models/small").status_code == 403
        assert client.delete(f"/v1/models/{model}").json()["deleted"]
        assert client.get(f"/v1/models/{model}").status_code == 404
        assert client.post("/v1/chat/completions", json=question).status_code == 404
