import importlib.util
from pathlib import Path

import pytest

from finetune import catalog
from finetune.catalog import LICENCES, MODELS, SHIPPED, STAND_INS, find_model, read_shape

# Number of weights as the model cards print them.
PUBLISHED = {
    "smollm2-135m": 134_528_832,
    "mistral-7b-v0.1": 7_241_732_096,
    "mistral-7b": 7_248_023_552,
    "ministral-8b-2410": 8_019_808_256,
    "mistral-nemo": 12_247_782_400,
    "mistral-small-3.1": 24_011_361_280,
    "mixtral-8x7b": 46_702_792_704,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_weights_counted_from_the_shape_equal_the_published_count(name):
    assert find_model(name).params == PUBLISHED[name]


def test_every_shape_gives_the_advertised_size():
    for model in MODELS:
        if model.shape:
            decoder = model.shape.weights - model.shape.vision_weights
            assert decoder == pytest.approx(model.billions * 1e9, rel=0.02), model.name


def test_names_and_hub_ids_are_unique_and_found():
    refs = [ref for model in MODELS for ref in (model.name, model.hub_id) if ref]
    assert len(refs) == len(set(refs))
    assert all(find_model(model.hub_id) is model for model in MODELS if model.hub_id)


def test_every_row_points_at_things_that_are_there():
    for model in MODELS:
        assert model.licence in LICENCES
        assert model.bf16 is None or not find_model(model.bf16).fp8
        assert model.hub_id or model.package or model.licence == "none"
        known = set(SHIPPED) | set(STAND_INS)
        assert model.tokenizer is None or model.tokenizer in known, model.name
        assert set(model.unsure) <= set(model.__struct_fields__)
        assert model.source
        assert model.date


def test_shipped_tokenizer_files_exist_in_mistral_common():
    package = Path(importlib.util.find_spec("mistral_common").origin).parent
    for file in SHIPPED.values():
        assert (package / "data" / file).is_file()


def test_unknown_model_is_none_and_gets_a_hint():
    assert find_model("mistral-nemmo") is None
    assert catalog.suggest_model("mistral-nemmo") == "did you mean `mistral-nemo`?"
    assert catalog.suggest_model("zzzz") is None


def test_shape_of_a_config_with_a_vision_tower_is_read_from_its_text_part():
    config = {
        "model_type": "mistral3",
        "vision_config": {"hidden_size": 1024},
        "text_config": {
            "hidden_size": 4096,
            "num_hidden_layers": 34,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "intermediate_size": 14336,
            "vocab_size": 131072,
            "max_position_embeddings": 262144,
        },
    }
    assert read_shape(config) == find_model("ministral-3-8b").shape
    assert catalog.read_context(config) == 262144


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"hidden_size": "wide"},
        {"hidden_size": 64, "num_attention_heads": 0, "num_hidden_layers": 1},
        {
            "hidden_size": 64,
            "num_attention_heads": 4,
            "num_hidden_layers": 1,
            "intermediate_size": 64,
            "vocab_size": 100,
            "kv_lora_rank": 16,
        },
    ],
)
def test_a_config_of_another_architecture_has_no_shape(config):
    assert read_shape(config) is None


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["mistral", "mixtral", "mistral3", "mistral4"])
def test_weights_equal_those_of_the_transformers_class(kind):
    import torch
    import transformers

    sizes = {
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "intermediate_size": 96,
        "vocab_size": 500,
        "tie_word_embeddings": False,
    }
    if kind == "mistral":
        config = transformers.MistralConfig(**sizes)
        make = transformers.MistralForCausalLM
    elif kind == "mixtral":
        config = transformers.MixtralConfig(**sizes, num_local_experts=4, num_experts_per_tok=2)
        make = transformers.MixtralForCausalLM
    elif kind == "mistral4":
        latent = {"q_lora_rank": 24, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "v_head_dim": 20}
        mixture = {"n_routed_experts": 6, "moe_intermediate_size": 32, "n_shared_experts": 2}
        config = transformers.Mistral4Config(**sizes, **latent, **mixture, qk_nope_head_dim=12)
        make = transformers.Mistral4ForCausalLM
    else:
        config = transformers.Mistral3Config(
            text_config={"model_type": "ministral3", **sizes},
            vision_config=transformers.Mistral3Config().vision_config.to_dict(),
            tie_word_embeddings=False,
        )
        make = transformers.Mistral3ForConditionalGeneration
    with torch.device("meta"):
        model = make(config)
    assert read_shape(config.to_dict()).weights == sum(p.numel() for p in model.parameters())
