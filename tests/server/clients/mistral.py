"""The flow that La Plateforme documented, with the official SDK as it comes from the package index.

`mistral.py URL KEY FOLDER`: uploads FOLDER's files, tunes, chats, classifies; prints what it saw as JSON.
Runs in an environment of its own, with nothing of this project.
"""

import importlib.metadata
import json
import sys
import time
from pathlib import Path

version = importlib.metadata.version("mistralai")
if version.startswith("1."):
    from mistralai import Mistral
else:
    from mistralai.client import Mistral

url, key, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
seen = {"version": version}
QUESTION = [{"role": "user", "content": "How many is 3?"}]


def upload(client, name):
    with open(folder / name, "rb") as content:
        return client.files.upload(
            file={"file_name": name, "content": content}, purpose="fine-tune"
        )


def wait(client, job, status):
    end = time.monotonic() + 200
    while time.monotonic() < end:
        found = client.fine_tuning.jobs.get(job_id=job)
        if found.status == status:
            return found
        if found.status in ("FAILED", "FAILED_VALIDATION", "CANCELLED"):
            raise SystemExit(f"{found.status}: {found.events}")
        time.sleep(0.2)
    raise SystemExit(f"still {found.status}")


def tune(client, train, **options):
    made = client.fine_tuning.jobs.create(
        model="small",
        training_files=[{"file_id": train.id, "weight": 1}],
        auto_start=False,
        **options,
    )
    assert made.status == "QUEUED"
    bill = wait(client, made.id, "VALIDATED").metadata
    assert bill.train_tokens > 0
    client.fine_tuning.jobs.start(job_id=made.id)
    return wait(client, made.id, "SUCCESS")


with Mistral(api_key=key, server_url=url) as client:
    train, held = upload(client, f"train-{version}.jsonl"), upload(client, f"held-{version}.jsonl")
    assert train.id in [file.id for file in client.files.list(purpose="fine-tune").data]
    steps = {"training_steps": 12, "learning_rate": 0.01 if version == "2.5.1" else 0.001}
    job = tune(client, train, validation_files=[held.id], hyperparameters=steps, suffix="sdk")
    seen["checkpoints"] = [checkpoint.step_number for checkpoint in job.checkpoints]
    seen["listed"] = str(job.id) in [
        str(one.id) for one in client.fine_tuning.jobs.list(status="SUCCESS").data
    ]
    model = seen["model"] = job.fine_tuned_model

    answer = client.chat.complete(model=model, messages=QUESTION, max_tokens=6, random_seed=1)
    seen["answer"] = answer.choices[0].message.content
    with client.chat.stream(model=model, messages=QUESTION, max_tokens=6, random_seed=1) as events:
        seen["streamed"] = "".join(event.data.choices[0].delta.content or "" for event in events)

    labels = upload(client, f"labels-{version}.jsonl")
    sorter = tune(
        client, labels, hyperparameters={"training_steps": 11}, job_type="classifier"
    ).fine_tuned_model
    found = client.classifiers.classify(model=sorter, inputs=["a refund", "a parcel"])
    seen["scores"] = [result["topic"].scores for result in found.results]
    inputs = "inputs" if version.startswith("1.") else "input"
    chats = client.classifiers.classify_chat(model=sorter, **{inputs: [{"messages": QUESTION}]})
    seen["chat_scores"] = [result["topic"].scores for result in chats.results]

    assert client.models.update(model_id=model, name="Sdk").name == "Sdk"
    assert client.models.archive(model_id=model).archived
    assert not client.models.unarchive(model_id=model).archived
    assert client.models.retrieve(model_id=model).root == "small"
    assert client.models.delete(model_id=model).deleted
    seen["models"] = [card.id for card in client.models.list().data]
    client.files.delete(file_id=train.id)
print(json.dumps(seen))
