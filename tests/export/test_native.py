"""Mistral's own format, held against Mistral's own computation written out here."""

import json
import re
import shutil

import pytest

from finetune.backends.local.model import load_adapter, load_model
from finetune.errors import UsageError
from finetune.export import export, native
from finetune.export.lora import to_peft
from tests.export.conftest import make_adapter, make_base, make_run

IDS = [1, 30, 77, 200, 5, 281, 12, 40]


def mistral_logits(tensors, params, ids):
    """Logits as Mistral's reference code computes them: rotation of neighbours as complex numbers."""
    import torch
    from torch.nn.functional import rms_norm, scaled_dot_product_attention, silu

    def norm(x, name):
        return rms_norm(x, (params["dim"],), tensors[f"{name}.weight"], params["norm_eps"])

    def linear(x, name):
        return x @ tensors[f"{name}.weight"].T

    def rotate(x):
        pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * angles[:, None, :]).flatten(-2)

    def experts(x, name):
        chosen = linear(x, f"{name}.gate").topk(params["moe"]["num_experts_per_tok"])
        shares = chosen.values.softmax(dim=-1)
        rows = [
            sum(
                share * feed(row, f"{name}.experts.{expert}")
                for share, expert in zip(shares[index], chosen.indices[index], strict=True)
            )
            for index, row in enumerate(x)
        ]
        return torch.stack(rows)

    def feed(x, name):
        return linear(silu(linear(x, f"{name}.w1")) * linear(x, f"{name}.w3"), f"{name}.w2")

    dim, times = params["head_dim"], params["n_heads"] // params["n_kv_heads"]
    steps = params["rope_theta"] ** -(torch.arange(0, dim, 2) / dim)
    turns = torch.outer(torch.arange(len(ids)), steps)
    angles = torch.polar(torch.ones_like(turns), turns)
    x = tensors["tok_embeddings.weight"][ids]
    for number in range(params["n_layers"]):
        layer = f"layers.{number}"
        h = norm(x, f"{layer}.attention_norm")
        q, k, v = (linear(h, f"{layer}.attention.w{c}").unflatten(-1, (-1, dim)) for c in "qkv")
        q, k = rotate(q), rotate(k)
        k, v = (part.repeat_interleave(times, dim=1) for part in (k, v))
        heads = [part.transpose(0, 1) for part in (q, k, v)]
        answer = scaled_dot_product_attention(*heads, is_causal=True).transpose(0, 1).flatten(1)
        x = x + linear(answer, f"{layer}.attention.wo")
        h = norm(x, f"{layer}.ffn_norm")
        x = x + (experts if "moe" in params else feed)(h, f"{layer}.feed_forward")
    return linear(norm(x, "norm"), "output")


def read(folder, name):
    from safetensors.torch import load_file

    return load_file(folder / name), json.loads((folder / "params.json").read_text())


def run_logits(base, adapter):
    import torch

    with torch.inference_mode():
        return load_adapter(load_model(base, dtype="float32"), adapter)(torch.tensor([IDS])).logits[
            0
        ]


def distance(ours, theirs):
    return (ours - theirs).abs().max().item()


def test_consolidated_computes_what_base_and_adapter_compute(run, base, adapter, tmp_path):
    facts = export(run, tmp_path / "out", to="consolidated")

    assert facts["agreement"] == 1.0
    assert facts["kl"] == pytest.approx(0, abs=1e-6)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["README.md", "consolidated.safetensors", "params.json", "tekken.json"]
    ours = mistral_logits(*read(tmp_path / "out", "consolidated.safetensors"), IDS)
    assert distance(ours, run_logits(base, adapter)) < 1e-4


