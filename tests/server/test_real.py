"""A server that really trains and answers, with clients as people have them."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.server.conftest import PATIENCE, chats, check_component, upload, wait_for

ROOT = Path(__file__).parents[2]
CLIENTS = Path(__file__).with_name("clients")
HELLO = [{"role": "user", "content": "Say it."}]
pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def environment():
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import environment
    finally:
        sys.path.pop(0)
    return environment


@pytest.fixture
def python(environment, tmp_path):
    """Make an environment with one package: `python("openai")` → its interpreter."""

    def make(requirement):
        folder = tmp_path / "environment"
        uv = environment.find_uv()
        variables = environment.uv_environment(environment.read_pip_settings(), dict(os.environ))
        made = str(folder / "bin" / "python")
        if uv:
            commands = [
                [*uv, "venv", "--python", sys.executable, str(folder)],
                [*uv, "pip", "install", "--python", made, requirement],
            ]
        else:
            commands = [
                [sys.executable, "-m", "venv", str(folder)],
                [made, "-m", "pip", "install", "--no-input", requirement],
            ]
        for command in commands:
            done = subprocess.run(
                command, env=variables, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
        return made

    return make


def run(*command):
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("version", ["1.12.4", "2.5.1"])
def test_the_official_sdk_runs_the_documented_flow(real_server, python, tmp_path, version):
    """With 2.5.1 the job is really trained; with 1.12.4 its adapter lies ready."""
    rows = {
        "train": chats(40),
        "held": chats(3, 90),
        "labels": [
            {"text": f"a {word} {number}", "labels": {"topic": topic}}
            for number in range(10)
            for word, topic in (("refund", "billing"), ("parcel", "delivery"))
        ],
    }
    for name, some in rows.items():
        content = "".join(json.dumps(row) + "\n" for row in some)
        (tmp_path / f"{name}-{version}.jsonl").write_text(content)

    seen = run(
        python(f"mistralai=={version}"),
        CLIENTS / "mistral.py",
        real_server.url,
        real_server.key(),
        tmp_path,
    )

    assert seen["version"] == version
    assert seen["checkpoints"] == [10, 12]
    assert seen["listed"]
    assert re.fullmatch(r"ft:small:sdk:\d{8}:[0-9a-f]{8}", seen["model"])
    assert seen["streamed"] == seen["answer"]
    assert len(seen["scores"]) == 2
    for scores in seen["scores"] + seen["chat_scores"]:
        assert scores.keys() == {"billing", "delivery"}
        assert sum(scores.values()) == pytest.approx(1)
    assert seen["model"] not in seen["models"]
    logged = (real_server.folder / "trained.log").read_text().split()
    assert (version == "2.5.1") == (seen["model"][-8:] not in {line[:8] for line in logged})


def test_the_openai_client_chats(real_server, python):
    seen = run(
        python("openai==3.54.0"),
        CLIENTS / "openai_chat.py",
        real_server.url,
        real_server.key(),
        "small",
    )

    assert seen["answer"] == seen["streamed"] != ""


def ask(client, **fields):
    body = {
        "model": "small",
        "messages": HELLO,
        "max_tokens": 60,
    }
    return client.post("/v1/chat/completions", json=body | fields)


TOOL = {
    "type": "function",
    "function": {
        "name": "find_order",
        "parameters": {
            "type": "object",
            "properties": {"express": {"type": "boolean"}},
            "required": ["express"],
            "additionalProperties": False,
        },
    },
}


@pytest.mark.parametrize("tools", [None, [TOOL]])
def test_the_parts_of_a_streamed_answer_are_as_specified(real_server, tools):
    with real_server.client() as client:
        asked = {"max_tokens": 20, "temperature": 1.5, "random_seed": 7, "tools": tools}
        whole = ask(client, **asked).json()
        *events, last = ask(client, **asked, stream=True).text.strip().split("\n\n")
    parts = [json.loads(event.removeprefix("data: ")) for event in events]

    assert last == "data: [DONE]"
    for part in parts:
        check_component("CompletionChunk", part)
    text = "".join(part["choices"][0]["delta"]["content"] for part in parts)
    assert text == whole["choices"][0]["message"]["content"] != ""
    assert len(parts) > 4  # it comes as it is written
    assert parts[-1]["usage"] == whole["usage"]
    assert parts[-1]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]


def test_a_call_is_streamed_whole(real_server):
    with real_server.client() as client:
        asked = {"tools": [TOOL], "tool_choice": "any", "temperature": 1.0, "random_seed": 3}
        *events, _ = ask(client, **asked, stream=True).text.strip().split("\n\n")
    deltas = [json.loads(event[6:])["choices"][0]["delta"] for event in events]

    assert "".join(delta["content"] for delta in deltas) == ""
    [call] = deltas[-1]["tool_calls"]
    assert call["function"]["name"] == "find_order"
    assert not any("tool_calls" in delta for delta in deltas[:-1])


@pytest.mark.parametrize("sent", [b"", b"what is no question\n"])
def test_an_inference_process_that_is_not_understood_ends(sent):
    """Else those who ask would wait for ever; the server starts another one."""
    read, write = os.pipe()
    with open(read, "rb") as stdin, open(write, "wb") as line:
        process = subprocess.Popen(
            [sys.executable, "-m", "finetune.server.inference"],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        line.write(sent)
        if sent:
            line.flush()
        else:
            line.close()
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 0


def test_who_leaves_gives_the_place_to_the_next(real_server):
    """Else the 33rd would be sent away until the answers that nobody waits for are written."""
    address = urlsplit(real_server.url)
    body = json.dumps({"model": "small", "n": 8, "max_tokens": 400, "messages": HELLO}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {address.netloc}\r\n"
        f"Authorization: Bearer {real_server.key('leaver')}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    with real_server.client() as client:
        with contextlib.ExitStack() as stack:
            for _ in range(32):
                line = socket.create_connection((address.hostname, address.port))
                stack.enter_context(line).sendall(head + body)
            until = time.monotonic() + PATIENCE
            while (reply := ask(client, max_tokens=1)).status_code != 503:
                assert time.monotonic() < until
            assert int(reply.headers["Retry-After"]) > 0
        while ask(client, max_tokens=1).status_code == 503:
            assert time.monotonic() < until


def test_an_answer_fits_the_schema_that_was_asked_for(real_server):
    schema = {
        "type": "object",
        "properties": {"topic": {"enum": ["billing", "delivery"]}, "urgent": {"type": "boolean"}},
        "required": ["topic", "urgent"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "triage", "schema": schema}}
    with real_server.client() as client:
        for seed in range(3):
            reply = ask(client, response_format=wanted, temperature=1.5, random_seed=seed).json()
            answer = json.loads(reply["choices"][0]["message"]["content"])
            assert answer.keys() == {"topic", "urgent"}
            assert answer["topic"] in ("billing", "delivery")
            assert reply["choices"][0]["finish_reason"] == "stop"
        wanted["json_schema"]["schema"] = {"type": "string", "pattern": "(?=look)ahead"}
        assert ask(client, response_format=wanted).status_code == 422


def test_a_tool_that_must_be_called_is_called(real_server):
    tool = TOOL
    with real_server.client() as client:
        asked = {"tools": [tool], "tool_choice": "any", "temperature": 1.0, "random_seed": 3}
        choice = ask(client, **asked).json()["choices"][0]
        [call] = choice["message"]["tool_calls"]
        assert choice["finish_reason"] == "tool_calls"
        assert call["function"]["name"] == "find_order"
        assert json.loads(call["function"]["arguments"])["express"] in (True, False)
        assert re.fullmatch("[A-Za-z0-9]{9}", call["id"])

        result = {
            "role": "tool",
            "content": "shipped",
            "tool_call_id": call["id"],
            "name": "find_order",
        }
        turns = [
            {"role": "user", "content": "Where is it?"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            result,
        ]
        assert ask(client, messages=turns, tools=[tool], max_tokens=4).status_code == 200
        assert (
            ask(
                client, tools=[tool], tool_choice={"type": "function", "function": {"name": "no"}}
            ).status_code
            == 422
        )


def test_sampling_does_what_it_says(real_server):
    def text(**fields):
        return ask(client, **fields).json()["choices"][0]["message"]["content"]

    with real_server.client() as client:
        greedy = text()
        assert text(temperature=0) == greedy
        warm = {"temperature": 1.5, "random_seed": 7}
        assert text(**warm) == text(**warm) != greedy
        assert text(temperature=1.5, top_p=0, random_seed=1) == greedy
        stop = greedy[4:7]
        assert text(stop=[stop, "never there"]) == greedy[: greedy.find(stop)]
        short = ask(client, max_tokens=3).json()
        assert short["choices"][0]["finish_reason"] == "length"
        assert short["usage"]["completion_tokens"] == 3
        assert len(ask(client, n=2, max_tokens=2, **warm).json()["choices"]) == 2
        prefixed = [
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": "Well", "prefix": True},
        ]
        assert text(messages=prefixed, max_tokens=2).startswith("Well")
        long = ask(client, messages=[{"role": "user", "content": "long " * 600}])
        assert long.status_code == 400
        assert "512" in long.json()["detail"]
        middle = {"model": "small", "prompt": "def f(", "suffix": "return a", "max_tokens": 3}
        assert (
            client.post("/v1/fim/completions", json=middle).json()["usage"]["completion_tokens"]
            == 3
        )


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"seed": 1}, 422, "extra_forbidden"),
        ({"model": "nobody"}, 404, "not found"),
        ({"messages": []}, 422, "at least 1"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, 422, "prefix"),
        ({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, 422, "only text"),
        ({"temperature": 9}, 422, "1.5"),
        ({"guardrails": [{}]}, 422, "not served"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_is_not_served_is_refused(real_server, fields, status, words):
    with real_server.client() as client:
        reply = ask(client, **fields)

    assert reply.status_code == status
    assert words in reply.text


def test_a_base_does_not_classify_and_a_classifier_does_not_chat(real_server):
    rows = [{"text": f"a {word}", "labels": {"topic": word}} for word in ("refund", "parcel")] * 8
    with real_server.client() as client:
        body = {
            "model": "small",
            "training_files": [{"file_id": upload(client, "topics.jsonl", rows)}],
            "hyperparameters": {"training_steps": 11},
            "auto_start": True,
        }
        job = client.post("/v1/fine_tuning/jobs", json=body).json()
        done = wait_for(client, job["id"], "SUCCESS")
        model = done["fine_tuned_model"]

        assert job["job_type"] == "classifier"  # told from the data
        assert model.startswith("ft:classifier:small:")
        assert done["classifier_targets"] == [
            {
                "name": "topic",
                "labels": ["parcel", "refund"],
                "weight": 1.0,
                "loss_function": "single_class",
            }
        ]
        assert ask(client, model=model).status_code == 422
        asked = {"model": "small", "input": "a refund"}
        assert client.post("/v1/classifications", json=asked).status_code == 422
        assert client.get(f"/v1/models/{model}").json()["capabilities"]["classification"]
