"""GGUF and Ollama: read back by transformers, and by the gguf package."""

import json
import shutil

import pytest

from finetune.errors import UsageError
from finetune.export import export
from tests.export.conftest import make_adapter, make_base, make_run, make_tekken


def fields(path):
    from gguf import GGUFReader

    reader = GGUFReader(path)
    return {name: field.contents() for name, field in reader.fields.items()}, reader.tensors


@pytest.mark.parametrize(
    ("numbers", "kinds", "kl"),
    [
        ("auto", {"F32"}, 1e-6),
        ("bf16", {"F32", "BF16"}, 1e-3),
        ("f16", {"F32", "F16"}, 1e-5),
        ("q8_0", {"F32", "Q8_0"}, 1e-2),
    ],
)
def test_gguf_says_what_base_and_adapter_say(run, tmp_path, numbers, kinds, kl):
    facts = export(run, tmp_path / "out", to="gguf", options={"numbers": numbers})

    assert facts["kl"] == pytest.approx(0, abs=kl)
    assert facts["agreement"] >= (0.9 if numbers == "q8_0" else 0.97)
    path = tmp_path / "out" / facts["file"]
    said, tensors = fields(path)
    assert {tensor.tensor_type.name for tensor in tensors} == kinds
    assert said["general.architecture"] == "llama"
    assert said["llama.rope.dimension_count"] == said["llama.attention.key_length"] == 32
    assert said["tokenizer.ggml.model"] == "gpt2"
    assert said["tokenizer.ggml.pre"] == "tekken"
    assert said["tokenizer.ggml.tokens"][:4] == ["<unk>", "<s>", "</s>", "[INST]"]
    assert said["tokenizer.ggml.tokens"][-2:] == ["is", "Ġis"]
    assert said["tokenizer.ggml.merges"][:3] == ["h e", "t he", "Ġ t"]
    assert "[SYSTEM_PROMPT]" in said["tokenizer.chat_template"]


@pytest.mark.parametrize(
    "shape",
    [
        {"tie_word_embeddings": True},
        {"vocab_size": 320, "sliding_window": 128, "rope_theta": 1e6},
    ],
)
def test_gguf_holds_tied_and_padded_models(tmp_path, shape):
    base = make_base(tmp_path / "base", **shape)
    run = make_run(tmp_path, base, make_adapter(base, tmp_path / "adapter"))
    facts = export(run, tmp_path / "out", to="gguf")

    assert facts["kl"] == pytest.approx(0, abs=1e-6)
    said, tensors = fields(tmp_path / "out" / facts["file"])
    tied = "tie_word_embeddings" in shape
    assert ("output.weight" in {tensor.name for tensor in tensors}) != tied
    assert len(said["tokenizer.ggml.tokens"]) == shape.get("vocab_size", 282)
    assert said["llama.context_length"] == shape.get("sliding_window", 256)


def change(base, folder, **changes):
    other = shutil.copytree(base, folder)
    config = json.loads((other / "config.json").read_text()) | changes
    (other / "config.json").write_text(json.dumps(config))
    return other


def test_configs_of_older_models_are_read(run, base, tmp_path):
    """Those published before 2025 have `torch_dtype`, and `rope_theta` beside `rope_scaling`."""
    config = json.loads((base / "config.json").read_text())
    theta = config.pop("rope_parameters")["rope_theta"]
    old = {"torch_dtype": config.pop("dtype"), "rope_theta": theta, "rope_scaling": None}
    other = change(base, tmp_path / "other")
    (other / "config.json").write_text(json.dumps(config | old))
    (tmp_path / "another").mkdir()
    another = make_run(tmp_path / "another", other, run.adapter)
    for form in ("gguf", "consolidated"):
        facts = export(another, tmp_path / form, to=form)
        assert facts["kl"] == pytest.approx(0, abs=1e-6)
    assert list(tmp_path.glob("gguf/*.f32.gguf"))


@pytest.mark.parametrize(
    ("changes", "numbers", "message"),
    [
        ({"model_type": "mixtral"}, "auto", "GGUF as written here cannot hold this model"),
        ({"vocab_size": 281}, "auto", "282 tokens for 281 rows"),
        ({}, "q4_k", "q4_k: not numbers that are written here"),
    ],
)
@pytest.mark.parametrize("form", ["gguf", "ollama"])
def test_what_gguf_cannot_hold_is_refused(run, base, tmp_path, changes, numbers, message, form):
    (tmp_path / "another").mkdir()
    other = make_run(tmp_path / "another", change(base, tmp_path / "other", **changes), run.adapter)
    with pytest.raises(UsageError, match=message):
        export(other, tmp_path / "out", to=form, options={"numbers": numbers})
    assert not list(tmp_path.glob("*out*"))


def test_a_tokenizer_that_cuts_texts_in_another_way_is_refused(run, base, tmp_path):
    other = shutil.copytree(base, tmp_path / "other")
    (other / "tekken.json").write_text(json.dumps(make_tekken(pattern=r"\S+|\s+")))
    (tmp_path / "another").mkdir()
    other_run = make_run(tmp_path / "another", other, run.adapter)
    with pytest.raises(UsageError, match="no name for how it cuts texts"):
        export(other_run, tmp_path / "out", to="gguf")


def test_ollama_gets_a_modelfile_beside_the_file(run, tmp_path):
    facts = export(run, tmp_path / "out", to="ollama", options={"numbers": "f16"})

    modelfile = (tmp_path / "out" / "Modelfile").read_text()
    assert modelfile.startswith(f'FROM ./{facts["file"]}\nTEMPLATE """{{{{- range')
    assert modelfile.endswith('"""\nPARAMETER num_ctx 4096\n')
    assert (tmp_path / "out" / facts["file"]).is_file()
    assert facts["command"] == f"ollama create recipe -f {tmp_path}/out/Modelfile"


def test_ollama_refuses_a_layout_that_a_template_cannot_express(run, base, tmp_path):
    other = shutil.copytree(base, tmp_path / "other")
    tekken = make_tekken(version="v15")
    effort = {"type": "enum", "values": ["none", "high"], "default": "none", "accepts_none": True}
    tekken["model_settings_builder"] = {"reasoning_effort": effort}
    names = ["[ARGS]", "[CALL_ID]", "[THINK]", "[/THINK]", "[MODEL_SETTINGS]", "[/MODEL_SETTINGS]"]
    for name in names:
        rank = len(tekken["special_tokens"])
        tekken["special_tokens"].append({"rank": rank, "token_str": name, "is_control": True})
    tekken["config"]["default_num_special_tokens"] += len(names)
    tekken["config"]["default_vocab_size"] += len(names)
    (other / "tekken.json").write_text(json.dumps(tekken))
    (tmp_path / "another").mkdir()
    other_run = make_run(tmp_path / "another", other, run.adapter)
    with pytest.raises(UsageError, match="a Modelfile cannot express the layout"):
        export(other_run, tmp_path / "out", to="ollama")
