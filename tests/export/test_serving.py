"""What other programs load or fetch: adapter, vLLM, hub."""

import json
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from finetune.backends.local.model import load_adapter, load_model
from finetune.errors import PlatformError, UsageError
from finetune.export import export
from finetune.files import digest


def set_config(run, **values):
    path = run.adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_adapter_is_copied_whole_and_names_its_base(run, base, tmp_path):
    (run.adapter / "optimizer.pt").write_bytes(b"pickle")
    run.metric(step=1, tokens=1000, loss=2.0)
    export(run, tmp_path / "out", to="adapter")

    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    weights = "adapter_model.safetensors"
    assert digest(tmp_path / "out" / weights) == digest(run.adapter / weights)
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny", "no path of this machine"
    assert load_adapter(load_model(base, dtype="float32"), tmp_path / "out") is not None
    card = (tmp_path / "out" / "README.md").read_text()
    for text in ("library_name: peft", "d1g3st", '"rank": 16', "Not measured", "licence of the"):
        assert text in card
    assert str(base.parent) not in card
    layer = 4 * 64 * 32 * 2 + 2 * 64 * 32 * 2 + 3 * 64 * 96
    assert f"{4 * (2 * layer + 282 * 64) * 1000:.2g} floating-point operations" in card


def test_card_shows_measures_beside_the_base(run, tmp_path):
    measures = {"loss": {"value": 2.5}, "exact_match": {"value": 0.25, "low": 0.1, "high": 0.4}}
    document = {"records": 20, "base": measures, "tuned": {"loss": {"value": 1.5}}}
    (run.folder / "evaluation.json").write_text(json.dumps(document))
    export(run, tmp_path / "out", to="adapter")

    assert "| loss | 2.5 | 1.5 |" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(("rank", "limit"), [(4, 8), (16, 16), (17, 32), (300, 320)])
def test_vllm_gets_the_line_that_serves_the_adapter(run, base, tmp_path, rank, limit):
    set_config(run, r=rank)
    facts = export(run, tmp_path / "out", to="vllm")

    served = f"vllm serve {base} --host 127.0.0.1 --tokenizer-mode mistral --max-model-len 4096"
    served += f" --enable-lora --max-lora-rank {limit} --lora-modules recipe={tmp_path}/out"
    assert facts["command"] == served
    (tmp_path / "vllm").write_text('#!/bin/sh\necho vllm "$@"\n')
    (tmp_path / "vllm").chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        [tmp_path / "out" / "serve.sh"], env=path, capture_output=True, text=True, check=True
    )
    assert done.stdout == served + "\n", "the script says what the command says"


@pytest.mark.parametrize(
    ("values", "message"),
    [({"use_dora": True}, "`use_dora`"), ({"r": 513}, "up to rank 512"), ({"bias": "all"}, "bias")],
)
def test_adapters_that_vllm_does_not_serve_are_refused(run, tmp_path, values, message):
    set_config(run, **values)
    with pytest.raises(UsageError, match=message):
        export(run, tmp_path / "out", to="vllm")


def record_calls():
    """A client of the hub that writes down what it is asked, and the folder it is shown."""
    calls = []

    def create_repo(repository, **facts):
        calls.append(("create_repo", repository, facts))
        return f"https://huggingface.co/{repository}"

    def upload_folder(*, folder_path, **facts):
        names = sorted(path.name for path in folder_path.iterdir())
        calls.append(("upload_folder", names, facts))

    return SimpleNamespace(create_repo=create_repo, upload_folder=upload_folder), calls


def test_hub_gets_the_adapter_and_its_card_in_a_new_private_repository(run, tmp_path):
    api, calls = record_calls()
    options = {"repository": "me/tuned", "personal_data": "any", "api": api}
    facts = export(run, tmp_path / "out", to="hub", options=options)

    files = ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    assert calls[0] == ("create_repo", "me/tuned", {"private": True, "exist_ok": False})
    assert calls[1][:2] == ("upload_folder", files)
    assert calls[1][2]["repo_id"] == "me/tuned"
    assert sorted(calls[1][2]["allow_patterns"]) == files
    assert (facts["private"], facts["address"]) == (True, "https://huggingface.co/me/tuned")


def set_privacy(run, mode, found):
    section = {"mode": mode, "counts": {"email": {"messages[].content": found}} if found else {}}
    (run.dataset / "manifest.json").write_text(json.dumps({"privacy": section}))


@pytest.mark.parametrize(
    ("mode", "found", "said", "leaves"),
    [
        (None, 0, None, False),
        (None, 0, "any", True),
        ("report", 0, None, True),
        ("report", 3, None, False),
        ("report", 3, "masked", False),
        ("mask", 3, "masked", True),
        ("mask", 3, "none", False),
    ],
)
def test_personal_data_leave_only_where_that_was_allowed(run, tmp_path, mode, found, said, leaves):
    if mode:
        set_privacy(run, mode, found)
    api, calls = record_calls()
    options = {"repository": "me/tuned", "personal_data": said, "api": api}
    if leaves:
        export(run, tmp_path / "out", to="hub", options=options)
        assert len(calls) == 2
        return
    with pytest.raises(UsageError, match="must not leave this machine"):
        export(run, tmp_path / "out", to="hub", options=options)
    assert calls == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("repository", ["", "tuned", "me/tuned/x", "me/ tuned", "../x"])
def test_a_repository_has_an_owner_and_a_name(run, tmp_path, repository):
    with pytest.raises(UsageError, match="owner/name"):
        export(run, tmp_path / "out", to="hub", options={"repository": repository})


def test_a_hub_that_cannot_be_reached_says_so_and_leaves_nothing(run, tmp_path):
    from huggingface_hub import HfApi

    api = HfApi(endpoint="http://127.0.0.1:9", token="hf_secretsecret")
    options = {"repository": "me/tuned", "personal_data": "any", "api": api}
    with pytest.raises(PlatformError, match="hub: cannot be reached") as caught:
        export(run, tmp_path / "out", to="hub", options=options)
    assert caught.value.exit_code == 5
    assert "hf_secret" not in str(caught.value) + str(caught.value.hint)
    assert not list(tmp_path.glob("*out*"))


@pytest.fixture
def answer():
    """A hub on this machine that says one status to everything."""
    servers = []

    def start(status):
        def respond(handler):
            handler.send_response(status)
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        quiet = {"do_POST": respond, "do_GET": respond, "log_message": lambda *_: None}
        handler = type("Handler", (BaseHTTPRequestHandler,), quiet)
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (401, "me/tuned: the hub refuses the token", 4),
        (409, "me/tuned: is there already", 8),
        (400, "me/tuned: the hub says no: status 400", 5),
    ],
)
def test_a_hub_that_says_no(run, tmp_path, answer, status, message, code):
    from huggingface_hub import HfApi

    api = HfApi(endpoint=answer(status), token="hf_secretsecret")
    options = {"repository": "me/tuned", "personal_data": "any", "api": api}
    with pytest.raises(PlatformError, match=message) as caught:
        export(run, tmp_path / "out", to="hub", options=options)
    assert caught.value.exit_code == code
    assert "hf_secret" not in str(caught.value) + str(caught.value.hint)
