"""The embedded model computes what SmolLM2 computes, from a folder that looks like Mistral's."""

import json

import pytest

pytestmark = pytest.mark.heavy


def test_folder_is_a_mistral_checkpoint(embedded_model):
    config = json.loads((embedded_model / "config.json").read_text())
    assert config["architectures"] == ["MistralForCausalLM"]
    assert config["sliding_window"] is None
    assert config["tie_word_embeddings"] is True
    assert (config["dtype"], config["vocab_size"]) == ("bfloat16", 49176)
    assert sorted(path.name for path in embedded_model.iterdir()) == [
        "README.md",
        "config.json",
        "digests.json",
        "generation_config.json",
        "model.safetensors",
        "tekken.json",
    ]


def test_it_knows_the_capital_of_france(embedded_model):
    import torch
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
    from transformers import AutoModelForCausalLM

    file = str(embedded_model / "tekken.json")
    tokenizer = MistralTokenizer.from_file(file).instruct_tokenizer.tokenizer
    model = AutoModelForCausalLM.from_pretrained(embedded_model, dtype=torch.bfloat16)
    ids = torch.tensor([tokenizer.encode("The capital of France is", bos=False, eos=False)])
    with torch.inference_mode():
        best = model(ids).logits[0, -1].argmax().item()
    assert tokenizer.decode([best]) == " Paris"
