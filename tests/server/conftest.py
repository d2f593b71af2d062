"""A real server on loopback, and a tiny model that it can train in seconds."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest
from jsonschema import Draft202012Validator

ROOT = Path(__file__).parents[2]
PATIENCE = 240.0  # seconds for anything a server does; the machine may be loaded


JOB = {"completion": "Completion", "classifier": "Classifier"}
# Path and method → the component of La Plateforme's specification that a reply must be.
REPLIES = [
    (r"POST /v1/files", "UploadFileOut"),
    (r"GET /v1/files", "ListFilesOut"),
    (r"GET /v1/files/[^/]+", "RetrieveFileOut"),
    (r"DELETE /v1/files/[^/]+", "DeleteFileOut"),
    (r"GET /v1/files/[^/]+/url", "FileSignedURL"),
    (r"GET /v1/fine_tuning/jobs", "JobsOut"),
    (r"POST /v1/fine_tuning/jobs", lambda job: (job["object"] == "job" and f"{JOB[job['job_type']]}JobOut") or "LegacyJobMetadataOut"),
    (r"GET /v1/fine_tuning/jobs/[^/]+", lambda job: f"{JOB[job['job_type']]}DetailedJobOut"),
    (r"POST /v1/fine_tuning/jobs/[^/]+/(start|cancel)", lambda job: f"{JOB[job['job_type']]}DetailedJobOut"),
    (r"PATCH /v1/fine_tuning/models/[^/]+", lambda model: f"{JOB[model['model_type']]}FTModelOut"),
    (r"POST /v1/fine_tuning/models/[^/]+/archive", "ArchiveFTModelOut"),
    (r"DELETE /v1/fine_tuning/models/[^/]+/archive", "UnarchiveFTModelOut"),
    (r"GET /v1/models", "ModelList"),
    (r"GET /v1/models/[^/]+", lambda card: {"base": "BaseModelCard", "fine-tuned": "FTModelCard"}[card["type"]]),
    (r"DELETE /v1/models/[^/]+", "DeleteModelOut"),
    (r"POST /v1/(chat|fim)/completions", "ChatCompletionResponse"),
    (r"POST /v1/(chat/)?classifications", "ClassificationResponse"),
]  # fmt: skip
COMPONENTS = json.loads(Path(__file__).with_name("laplateforme.json").read_text())


def check_reply(reply):
    """Hold a reply against the contract; every client of these tests does."""
    reply.read()
    if reply.headers.get("content-type") != "application/json" or reply.status_code == 401:
        return
    document = reply.json()
    if reply.status_code != 200:
        if not isinstance(document["detail"], str):
            check_component("HTTPValidationError", document)
        return
    call = f"{reply.request.method} {reply.request.url.path}"
    for pattern, name in REPLIES:
        if re.fullmatch(pattern, call):
            check_component(name if isinstance(name, str) else name(document), document)
            return
    assert call == "GET /health", call


def check_component(name, document):
    schema = COMPONENTS | {"$ref": f"#/$defs/{name}"}
    Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(
        document
    )


class Running:
    """A server that was started: its URL, folder and process, and clients with keys of their own."""

    def __init__(self, folder, *options):
        self.folder, self._options = folder, options
        self._keys = {}
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "finetune", "serve", "--port", "0", "--json",
             "--folder", str(self.folder), *map(str, self._options)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        line = self.process.stdout.readline()
        assert line, f"the server did not start: exit {self.process.wait()}"
        self.ready = json.loads(line)
        self.url = self.ready["url"]

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE)
        self.process.stdout.close()
        return code

    def key(self, name="tests", *options):
        if name not in self._keys:
            done = subprocess.run(
                [sys.executable, "-m", "finetune", "serve", "keys", "create", name, "--json",
                 "--folder", str(self.folder), *map(str, options)],
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                check=True,
            )  # fmt: skip
            self._keys[name] = json.loads(done.stdout)["key"]
        return self._keys[name]

    @contextlib.contextmanager
    def client(self, name="tests"):
        headers = {"Authorization": f"Bearer {self.key(name)}"}
        hooks = {"response": [check_reply]}
        with httpx2.Client(
            base_url=self.url,
            headers=headers,
            timeout=PATIENCE,
            trust_env=False,
            verify=False,  # it speaks plain HTTP: certificates would be read for nothing
            event_hooks=hooks,
        ) as client:
            yield client


def upload(client, name, rows, **fields):
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    reply = client.post(
        "/v1/files", files={"file": (name, data)}, data={"purpose": "fine-tune"} | fields
    )
    assert reply.status_code == 200, reply.text
    return reply.json()["id"]


def wait_for(client, job, *statuses):
    """Poll a job until it has one of these statuses, or one from which there is no way to them."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        found = client.get(f"/v1/fine_tuning/jobs/{job}").json()
        if found["status"] in statuses:
            return found
        ended = ("SUCCESS", "FAILED", "FAILED_VALIDATION", "CANCELLED")
        assert found["status"] not in ended, found["events"]
        time.sleep(0.1)
    raise AssertionError(f"still {found['status']}")


