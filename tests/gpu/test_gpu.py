"""What only a GPU can show: `python scripts/test.py -m gpu` on a machine that has one.

Without `-m gpu` these are left out. They have not been run on a GPU yet.
"""

import pytest

from tests.backends.local.conftest import make_model, make_recipe, make_samples

pytestmark = pytest.mark.gpu


def losses(folder, *, device, steps=6, dtype=None, **local):
    """Train a tiny model; return the loss of each step."""
    import torch

    from finetune.backends.local.loop import fit
    from finetune.backends.local.lora import add_adapter
    from finetune.backends.local.samples import pack
    from finetune.backends.local.schedule import plan_training
    from finetune.backends.local.sft import TASK

    recipe = make_recipe(**local)
    samples = [pack(sample) for sample in make_samples(12)]
    plan = plan_training(recipe, [len(sample.input_ids) for sample in samples])[:steps]
    model = make_model(hidden_size=128).to(device, dtype or torch.float32)  # heads of 32
    model = add_adapter(model, recipe.local.lora)
    found = []
    fit(
        TASK,
        model,
        samples,
        plan,
        recipe,
        folder=folder,
        identity={},
        metric=lambda **line: found.append(line["loss"]),
    )
    return found


def test_bfloat16_with_varlen_attention_trains_as_float32_does(tmp_path):
    import torch

    half = losses(tmp_path / "half", device="cuda", dtype=torch.bfloat16)
    whole = losses(tmp_path / "whole", device="cuda")
    assert half[-1] < half[0]
    assert half == pytest.approx(whole, rel=2e-2)


@pytest.mark.parametrize("window", [None, 16])
def test_varlen_attention_is_that_of_each_sample_alone(window):
    import torch

    from finetune.backends.local.attention import attend

    torch.manual_seed(0)
    sizes = [40, 7, 100]
    query, key, value = (
        torch.randn(1, heads, sum(sizes), 64, device="cuda", dtype=torch.bfloat16)
        for heads in (8, 2, 2)
    )
    borders = torch.tensor([0, 40, 47, 147], dtype=torch.int32, device="cuda")
    given = {"max_length_q": 100, "scaling": 0.125, "sliding_window": window}
    fast, _ = attend(None, query, key, value, None, cu_seq_lens_q=borders, **given)
    slow, _ = attend(
        None, *(x.float() for x in (query, key, value)), None, cu_seq_lens_q=borders, **given
    )
    torch.testing.assert_close(fast.float(), slow, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("quantize", ["4bit", "8bit"])
def test_a_quantized_base_lies_on_the_gpu_and_gives_gradients(tmp_path, quantize):
    import torch

    from finetune.backends.local.attention import attend_within
    from finetune.backends.local.lora import add_adapter
    from finetune.backends.local.loss import packed_loss
    from finetune.backends.local.model import load_model
    from finetune.backends.local.samples import collate, pack
    from finetune.backends.local.task import move

    make_model(hidden_size=128).save_pretrained(tmp_path / "base")
    model = load_model(tmp_path / "base", dtype="bfloat16", quantize=quantize)
    assert {p.device.type for p in model.parameters()} == {"cuda"}
    model = add_adapter(model, make_recipe().local.lora)
    batch = move(collate([pack(sample) for sample in make_samples(4)]), "cuda")
    with attend_within(model), torch.autocast("cuda", torch.bfloat16):
        packed_loss(model, batch).backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
