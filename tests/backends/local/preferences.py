"""Answers to compare: random ids, as TRL has them after tokenizing and as ours; models for them."""

import random
from types import SimpleNamespace

import torch

from finetune.backends.local.lora import add_adapter
from finetune.backends.local.rewards import Answer
from finetune.backends.local.samples import pack
from finetune.recipe.tree import Lora
from tests.backends.local.conftest import VOCABULARY, make_mixtral, make_model, make_recipe


def make_rows(count, seed=0):
    """Prompts with two answers each, as TRL has them after tokenizing."""
    draw = random.Random(seed)

    def ids(low, high):
        return [draw.randrange(VOCABULARY) for _ in range(draw.randint(low, high))]

    return [
        {"prompt_ids": ids(3, 20), "chosen_ids": ids(2, 20), "rejected_ids": ids(2, 20)}
        for _ in range(count)
    ]


def make_answer(prompt, answer):
    labels = [-100] * len(prompt) + answer
    return Answer(
        (pack(SimpleNamespace(input_ids=prompt + answer, labels=labels, weights=None, images=())),)
    )


def make_adapted():
    return add_adapter(make_model(), make_recipe().local.lora)


def make_mixture():
    model = make_mixtral(vocab_size=VOCABULARY, num_local_experts=4, router_aux_loss_coef=0.5)
    return add_adapter(model, Lora(rank=3, experts=True)).train()


def disturb(model, seed=1):
    """Move what is trained, so that it says something else than the base."""
    draw = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=draw)


def gradients(model):
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
