import json
import shutil

import pytest

from finetune.backends.local.lora import add_adapter
from finetune.backends.local.merge import compare, merge
from finetune.backends.local.model import load_adapter, load_model
from finetune.errors import TrainingError, UsageError
from finetune.recipe.tree import Lora

PROMPTS = [[1, 20, 30, 40, 50], [1, 33, 60]]


def merge_into(folder, base, adapter):
    folder.mkdir()
    merge(base, adapter, folder)
    return folder


def test_merged_says_what_base_and_adapter_say(tiny_base, tiny_adapter, tmp_path):
    merged = merge_into(tmp_path / "merged", tiny_base, tiny_adapter)
    parity = compare(tiny_base, tiny_adapter, merged, PROMPTS)
    assert parity.kl == pytest.approx(0, abs=1e-6)
    assert (parity.agreement, parity.positions) == (1.0, 8)


def test_shards_are_merged_one_by_one_and_rounded_once(tiny_base, tiny_adapter, tmp_path):
    import torch

    sharded = tmp_path / "sharded"
    load_model(tiny_base, dtype="bfloat16").save_pretrained(sharded, max_shard_size="60KB")
    assert len(list(sharded.glob("model-*.safetensors"))) > 1
    merged = load_model(merge_into(tmp_path / "merged", sharded, tiny_adapter), dtype="bfloat16")
    exact = load_adapter(load_model(sharded, dtype="float32"), tiny_adapter).merge_and_unload()
    for (name, ours), theirs in zip(merged.named_parameters(), exact.parameters(), strict=True):
        assert torch.equal(ours, theirs.to(torch.bfloat16)), name


def test_a_merge_that_forgot_the_adapter_is_refused(tiny_base, tiny_adapter):
    with pytest.raises(TrainingError, match="what was written differs"):
        compare(tiny_base, tiny_adapter, tiny_base, PROMPTS)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"modules_to_save": ["lm_head"]}, "`modules_to_save` of this adapter cannot be merged"),
        ({"init_lora_weights": "pissa"}, "`init_lora_weights`"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "`embed_tokens` has an adapter"),
    ],
)
def test_an_adapter_of_another_kind_is_refused(tiny_base, tiny_adapter, tmp_path, values, message):
    adapter = shutil.copytree(tiny_adapter, tmp_path / "adapter")
    config = json.loads((adapter / "adapter_config.json").read_text()) | values
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match=message):
        merge_into(tmp_path / "merged", tiny_base, adapter)


def test_an_adapter_of_another_model_is_refused(tiny_base, tiny_adapter, tmp_path):
    from safetensors.torch import load_file, save_file

    adapter = shutil.copytree(tiny_adapter, tmp_path / "adapter")
    tensors = load_file(adapter / "adapter_model.safetensors")
    renamed = {name.replace("layers.1.", "layers.7."): value for name, value in tensors.items()}
    save_file(renamed, adapter / "adapter_model.safetensors")
    with pytest.raises(UsageError, match=r"does not fit .*: 7 tensors"):
        merge_into(tmp_path / "merged", tiny_base, adapter)


@pytest.mark.parametrize("variant", [{"rslora": True, "rank": 9}, {"dora": True}])
def test_every_kind_of_lora_is_merged_exactly(tiny_base, tmp_path, variant):
    import torch

    model = add_adapter(load_model(tiny_base, dtype="float32"), Lora(**variant))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    prompt = torch.tensor([PROMPTS[0]])
    ours = model.eval()(prompt).logits
    model.save_pretrained(tmp_path / "adapter")
    again = load_adapter(load_model(tiny_base, dtype="float32"), tmp_path / "adapter")
    merged = merge_into(tmp_path / "merged", tiny_base, tmp_path / "adapter")
    with again.disable_adapter():
        assert (again(prompt).logits - ours).abs().max() > 0.1
    for same in (again, load_model(merged, dtype="float32")):
        torch.testing.assert_close(same(prompt).logits, ours, rtol=0, atol=1e-4)
