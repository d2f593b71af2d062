import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from finetune.backends.local.attention import attend_within
from finetune.backends.local.lora import add_adapter
from finetune.backends.local.loss import packed_loss
from finetune.backends.local.memory import count_adapter
from finetune.backends.local.samples import collate
from finetune.backends.local.schedule import plan_training
from finetune.backends.local.speed import Meter, count_flops, find_hardware_peak
from finetune.catalog import find_peak, read_shape
from finetune.recipe.tree import Lora
from finetune.runs import describe_speed, measure_speed
from tests.backends.local.conftest import make_mixtral, make_model, make_recipe


def test_counted_operations_are_those_that_torch_executes(samples):
    model = add_adapter(make_model(), Lora(rank=8))
    with attend_within(model), FlopCounterMode(display=False) as counter:
        packed_loss(model, collate(samples)).backward()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    shape = read_shape(model.config.to_dict())
    counted = count_flops(shape, trained, [(s.tokens, len(s.targets)) for s in samples])
    tokens = sum(sample.tokens for sample in samples)
    squared = 6 * shape.layers * shape.heads * shape.head_dim
    scores = sum(squared * sample.tokens**2 for sample in samples)  # which the counter passes over
    # The gradient of the first layer's inputs is not needed: nothing is trained before it.
    first = sum(math.prod(shape.attention[name]) for name in ("q_proj", "k_proj", "v_proj"))
    spared = 2 * tokens * (first + 3 * 8 * shape.hidden)
    assert counter.get_total_flops() == pytest.approx(counted - scores - spared, rel=1e-9)


def test_training_everything_costs_the_gradient_of_the_weights_as_well():
    shape = read_shape(make_model().config.to_dict())
    once = [(10, 4)]
    linears = shape.linear_weights + shape.vocab * shape.hidden
    squared = 6 * shape.layers * shape.heads * shape.head_dim * 100
    head = shape.vocab * shape.hidden
    assert count_flops(shape, linears, once) == 60 * shape.linear_weights + 24 * head + squared
    assert count_flops(shape, 0, once) == 40 * shape.linear_weights + 16 * head + squared


def test_a_token_passes_through_its_own_experts_alone():
    few, many = (
        read_shape(make_mixtral(num_local_experts=count).config.to_dict()) for count in (2, 4)
    )
    assert many.weights > few.weights
    assert count_flops(many, 0, [(10, 4)]) == count_flops(few, 0, [(10, 4)])


def test_adapters_of_experts_count_where_a_token_passes_through_them():
    # Hidden 32, two heads of keys of width 8, experts of 48, of which each token takes two.
    model = add_adapter(make_mixtral(num_local_experts=8), Lora(rank=3, experts=True))
    attention = 2 * 32 * 32 + 2 * 32 * 16
    expert = 3 * 32 * 48
    adapters = 3 * ((32 + 32) + (32 + 16) + (32 + 16) + (32 + 32))
    of_an_expert = 3 * ((32 + 2 * 48) + (48 + 32))
    token = 4 * (attention + 2 * expert) + 6 * (adapters + 2 * of_an_expert)
    by_hand = 10 * token + 6 * 32 * 10**2 + 4 * 50 * 32 * 4
    trained = {n: p.numel() for n, p in model.named_parameters() if p.requires_grad}
    experts = sum(size for name, size in trained.items() if ".experts." in name)
    assert experts == 8 * of_an_expert
    shape = read_shape(model.config.to_dict())
    assert count_flops(shape, sum(trained.values()), [(10, 4)], of_experts=experts) == by_hand
    recipe = make_recipe(lora={"rank": 3, "experts": True})
    assert count_adapter(shape, recipe)["experts"] == experts  # what `plan` counts with


def test_a_meter_gives_the_share_of_a_known_peak(samples):
    steps = plan_training(make_recipe(), [sample.tokens for sample in samples])
    shape = read_shape(make_model().config.to_dict())
    first = [samples[index] for group in steps[0].micro_batches for index in group]
    flops = count_flops(shape, 9, [(s.tokens, len(s.targets)) for s in first])
    speed = flops / steps[0].tokens * 50
    said = {"step": 1, "tokens_per_second": 50.0, "loss": 2.0}
    known = Meter(shape, 9, samples, steps, 4 * speed).judge(**said)
    assert known == pytest.approx({"flops_per_second": speed, "peak_share": 0.25})
    assert Meter(shape, 9, samples, steps, None).judge(**said).keys() == {"flops_per_second"}
    assert Meter(None, 9, samples, steps, 1e9).judge(**said) == {}


def test_the_peak_of_a_processor_is_measured_and_of_a_card_looked_up():
    before = torch.get_num_threads()
    one = find_hardware_peak("cpu", "float32")
    assert one > 1e8
    assert torch.get_num_threads() == before
    assert find_hardware_peak("cpu", "float32", processes=2) == 2 * one  # measured once a process
    assert find_hardware_peak("NVIDIA A100-SXM4-80GB", "bfloat16", processes=4) == 4 * 312e12
    assert find_hardware_peak("NVIDIA GeForce GTX 1080", "bfloat16") is None


@pytest.mark.parametrize(
    ("name", "dtype", "peak"),
    [
        ("NVIDIA A100 80GB PCIe", "bfloat16", 312e12),
        ("NVIDIA A10", "bfloat16", 125e12),
        ("NVIDIA A10G", "bfloat16", None),
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989e12),
        ("NVIDIA H100 PCIe", "bfloat16", 756e12),
        ("NVIDIA L4", "bfloat16", 121e12),
        ("NVIDIA L40S", "bfloat16", 362e12),
        ("NVIDIA L40S", "float32", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bfloat16", None),
        ("Tesla T4", "float32", 8.1e12),
        ("Tesla T4", "bfloat16", None),
    ],
)
def test_a_card_is_known_by_its_whole_name(name, dtype, peak):
    assert find_peak(name, dtype) == peak


def test_the_speed_of_a_run_is_that_of_all_its_steps():
    metrics = [
        {"step": 1, "tokens": 100, "tokens_per_second": 50.0},
        {"step": 2, "tokens": 400, "tokens_per_second": 100.0},
    ]
    assert measure_speed(metrics) == {"tokens": 400, "seconds": 5.0, "tokens_per_second": 80.0}
    judged = [line | {"flops_per_second": 1e9, "peak_share": 0.5} for line in metrics]
    speed = measure_speed(judged)
    assert speed["flops"] == 5e9
    assert speed["flops_per_second"] == pytest.approx(1e9)
    assert describe_speed(speed) == "80 tokens/s, 1 GFLOP/s, 50% of the hardware's peak"
    del judged[1]["peak_share"]
    assert "peak_share" not in measure_speed(judged)
    assert measure_speed([{"step": 1, "loss": 2.0}]) is None
