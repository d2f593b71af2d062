"""A classifier of the platform on held-out records: asked in batches, graded as one of here."""

import json
from contextlib import closing

import httpx2
import pytest

from finetune import records
from finetune.backends.platform.access import Key, read_address
from finetune.backends.platform.api import Client
from finetune.corpus import Dataset
from finetune.errors import PlatformError
from finetune.evaluation import evaluate
from finetune.recipe import Recipe
from finetune.runs import Run

LABELS = ("delivery", "refund")


def write(path, rows):
    made = [records.from_object("classifier", row) for row in rows]
    path.write_bytes(b"".join(records.encode(record) + b"\n" for record in made))
    return {"records": len(rows), "sha256": "0", "bytes": 0}


def label(number):
    text = f"text {number} about {LABELS[number % 2]}"
    said = {"messages": [{"role": "user", "content": text}]} if number > 30 else {"text": text}
    return {**said, "labels": {"topic": LABELS[number % 2], "tags": [LABELS[number % 2]]}}


@pytest.fixture
def run(tmp_path):
    rows = [label(number) for number in range(40)]
    folder = tmp_path / "dataset"
    folder.mkdir()
    files = {
        "train-a.jsonl": write(folder / "train-a.jsonl", rows),
        "evaluation.jsonl": write(folder / "evaluation.jsonl", rows),
    }
    source = {"train": "train-a.jsonl", "weight": 1.0}
    manifest = {"digest": "d", "files": files, "sources": [source]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    recipe = Recipe.model_validate(
        {
            "model": "m",
            "method": "classifier",
            "backend": "platform",
            "data": {"train": [{"path": "a"}]},
        }
    )
    facts = {"dataset": Dataset.load(folder).folder, "dataset_digest": "d"}
    run = Run.create(tmp_path / "run", recipe, identity="i", **facts)
    run.set_state("done", tuned_model="ft:classifier:m")
    return run


def serve(answer):
    """A client of a service that scores each input with `answer(text)`."""
    asked = []

    def handle(request):
        body = json.loads(request.content)
        assert body["model"] == "ft:classifier:m"
        chat = request.url.path.endswith("/chat/classifications")
        texts = [one["messages"][0]["content"] if chat else one for one in body["input"]]
        asked.append((chat, len(texts)))
        results = [answer(text) for text in texts]
        return httpx2.Response(200, json={"id": "i", "model": "m", "results": results})

    address = read_address("api.mistral.ai")
    return Client(address, Key("CANARY-key"), transport=httpx2.MockTransport(handle)), asked


def judge(text):
    scores = {name: 0.9 if name in text else 0.1 for name in LABELS}
    return {"topic": {"scores": scores}, "tags": {"scores": scores}}


def test_texts_and_conversations_are_asked_in_batches_and_graded(run, check_document):
    client, asked = serve(judge)
    with closing(client):
        evaluation = evaluate(run, service=client)
    assert asked == [(False, 16), (False, 15), (True, 9)]
    check_document("files/evaluation", evaluation)
    assert evaluation["tuned"]["accuracy"]["value"] == 1
    assert evaluation["base"]["accuracy"]["value"] < 0.6
    assert evaluation["targets"]["topic"]["tuned"]["confusion"] == [[20, 0], [0, 20]]
    assert evaluation["tuned"]["ece"]["value"] == pytest.approx(0.1)


def test_a_service_that_leaves_a_label_out_is_named(run):
    def forget(text):
        return {"topic": judge(text)["topic"]}

    client, _ = serve(forget)
    with closing(client), pytest.raises(PlatformError, match="no score for each label"):
        evaluate(run, service=client)
    assert not (run.folder / "evaluation.json").exists()
