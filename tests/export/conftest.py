"""Runs of a tiny Mistral with a tokenizer of its own, small enough for every form."""

import base64
import json
import shutil

import pytest

from finetune.recipe import load_recipe
from finetune.runs import Run
from finetune.tokens.embedded import CONTROLS

RECORD = {
    "messages": [
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "The capital of France is Paris."},
    ]
}
TEKKEN_PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WORDS = [b"he", b"the", b" t", b" the", b"is", b" is"]


def make_tekken(**config):
    """A tekken file of 256 bytes, a few words and Mistral's control tokens."""
    pieces = [bytes([byte]) for byte in range(256)] + WORDS
    vocab = [
        {"rank": rank, "token_bytes": base64.b64encode(piece).decode(), "token_str": None}
        for rank, piece in enumerate(pieces)
    ]
    special = [
        {"rank": rank, "token_str": name, "is_control": True}
        for rank, (name, _) in enumerate(CONTROLS)
    ]
    size = len(vocab) + len(special)
    head = {
        "pattern": TEKKEN_PATTERN,
        "num_vocab_tokens": len(vocab),
        "default_vocab_size": size,
        "default_num_special_tokens": len(special),
        "version": "v7",
    }
    return {"config": head | config, "vocab": vocab, "special_tokens": special}


def make_base(folder, family="Mistral", **shape):
    """A randomly initialised model with its tokenizer; head_dim is not hidden / heads."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = {
        "vocab_size": 282,
        "hidden_size": 64,
        "head_dim": 32,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "sliding_window": None,
        "initializer_range": 0.2,
        "pad_token_id": 11,
    } | shape
    made = getattr(transformers, f"{family}Config")(**config)
    getattr(transformers, f"{family}ForCausalLM")(made).save_pretrained(folder)
    (folder / "tekken.json").write_text(json.dumps(make_tekken()), encoding="utf-8")
    return folder


def make_adapter(base, folder, **lora):
    """An adapter that changes what the model says."""
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    from finetune.backends.local.quiet import quiet

    torch.manual_seed(1)
    config = {
        "r": 4,
        "lora_alpha": 12,
        "target_modules": ["q_proj", "k_proj", "v_proj", "down_proj"],
    }
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(base)
        tuned = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **config | lora))
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        tuned.save_pretrained(folder)
    return folder


def make_run(folder, base, adapter=None, *, recipe=""):
    """A run's folder, with a dataset of one record."""
    (folder / "recipe.yaml").write_text(f"model: {base}\ndata: {{train: [{{path: x}}]}}\n{recipe}")
    dataset = folder / "dataset"
    dataset.mkdir()
    (dataset / "validation.jsonl").write_text(json.dumps(RECORD) + "\n")
    loaded = load_recipe(folder / "recipe.yaml")
    run = Run.create(
        folder / "runs" / "demo", loaded, identity="0", dataset=dataset, dataset_digest="d1g3st"
    )
    if adapter is not None:
        shutil.copytree(adapter, run.adapter)
        place = run.adapter / "adapter_config.json"  # a run's adapter names the run's base
        config = {**json.loads(place.read_bytes()), "base_model_name_or_path": str(base)}
        place.write_text(json.dumps(config))
        run.set_state("done")
    return run


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="session")
def adapter(base):
    return make_adapter(base, base.parent / "adapter")


@pytest.fixture
def run(tmp_path, base, adapter):
    return make_run(tmp_path, base, adapter)
