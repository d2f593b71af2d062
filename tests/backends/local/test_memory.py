import msgspec
import pytest

from finetune.backends.local.device import Device
from finetune.backends.local.memory import (
    LOSS_POSITIONS,
    PARTS,
    choose_memory,
    count_adapter,
    estimate_memory,
    find_longest,
)
from finetune.catalog import Shape, find_model
from finetune.recipe import Recipe

CPU = Device(kind="cpu", name="2 cores", total=24 * 10**9, free=20 * 10**9, bf16=True)
GPU = Device(kind="cuda", name="a GPU", total=24 * 10**9, free=24 * 10**9, bf16=True)
SMALL = find_model("smollm2-135m").shape


def recipe(**local):
    return Recipe.model_validate(
        {"model": "m", "data": {"train": [{"path": "x.jsonl"}]}, "local": local}
    )


def test_an_adapter_of_rank_16_on_seven_linears_has_the_weights_that_peft_makes():
    # peft 0.21.2 prints 4,884,480 for this model.
    assert sum(count_adapter(SMALL, recipe()).values()) == 4_884_480


def test_dora_adds_a_length_for_each_row():
    more = sum(count_adapter(SMALL, recipe(lora={"dora": True})).values()) - 4_884_480
    assert more == 30 * (576 + 192 + 192 + 576 + 1536 + 1536 + 576)


def test_targets_and_rank_are_taken_from_the_recipe():
    count = count_adapter(SMALL, recipe(lora={"rank": 8, "targets": ["self_attn.q_proj"]}))
    assert count == {"q_proj": 30 * 8 * (576 + 576)}


def test_a_mixture_of_experts_is_adapted_in_its_attention_only():
    assert set(count_adapter(find_model("mixtral-8x7b").shape, recipe())) == {
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
    }


def test_experts_are_adapted_where_the_recipe_says_so():
    shape = find_model("mixtral-8x7b").shape
    count = count_adapter(shape, recipe(lora={"rank": 8, "experts": True}))
    assert count["experts"] == 32 * 8 * 8 * (4096 + 2 * 14336 + 14336 + 4096)
    assert "experts" not in count_adapter(SMALL, recipe(lora={"experts": True}))


def test_quantization_leaves_experts_as_they_are():
    shape = find_model("mixtral-8x7b").shape
    plain, small = (
        estimate_memory(shape, recipe(quantize=how), GPU, tokens=1).weights
        for how in ("none", "4bit")
    )
    assert plain - small < 2 * shape.linear_weights < 0.1 * plain


def test_adapted_experts_are_held_twice_unless_they_are_computed_again():
    shape, lora = find_model("mixtral-8x7b").shape, {"experts": True}
    held, again = (
        estimate_memory(shape, recipe(lora=lora), GPU, tokens=1, gradient_checkpointing=on)
        for on in (False, True)
    )
    layer = shape.expert_weights // shape.layers
    # In bfloat16: each layer's, one layer's gradient, and both of a layer before they are rounded.
    assert 0 <= held.activations - (2 * (shape.layers + 1) + 8) * layer < layer
    assert 0 <= again.activations - (2 * 2 + 8) * layer < layer


def test_total_is_the_sum_of_the_parts_and_optimizer_state_is_four_times_the_adapter():
    memory = estimate_memory(SMALL, recipe(), CPU, tokens=1000)
    assert memory.total == sum(memory.parts[part] for part in PARTS)
    assert memory.gradients + memory.adapter + memory.optimizer == 16 * 4_884_480


def test_activations_grow_with_tokens_and_shrink_with_checkpointing():
    one, two = (estimate_memory(SMALL, recipe(), CPU, tokens=n) for n in (1000, 2000))
    assert one.activations < two.activations
    for device, share in ((GPU, 1 / 4), (CPU, 1 / 2)):  # the CPU's allocator leaves holes
        held, again = (
            estimate_memory(SMALL, recipe(), device, tokens=2000, gradient_checkpointing=on)
            for on in (False, True)
        )
        assert again.activations < held.activations * share


def test_weights_follow_numbers_and_quantization():
    shape = find_model("mistral-7b").shape
    sizes = [
        estimate_memory(shape, recipe(**local), GPU, tokens=1).weights
        for local in ({"dtype": "float32"}, {}, {"quantize": "8bit"}, {"quantize": "4bit"})
    ]
    assert sizes[0] == 2 * sizes[1] == 4 * shape.weights
    assert sizes == sorted(sizes, reverse=True)
    assert 3.9e9 < sizes[3] < 4.4e9  # published checkpoints of this model in NF4: 4.1 GB