def chats(count, start=0):
    return [
        {
            "messages": [
                {"role": "user", "content": f"How many is {number}?"},
                {"role": "assistant", "content": f"It is {number}."},
            ]
        }
        for number in range(start, start + count)
    ]


@pytest.fixture(scope="session")
def small_model(tmp_path_factory):
    """The folder of a random Mistral of two layers, with the tokenizer of the embedded model."""
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    from finetune.tokens import load_tokenizer
    from finetune.tokens.embedded import provide_tokenizer

    tokenizer = provide_tokenizer()
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=load_tokenizer(tokenizer).vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        sliding_window=None,
        tie_word_embeddings=True,
    )
    folder = tmp_path_factory.mktemp("small") / "model"
    MistralForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    for path in tokenizer.iterdir():
        if path.name != "digests.json":
            shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="session")
def names(small_model, tmp_path_factory):
    """A `--models` file in which `small` means the small model."""
    path = tmp_path_factory.mktemp("names") / "models.yaml"
    path.write_text(f"small: {{model: {small_model}, local: {{batch_tokens: 128}}, price: 2.0}}\n")
    return path


@pytest.fixture(scope="session")
def no_weights(tmp_path_factory):
    """A `--models` file in which `small` has a tokenizer and a config, but no weights to load."""
    from finetune.tokens.embedded import provide_tokenizer

    folder = tmp_path_factory.mktemp("bare") / "model"
    folder.mkdir()
    for path in provide_tokenizer().iterdir():
        shutil.copy(path, folder)
    config = {"model_type": "mistral", "max_position_embeddings": 512}
    (folder / "config.json").write_text(json.dumps(config))
    path = folder.parent / "models.yaml"
    path.write_text(f"small: {{model: {folder}, local: {{batch_tokens: 128}}, price: 2.0}}\n")
    return path


TRAINER = f"{sys.executable} {Path(__file__).with_name('trainer.py')} -"


@pytest.fixture
def serve(tmp_path, no_weights):
    """Start servers whose jobs end at once: `serve("--refuse", "create")`; they end with the test."""
    with contextlib.ExitStack() as stack:

        def start(*options, folder=tmp_path / "server"):
            running = Running(folder, "--models", no_weights, "--trainer", TRAINER, *options)
            stack.callback(_end, running)
            return running

        yield start


@pytest.fixture(scope="module")
def server(tmp_path_factory, no_weights):
    """One server for the tests of a module, whose jobs end at once."""
    folder = tmp_path_factory.mktemp("module") / "server"
    running = Running(folder, "--models", no_weights, "--trainer", TRAINER)
    yield running
    _end(running)


@pytest.fixture
def client(server):
    with server.client() as client:
        yield client


@pytest.fixture(scope="session")
def adapters(small_model):
    """A folder with an adapter of each method, for `trainer.py`: what trainings would have made."""
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    from finetune.backends.local.head import Head, save_head
    from finetune.backends.local.quiet import quiet
    from finetune.recipe.tree import ClassifierTarget

    linears = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=linears, task_type="CAUSAL_LM")
    with quiet():
        tuned = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(small_model), config)
        for method in ("sft", "classifier"):
            tuned.save_pretrained(small_model.parent / "adapters" / method)
    target = ClassifierTarget(
        name="topic", labels=["billing", "delivery"], loss_function="single_class"
    )
    head = Head([target], 32)
    torch.manual_seed(2)
    torch.nn.init.normal_(head.classifier)
    save_head(head, small_model.parent / "adapters" / "classifier")
    return small_model.parent / "adapters"


@pytest.fixture(scope="module")
def real_server(tmp_path_factory, names, adapters):
    """One server for the tests of a module, which really answers, and trains where it is asked to."""
    trainer = TRAINER.removesuffix("-") + str(adapters)
    folder = tmp_path_factory.mktemp("real") / "server"
    running = Running(folder, "--models", names, "--trainer", trainer)
    yield running
    _end(running)


def _end(running):
    if running.process.poll() is None:
        running.stop()
    if not running.process.stdout.closed:
        running.process.stdout.close()
