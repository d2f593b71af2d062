"""Answers by a vLLM: a server that behaves as vLLM documents it stands behind a real one of ours."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from finetune.errors import RecipeError
from finetune.server.inference import Question
from finetune.server.models import Answerer
from finetune.server.refusal import Refused
from finetune.server.vllm import Vllm
from finetune.server.weights import read_names
from tests.server.conftest import TRAINER, Running, chats, check_component, upload, wait_for

HELLO = {"messages": [{"role": "user", "content": "Say it."}]}
TOOL = {"type": "function", "function": {"name": "find_order", "parameters": {"type": "object"}}}


class Documented(BaseHTTPRequestHandler):
    """The paths of vLLM that are used; `server.mode` makes it fail."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.server.mode == "elsewhere":
            self._reply(404, {"detail": "Not Found"})
            return
        if self.server.mode == "portal":
            self._reply(200, "Welcome to the airport")
            return
        adapters = [{"id": name, "parent": "org/base"} for name in self.server.adapters]
        self._reply(
            200, {"object": "list", "data": [{"id": "org/base", "parent": None}, *adapters]}
        )

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body))
        if self.headers["Authorization"] != "Bearer its-own-key":
            self._reply(401, {"error": "Unauthorized"})
        elif self.path == "/v1/load_lora_adapter":
            self._load(body)
        elif self.path == "/v1/unload_lora_adapter":
            self.server.adapters.pop(body["lora_name"])
            self._reply(200, "Success")
        elif body["model"] not in {"org/base", *self.server.adapters}:
            self._fail(404, "The model does not exist.")
        elif self.server.mode == "refuse":
            self._fail(400, "This model's maximum context length is 512 tokens.")
        elif self.server.mode == "fail":
            self._fail(500, "EngineCore encountered an issue.")
        else:
            self._answer(body)

    def _load(self, body):
        if self.server.mode == "static":
            self._reply(404, {"detail": "Not Found"})
        elif self.server.mode == "rank":
            self._fail(400, "LoRA rank 16 is greater than max_lora_rank 8.")
        else:
            self.server.adapters[body["lora_name"]] = body["lora_path"]
            self._reply(200, "Success")

    def _answer(self, body):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for index in range(body["n"]):
            for piece in self._pieces(body):
                self._event(choices=[{"index": index, **piece}])
        if self.server.mode == "break":
            return
        self._event(choices=[], usage={"prompt_tokens": 7, "completion_tokens": 2 * body["n"]})
        self.wfile.write(b"data: [DONE]\n\n")

    def _pieces(self, body):
        if self.path == "/v1/completions":
            yield {"text": "mid", "finish_reason": None}
            yield {"text": "dle", "finish_reason": "length"}
            return
        yield {"delta": {"role": "assistant", "content": ""}}
        if "tools" in body:
            start = {"index": 0, "id": "abcDEF123", "type": "function"}
            yield {"delta": {"tool_calls": [{**start, "function": {"name": "find_order"}}]}}
            for text in ('{"express"', ": true}"):
                yield {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": text}}]}}
            yield {"delta": {}, "finish_reason": "tool_calls"}
            return
        yield {"delta": {"content": "it is "}}
        if self.server.mode != "break":
            yield {"delta": {"content": "said"}, "finish_reason": "stop"}

    def _event(self, **event):
        self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")

    def _fail(self, status, message):
        self._reply(status, {"error": {"message": message, "type": "BadRequestError"}})

    def _reply(self, status, value):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def upstream():
    with ThreadingHTTPServer(("127.0.0.1", 0), Documented) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def vllm(upstream):
    """A vLLM as it is when it has just started."""
    upstream.asked, upstream.adapters, upstream.mode = [], {}, None
    return upstream


@pytest.fixture(scope="module")
def behind(upstream, no_weights, tmp_path_factory):
    """A server of ours: vLLM answers for its model `small`, and nobody for its model `gone`."""
    folder, model = tmp_path_factory.mktemp("behind"), no_weights.parent / "model"
    with socket.socket() as deaf, pytest.MonkeyPatch.context() as patch:
        deaf.bind(("127.0.0.1", 0))  # never listens: whoever connects is refused
        ports = {"small": upstream.server_port, "gone": deaf.getsockname()[1]}
        lines = [
            f"{name}: {{model: {model}, vllm: 'http://127.0.0.1:{port}/v1',"
            " local: {batch_tokens: 128}}\n"
            for name, port in ports.items()
        ]
        (folder / "names.yaml").write_text("".join(lines))
        patch.setenv("VLLM_API_KEY", "its-own-key")
        running = Running(
            folder / "server", "--models", folder / "names.yaml", "--trainer", TRAINER
        )
        yield running
        running.stop()


def ask(client, model="small", path="chat", **fields):
    return client.post(f"/v1/{path}/completions", json={"model": model} | HELLO | fields)


def test_a_base_and_what_was_made_of_it_are_answered_for(behind, vllm):
    with behind.client() as client:
        said = ask(client, temperature=0.5, random_seed=3, max_tokens=9, stop="END", n=2).json()
        path, body = vllm.asked.pop()
        file = upload(client, "train.jsonl", chats(40))
        order = {"model": "small", "training_files": [{"file_id": file}], "auto_start": True}
        job = client.post(
            "/v1/fine_tuning/jobs", json={**order, "hyperparameters": {"training_steps": 2}}
        )
        tuned = wait_for(client, job.json()["id"], "SUCCESS")["fine_tuned_model"]
        first = ask(client, tuned)
        vllm.adapters.clear()  # it was started anew
        again = ask(client, tuned)
        loads = [body for path, body in vllm.asked if path == "/v1/load_lora_adapter"]
        client.delete(f"/v1/models/{tuned}")

    assert [choice["message"]["content"] for choice in said["choices"]] == ["it is said"] * 2
    assert said["usage"] == {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}
    assert path == "/v1/chat/completions"
    kept = {"model": "org/base", "temperature": 0.5, "seed": 3, "max_tokens": 9, "stop": ["END"]}
    assert kept.items() <= body.items()
    assert "random_seed" not in body
    for answer in (first, again):
        assert (answer.status_code, answer.json()["model"]) == (200, tuned)
    adapter = behind.folder / "runs" / job.json()["id"] / "adapter"
    assert loads == [{"lora_name": tuned, "lora_path": str(adapter.resolve())}] * 2
    assert vllm.asked[-1] == ("/v1/unload_lora_adapter", {"lora_name": tuned})
    assert vllm.adapters == {}


def test_each_kind_of_question_is_put_as_vllm_takes_it(behind, vllm):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    with behind.client() as client:
        called = ask(client, tools=[TOOL], tool_choice="any").json()["choices"][0]
        ask(client, response_format=wanted)
        turns = [*HELLO["messages"], {"role": "assistant", "content": "Well, ", "prefix": True}]
        begun = ask(client, messages=turns).json()["choices"][0]["message"]["content"]
        filled = client.post(
            "/v1/fim/completions", json={"model": "small", "prompt": "a = ", "suffix": "\n"}
        ).json()["choices"][0]
        *events, last = ask(client, stream=True).text.strip().split("\n\n")
    tools, shaped, prefixed, middle, _ = (body for _, body in vllm.asked)

    assert called["finish_reason"] == "tool_calls"
    [call] = called["message"]["tool_calls"]
    assert call["function"] == {"name": "find_order", "arguments": '{"express": true}'}
    assert tools["tool_choice"]["function"] == {"name": "find_order"}
    assert tools["parallel_tool_calls"] is True
    assert shaped["response_format"]["json_schema"]["schema"] == schema
    assert (begun, prefixed["continue_final_message"]) == ("Well, it is said", True)
    assert (filled["message"]["content"], filled["finish_reason"]) == ("middle", "length")
    assert {type(token) for token in middle["prompt"]} == {int}
    assert last == "data: [DONE]"
    parts = [json.loads(event.removeprefix("data: ")) for event in events]
    for part in parts:
        check_component("CompletionChunk", part)
    assert "".join(part["choices"][0]["delta"]["content"] for part in parts) == "it is said"
    assert parts[-1]["usage"]["total_tokens"] == 9


def test_what_goes_wrong_behind_is_told_apart(behind, vllm):
    said = {}
    with behind.client() as client:
        for mode in ("refuse", "fail", "break"):
            vllm.mode = mode
            said[mode] = ask(client)
        broken = ask(client, stream=True).text
        said["gone"] = ask(client, "gone")

    assert {mode: reply.status_code for mode, reply in said.items()} == {
        "refuse": 400, "fail": 502, "break": 502, "gone": 503,
    }  # fmt: skip
    assert "maximum context length" in said["refuse"].json()["detail"]
    assert "broke its answer off" in said["break"].json()["detail"]
    assert said["gone"].headers["Retry-After"] == "10"
    *_, event, last = broken.strip().split("\n\n")
    told = json.loads(event.removeprefix("data: "))
    assert (told["object"], told["code"], last) == ("error", 502, "data: [DONE]")
    assert told["message"] == told["error"]["message"] == said["break"].json()["detail"]


@pytest.mark.parametrize(
    ("mode", "fact"),
    [
        ("static", "VLLM_ALLOW_RUNTIME_LORA_UPDATING"),
        ("rank", "max_lora_rank 8"),
        ("elsewhere", r"is not at http://127.0.0.1:\d+/v1"),
        ("portal", "in another form than documented"),
    ],
)
def test_an_adapter_that_is_not_loaded_says_why(mode, fact, vllm, tmp_path):
    vllm.mode = mode
    url = f"http://127.0.0.1:{vllm.server_port}/v1"
    who = Answerer("ft:small", "small", str(tmp_path), 512, vllm=url)

    async def ask_once():
        behind = Vllm("its-own-key")
        try:
            return [line async for line in behind.ask(Question(id="", kind="chat"), who)]
        finally:
            await behind.close()

    with pytest.raises(Refused, match=fact) as refused:
        asyncio.run(ask_once())
    assert refused.value.status == 502


def test_records_go_to_no_vllm_unencrypted_over_a_network(tmp_path):
    names = tmp_path / "names.yaml"
    names.write_text("small: {model: smollm2-135m, vllm: 'http://gpu.example.org:8000'}\n")
    with pytest.raises(RecipeError, match=r"small: vllm: .* unencrypted"):
        read_names(names)
    names.write_text("small: {model: smollm2-135m, vllm: 'https://gpu.example.org/v1/'}\n")
    assert read_names(names)["small"].vllm == "https://gpu.example.org/v1"
