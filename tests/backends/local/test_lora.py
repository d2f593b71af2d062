import pytest
import torch
from transformers import (
    Mistral3Config,
    Mistral3ForConditionalGeneration,
)

from finetune.backends.local.lora import LINEARS, add_adapter, count_trainable, find_targets
from finetune.errors import RecipeError
from finetune.recipe.tree import Lora
from tests.backends.local.conftest import make_mixtral, make_model


def make_vision_model():
    text = {
        "model_type": "mistral",
        "vocab_size": 50,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    vision = {
        "model_type": "pixtral",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "image_size": 28,
        "patch_size": 14,
        "head_dim": 8,
    }
    config = Mistral3Config(text_config=text, vision_config=vision, image_token_index=3)
    return Mistral3ForConditionalGeneration(config)


def test_auto_is_the_seven_linears():
    model = add_adapter(make_model(), Lora(rank=4))
    groups = count_trainable(model)
    assert set(groups) == set(LINEARS)
    # two layers of rank 4: (inputs + outputs) * rank
    assert groups["q_proj"] == 2 * 4 * (64 + 64)
    assert groups["down_proj"] == 2 * 4 * (96 + 64)
    assert all(p.dtype == torch.float32 for p in model.parameters() if p.requires_grad)


def test_auto_is_attention_where_experts_are_fused():
    model = add_adapter(make_mixtral(), Lora())
    assert set(count_trainable(model)) == {"q_proj", "k_proj", "v_proj", "o_proj"}


def test_vision_gets_no_adapter():
    model = add_adapter(make_vision_model(), Lora())
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained
    assert not [name for name in trained if "vision" in name or "projector" in name]
    assert set(count_trainable(model)) == set(LINEARS)


def test_experts_are_a_group_of_their_own():
    model = add_adapter(make_mixtral(), Lora(rank=4, experts=True))
    groups = count_trainable(model)
    assert set(groups) == {"q_proj", "k_proj", "v_proj", "o_proj", "experts"}
    # two experts of one layer: gate and up (32 → 2 × 48), down (48 → 32)
    assert groups["experts"] == 2 * 4 * (32 + 2 * 48 + 48 + 32)
    assert not [n for n, p in model.named_parameters() if p.requires_grad and ".gate.weight" in n]


def test_experts_of_a_dense_model_are_an_error():
    with pytest.raises(RecipeError, match=r"local.lora.experts: a MistralForCausalLM has no exp"):
        add_adapter(make_model(), Lora(experts=True))


def test_a_list_is_taken_as_it_is():
    model = add_adapter(make_model(), Lora(targets=["q_proj", "v_proj"]))
    assert set(count_trainable(model)) == {"q_proj", "v_proj"}


@pytest.mark.parametrize(
    ("make", "targets", "fact"),
    [
        (make_model, ["q_prj"], "`q_prj` names no linear"),
        (make_mixtral, ["q_proj", "gate_proj"], "`gate_proj` names no linear"),
        (make_vision_model, ["q_proj", "linear_1"], "`linear_1` names no linear"),
        (make_model, ["lm_head"], "`lm_head` can't have an adapter"),
        (make_model, ["model.embed_tokens"], "can't have an adapter"),
    ],
)
def test_a_group_that_would_be_empty_is_an_error(make, targets, fact):
    with pytest.raises(RecipeError) as caught:
        find_targets(make(), targets)
    assert fact in caught.value.message
    assert caught.value.hint


def test_the_first_weights_depend_on_the_seed_alone():
    def first(seed):
        torch.rand(3)
        model = add_adapter(make_model(), Lora(), seed=seed)
        return next(p for n, p in model.named_parameters() if "lora_A" in n)

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))
