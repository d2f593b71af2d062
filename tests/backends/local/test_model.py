import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from finetune.backends.local.base import check_adapter
from finetune.backends.local.model import (
    choose_dtype,
    load_adapter,
    load_model,
    resolve_model,
)
from finetune.errors import UsageError
from tests.backends.local.conftest import make_model


@pytest.fixture
def hub():
    """A hub that answers every request as one that asks for terms to be accepted, or as unknown."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            gated = "/owner/gated" in self.path
            self.send_response(403 if gated else 404)
            self.send_header("X-Error-Code", "GatedRepo" if gated else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815 (the name that http.server calls)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_folder_is_itself(tiny_base):
    assert resolve_model(str(tiny_base)) == tiny_base


@pytest.mark.parametrize(
    ("ref", "message", "hint"),
    [
        ("mistral-nemmo", "no such folder, catalog name or hub id", "did you mean `mistral-nemo`?"),
        ("./nowhere", "no such folder, catalog name or hub id", "`finetune models`"),
        ("owner/gated", "gated: its owner asks to accept terms first", "HF_TOKEN"),
        ("owner/nothing", "no such model on the hub, or a private one", "HF_TOKEN"),
    ],
)
def test_a_model_that_is_not_there(hub, ref, message, hint):
    with pytest.raises(UsageError, match=message) as caught:
        resolve_model(ref, endpoint=hub)
    assert hint in caught.value.hint
    assert caught.value.exit_code == 2


def test_a_hub_out_of_reach():
    with pytest.raises(UsageError, match="the hub cannot be reached") as caught:
        resolve_model("mistral-7b", endpoint="http://127.0.0.1:9")
    assert "hf download mistralai/Mistral-7B-Instruct-v0.3" in caught.value.hint


def test_a_folder_without_weights(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="no weights"):
        resolve_model(str(tmp_path))


def change(base, folder, **values):
    shutil.copytree(base, folder)
    config = json.loads((folder / "config.json").read_text()) | values
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"auto_map": {"AutoConfig": "code.Config"}}, "brings its own code"),
        ({"quantization_config": {"quant_method": "fp8"}}, "holds 8-bit floats"),
        ({"final_logit_softcapping": 30.0}, "caps its scores, which the loss here does not"),
        ({"num_hidden_layers": 3}, "weights are missing: 9 tensors"),
        ({"model_type": "unheard-of"}, "cannot load this model"),
    ],
)
def test_a_model_that_cannot_be_loaded(tiny_base, tmp_path, values, message):
    with pytest.raises(UsageError, match=message):
        load_model(change(tiny_base, tmp_path / "model", **values))


def test_weights_of_another_kind_are_refused(tiny_base, tmp_path):
    folder = change(tiny_base, tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"\0" * 64)
    with pytest.raises(UsageError, match="cannot load this model"):
        load_model(folder)


def test_numbers_are_those_asked_for_and_positions_stay_exact(tiny_base):
    import torch

    model = load_model(tiny_base, dtype="bfloat16")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32
    assert not model.training
    assert choose_dtype("float32", "cpu") == "float32"
    assert load_model(tiny_base, dtype="float32").dtype == torch.float32


def test_an_adapter_goes_on_and_off(tiny_base, tiny_adapter):
    import torch

    ids = torch.tensor([[1, 20, 30, 40]])
    base = load_model(tiny_base, dtype="float32")
    with torch.inference_mode():
        before = base(ids).logits
        tuned = load_adapter(base, tiny_adapter)
        assert (tuned(ids).logits - before).abs().max() > 0.1
        with tuned.disable_adapter():
            assert torch.equal(tuned(ids).logits, before)


def test_an_adapter_for_another_base(tiny_adapter):
    other = make_model(vocab_size=64, intermediate_size=80)
    with pytest.raises(UsageError, match="does not fit the model") as caught:
        load_adapter(other, tiny_adapter)
    assert "trained on another base" in caught.value.hint


@pytest.mark.parametrize("shape", [{"num_hidden_layers": 1}, {"num_hidden_layers": 3}])
def test_an_adapter_for_a_base_of_another_depth(tiny_adapter, shape):
    other = make_model(vocab_size=64, intermediate_size=64, **shape)
    with pytest.raises(UsageError, match=r"14 tensors such as .* are in one of them only"):
        load_adapter(other, tiny_adapter)


def write_config(folder, base):
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": base}
    (folder / "adapter_config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("named", "ref"),
    [
        (None, "mistral-7b"),
        ("", "./somewhere"),
        ("mistral-7b", "mistralai/Mistral-7B-Instruct-v0.3"),
        ("/hub/models--mistralai--Mistral-7B-Instruct-v0.3/snapshots/c17053", "mistral-7b"),
        ("/hub/models--owner--own--tune/snapshots/c17053", "owner/own--tune"),
        ("/cache/models/smollm2-135m-b179c9523d0e-1", "smollm2-135m"),
        ("tuned-before", "/srv/models/tuned-before"),
        ("/srv/models/tuned-before", "/srv/models/tuned-before"),
    ],
)
def test_names_that_mean_one_base(tmp_path, named, ref):
    write_config(tmp_path, named)
    check_adapter(tmp_path, ref)


@pytest.mark.parametrize(
    ("named", "ref"),
    [
        ("mistral-7b", "mistral-7b-v0.2"),
        ("/hub/models--mistralai--Mistral-7B-v0.3/snapshots/c17053", "mistral-7b"),
        ("/srv/models/tuned-before", "/elsewhere/models/tuned-before"),
        ("owner/model", "mistral-nemo"),
    ],
)
def test_an_adapter_that_names_another_base(tmp_path, named, ref):
    write_config(tmp_path, named)
    with pytest.raises(UsageError, match="was trained on another base") as caught:
        check_adapter(tmp_path, ref)
    assert f"names `{named}`, the run `{ref}`" in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("adapter_config.json", b"[]", "is no config of a LoRA adapter"),
        ("adapter_config.json", b'{"peft_type": "LORA"}', "is no config of a LoRA adapter"),
        ("adapter_config.json", b'{"peft_type": ', "not a JSON document"),
        ("adapter_model.safetensors", b"", "is no whole file of safetensors"),
        ("adapter_model.safetensors", None, "is no whole file of safetensors"),
    ],
)
def test_a_damaged_adapter(tmp_path, tiny_base, tiny_adapter, name, data, message):
    adapter = shutil.copytree(tiny_adapter, tmp_path / "adapter")
    check_adapter(adapter, str(tiny_base))
    whole = (adapter / name).read_bytes()
    (adapter / name).write_bytes(whole[:-100] if data is None else data)
    with pytest.raises(UsageError, match=message):
        check_adapter(adapter, str(tiny_base))


def test_a_folder_that_two_paths_lead_to_is_one_base(tmp_path, tiny_base):
    (tmp_path / "link").symlink_to(tiny_base)
    write_config(tmp_path, str(tiny_base))
    check_adapter(tmp_path, str(tmp_path / "link"))


def test_an_adapter_that_is_not_there(tiny_base, tmp_path):
    with pytest.raises(UsageError, match="no adapter here"):
        load_adapter(load_model(tiny_base), tmp_path)


def test_a_model_in_four_bits(tiny_base):
    import torch

    model = load_model(tiny_base, quantize="4bit", dtype="float32")
    assert model.model.layers[0].mlp.up_proj.weight.dtype == torch.uint8
    with torch.inference_mode():
        assert model(torch.tensor([[1, 20, 30]])).logits.isfinite().all()