@pytest.mark.parametrize(
    ("family", "shape"),
    [
        ("Mistral", {"tie_word_embeddings": True}),
        ("Mistral", {"num_key_value_heads": 4, "rope_theta": 1e6}),
        ("Mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    ],
)
def test_consolidated_holds_every_family(tmp_path, family, shape):
    base = make_base(tmp_path / "base", family, **shape)
    experts = {"target_parameters": ["experts.gate_up_proj", "experts.down_proj"]}
    more = experts if family == "Mixtral" else {}
    adapter = make_adapter(base, tmp_path / "adapter", target_modules=["q_proj", "k_proj"], **more)
    export(make_run(tmp_path, base, adapter), tmp_path / "out", to="consolidated")

    ours = mistral_logits(*read(tmp_path / "out", "consolidated.safetensors"), IDS)
    assert distance(ours, run_logits(base, adapter)) < 1e-4


def test_lora_says_the_same_in_mistrals_code_and_back_in_peft(run, base, adapter, tmp_path):
    """`load_lora` adds `lora_B @ lora_A * 2` to every linear but the head, and wants them all."""
    facts = export(run, tmp_path / "lora", to="lora")
    export(make_run_without(tmp_path, base, adapter), tmp_path / "plain", to="consolidated")

    assert (facts["rank"], facts["scaling"], facts["agreement"]) == (4, 2.0, 1.0)
    lora, params = read(tmp_path / "lora", "lora.safetensors")
    assert params["lora"] == {"enable": True, "rank": 4, "dropout": 0.0, "scaling": 2.0}
    tensors, params = read(tmp_path / "plain", "consolidated.safetensors")
    linears = [name[:-7] for name in tensors if re.search(r"\.w[qkvo123]\.weight$", name)]
    assert len(lora) == 2 * len(linears) == 28
    for name in linears:
        up, down = (lora[f"{name}.lora_{letter}.weight"] for letter in "BA")
        tensors[f"{name}.weight"] += up @ down * 2
    theirs = run_logits(base, adapter)
    assert distance(mistral_logits(tensors, params, IDS), theirs) < 1e-4

    (tmp_path / "back").mkdir()
    to_peft(tmp_path / "lora", tmp_path / "back")
    assert distance(run_logits(base, tmp_path / "back"), theirs) < 1e-5


def test_lora_has_no_place_for_row_lengths(tmp_path, base):
    adapter = make_adapter(base, tmp_path / "adapter", use_dora=True)
    run = make_run(tmp_path, base, adapter)
    with pytest.raises(UsageError, match="no place for the row lengths of DoRA"):
        export(run, tmp_path / "out", to="lora")
    assert export(run, tmp_path / "whole", to="consolidated")["agreement"] == 1.0


def make_run_without(folder, base, adapter):
    """A run whose adapter changes nothing."""
    from safetensors.torch import load_file, save_file

    (folder / "still").mkdir()
    run = make_run(folder / "still", base, adapter)
    file = run.adapter / "adapter_model.safetensors"
    save_file({name: tensor * ("lora_A" in name) for name, tensor in load_file(file).items()}, file)
    return run


@pytest.mark.parametrize("module", ["model.layers.0.mlp.router", "model.vision_tower.patch", "x"])
def test_modules_without_a_place_are_refused(module):
    with pytest.raises(UsageError, match="has no place"):
        native.rename(module)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mistral3"}, "`model_type` is `mistral3`"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "`rope_type` is `yarn`"),
        ({"quantization_config": {"quant_method": "fp8"}}, "`quantization_config`"),
    ],
)
def test_models_that_the_format_cannot_hold_are_refused_by_name(
    run, base, tmp_path, changes, message
):
    other = shutil.copytree(base, tmp_path / "other")
    config = json.loads((other / "config.json").read_text()) | changes
    (other / "config.json").write_text(json.dumps(config))
    (tmp_path / "another").mkdir()
    other_run = make_run(tmp_path / "another", other, run.adapter)
    for form in ("consolidated", "lora"):
        with pytest.raises(UsageError, match=message):
            export(other_run, tmp_path / "out", to=form)
    assert not list(tmp_path.glob("*out*")), "nothing is left"


def test_a_model_without_mistrals_tokenizer_is_refused(run, base, tmp_path):
    other = shutil.copytree(base, tmp_path / "other")
    (other / "tekken.json").unlink()
    (tmp_path / "another").mkdir()
    with pytest.raises(UsageError, match="no tokenizer file of Mistral's"):
        export(make_run(tmp_path / "another", other, run.adapter), tmp_path / "out", to="lora")
