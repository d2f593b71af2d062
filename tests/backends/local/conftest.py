import random
from pathlib import Path
from types import SimpleNamespace

import pytest

from finetune.backends.local.samples import pack
from finetune.backends.local.schedule import plan_training
from finetune.recipe.tree import Recipe

VOCABULARY = 300


def make_recipe(**local):
    training = {"epochs": 2, "learning_rate": 1e-2, "weight_decay": 0.0}
    local = {"batch_tokens": 200, "micro_batch_tokens": 100, "save_every": 2} | local
    return Recipe.model_validate(
        {
            "model": "tiny",
            "data": {"train": [{"path": "x"}]},
            "training": training,
            "local": local,
        }
    )


def make_samples(count, *, seed=0, weighted=False, vocabulary=VOCABULARY):
    """Samples of 8 to 60 tokens, of which the later part is trained."""
    draw = random.Random(seed)
    samples = []
    for _ in range(count):
        ids = [draw.randrange(vocabulary) for _ in range(draw.randint(8, 60))]
        asked = draw.randint(2, len(ids) - 2)
        weights = None
        if weighted:
            weights = [0.0] * asked + [draw.choice([0.25, 0.5, 1.0]) for _ in ids[asked:]]
        sample = SimpleNamespace(
            input_ids=ids, labels=[-100] * asked + ids[asked:], weights=weights, images=()
        )
        samples.append(sample)
    return samples


def make_model(**shape):
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    defaults = {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "sliding_window": None,
    }
    return MistralForCausalLM(MistralConfig(**defaults | shape))


def make_mixtral(**shape):
    import torch
    from transformers import MixtralConfig, MixtralForCausalLM

    torch.manual_seed(0)
    config = MixtralConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        **{"vocab_size": 50, "num_local_experts": 2, "sliding_window": None, **shape},
    )
    return MixtralForCausalLM(config)


def go_on(task, model, items, recipe, steps=None, *, folder, identity=None, **more):
    """Train as a run does: from the newest checkpoint, with what it has computed at once."""
    from finetune.backends.local.loop import find_start, fit

    identity = identity or {"dataset": "abc"}
    newest = find_start(folder, identity)
    micro = newest.micro_batch_tokens if newest else None
    more |= {"newest": newest, "micro_batch_tokens": micro}
    steps = steps or plan_training(recipe, [item.tokens for item in items])
    return fit(task, model, items, steps, recipe, folder=folder, identity=identity, **more)


def assert_near(got, wanted, most=1e-5):
    """Each tensor is off by at most this share of its own largest value."""
    assert got.keys() == wanted.keys()
    for name, tensor in got.items():
        off, largest = (tensor - wanted[name]).abs().max(), wanted[name].abs().max()
        assert off <= most * largest, (name, off.item(), largest.item())


@pytest.fixture
def samples():
    return [pack(sample) for sample in make_samples(12)]


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "checkpoints"