def test_the_vision_tower_is_held_as_it_is():
    seeing = find_model("ministral-3-8b").shape
    blind = msgspec.structs.replace(seeing, vision=False)
    for local in ({}, {"quantize": "4bit"}):
        more, less = (
            estimate_memory(shape, recipe(**local), GPU, tokens=1).weights
            for shape in (seeing, blind)
        )
        # 0.42 billion weights by the published counts of the models with and without it
        assert more - less == 2 * seeing.vision_weights > 0.8e9


def test_the_loss_holds_one_chunk_of_scores():
    few, many = (
        estimate_memory(SMALL, recipe(), CPU, tokens=8000, trained=n).loss for n in (10, 8000)
    )
    assert few < 10 * SMALL.vocab * 6 + 10**5
    assert many < (LOSS_POSITIONS * SMALL.vocab * 10) + 3 * 8000 * SMALL.hidden * 2 + 1


def test_open_settings_are_chosen_smallest_change_first():
    lengths = [300] * 50
    plenty = choose_memory(SMALL, recipe(), CPU, lengths, budget=CPU.total)
    assert (plenty.micro_batch_tokens, plenty.gradient_checkpointing) == (4096, False)
    less = choose_memory(SMALL, recipe(), CPU, lengths, budget=plenty.total - 1)
    assert (less.micro_batch_tokens, less.gradient_checkpointing) == (2048, False)
    smallest = estimate_memory(SMALL, recipe(), CPU, tokens=512)
    little = choose_memory(SMALL, recipe(), CPU, lengths, budget=smallest.total - 1)
    assert little.gradient_checkpointing
    assert little.total < smallest.total


def test_what_the_recipe_says_is_not_changed():
    asked = recipe(micro_batch_tokens=2048, gradient_checkpointing="off")
    memory = choose_memory(SMALL, asked, CPU, [100], budget=1)
    assert (memory.micro_batch_tokens, memory.gradient_checkpointing) == (2048, False)
    assert memory.total > 1


def test_a_sample_longer_than_the_micro_batch_sets_the_peak():
    asked = recipe(micro_batch_tokens=256)
    assert choose_memory(SMALL, asked, CPU, [100, 5000], budget=10**12).micro_batch_tokens == 5000


@pytest.mark.parametrize("budget", [2 * 10**9, 4 * 10**9, 8 * 10**9])
def test_the_longest_sample_fits_and_the_next_longer_does_not(budget):
    asked = recipe(gradient_checkpointing="off")
    longest = find_longest(SMALL, asked, CPU, budget=budget, context=10**6)
    assert estimate_memory(SMALL, asked, CPU, tokens=longest).total <= budget
    assert estimate_memory(SMALL, asked, CPU, tokens=longest + 1).total > budget


def test_the_longest_sample_is_within_the_context_and_zero_where_nothing_fits():
    assert find_longest(SMALL, recipe(), CPU, budget=10**12, context=8192) == 8192
    assert find_longest(SMALL, recipe(), CPU, budget=10**6, context=8192) == 0


def test_qlora_of_an_8b_model_fits_a_gpu_of_24_gb_and_the_bf16_model_does_not():
    shape = find_model("ministral-3-8b").shape
    small = choose_memory(shape, recipe(quantize="4bit"), GPU, [2000], budget=GPU.free)
    assert small.total < GPU.free
    large = find_model("mistral-small-3.1").shape
    assert choose_memory(large, recipe(), GPU, [2000], budget=GPU.free).total > GPU.free


def test_without_bf16_numbers_take_twice_the_room():
    old = Device(kind="cpu", name="2 cores", total=1, free=1, bf16=False)
    tiny = Shape(hidden=64, layers=2, heads=4, kv_heads=2, head_dim=16, intermediate=128, vocab=100)
    wide, narrow = (estimate_memory(tiny, recipe(), d, tokens=10).weights for d in (old, CPU))
    assert wide == 2 * narrow


def test_positions_scored_at_once_are_those_of_the_loss():
    from finetune.backends.local import loss

    assert loss.CHUNK == LOSS_POSITIONS
