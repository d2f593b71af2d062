"""Classifiers: the loss is the plain one, killed runs go on exactly, the head stays with its adapter."""

import contextlib
import json
import math
from array import array

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from finetune.backends.local.attention import attend_within
from finetune.backends.local.classifier import TASK, Labelled, collate
from finetune.backends.local.head import Head, load_head, save_head
from finetune.backends.local.validation import measure
from finetune.errors import UsageError
from finetune.recipe import Recipe
from finetune.recipe.tree import ClassifierTarget
from tests.backends.local.conftest import assert_near, go_on, make_model

TOPIC = ClassifierTarget(name="topic", labels=["a", "b", "c"], loss_function="single_class")
TAGS = ClassifierTarget(name="tags", labels=["x", "y"], weight=0.5, loss_function="multi_class")
ITEMS = [
    ([5, 9, 11], ((0,), (0,))),
    ([7, 2], ((2,), ())),
    ([4, 4, 8, 1, 30], (None, (0, 1))),
    ([3], ((1,), None)),
    ([60, 61, 62, 63, 64, 65, 66], ((2,), (1,))),
] * 2


@pytest.fixture
def items():
    return [Labelled(array("i", ids), labels) for ids, labels in ITEMS]


@pytest.fixture
def recipe():
    return Recipe.model_validate(
        {
            "model": "tiny",
            "method": "classifier",
            "data": {"train": [{"path": "x"}]},
            "training": {
                "epochs": 2,
                "learning_rate": 1e-2,
                "classifier_targets": [TOPIC.model_dump(), TAGS.model_dump()],
            },
            "local": {"batch_tokens": 12, "micro_batch_tokens": 8, "save_every": 2},
        }
    )


def prepare(recipe):
    model = TASK.prepare(make_model(initializer_range=0.3), recipe)
    draw = torch.Generator().manual_seed(1)
    model.head.classifier.data = torch.randn(model.head.classifier.shape, generator=draw) / 8
    return model


def plain_loss(model, ids, labels):
    """One item by itself, with transformers' own attention and no code of ours but the weights."""
    states = model.get_decoder()(input_ids=torch.tensor([ids])).last_hidden_state[0]
    hidden = states[1:].mean(dim=0) if len(ids) > 1 else states[0]
    scores = model.head.classifier @ (16 * hidden / hidden.norm())
    total = torch.zeros(())
    if labels[0] is not None:
        total += -scores[:3].log_softmax(0)[labels[0][0]]
    if labels[1] is not None:
        truth = torch.tensor([float(place in labels[1]) for place in range(2)])
        total += 0.5 * functional.binary_cross_entropy_with_logits(scores[3:], truth)
    return total


def test_the_loss_and_its_gradients_are_those_of_each_item_by_itself(recipe, items):
    model = prepare(recipe)
    parameters = [p for p in model.parameters() if p.requires_grad]
    wanted = sum(plain_loss(model, *item) for item in ITEMS)
    slopes = torch.autograd.grad(wanted, parameters, allow_unused=True)
    with attend_within(model):
        got, figures = TASK.loss(model, collate(items))
    assert got.item() == pytest.approx(wanted.item(), abs=1e-5)
    found = torch.autograd.grad(got, parameters)
    assert_near(dict(enumerate(found)), dict(enumerate(slopes)))
    assert set(figures) == {"loss_topic", "accuracy_topic", "loss_tags", "accuracy_tags"}
    total = figures["loss_topic"] + 0.5 * figures["loss_tags"]
    assert total.item() == pytest.approx(wanted.item(), abs=1e-4)


def test_every_label_is_as_likely_before_training(recipe, items):
    model = TASK.prepare(make_model(), recipe)
    with attend_within(model):
        found = measure(TASK, model, items, limit=100)["validation_loss"]
    topics = sum(labels[0] is not None for _, labels in ITEMS)
    tags = sum(labels[1] is not None for _, labels in ITEMS)
    assert found == pytest.approx(
        (topics * math.log(3) + 0.5 * tags * math.log(2)) / len(ITEMS), rel=1e-5
    )


class Stop(Exception):
    """Stands for a kill: nothing of ours runs after it."""


def train(folder, recipe, items, stop=None):
    model = TASK.prepare(make_model(initializer_range=0.3), recipe)
    lines = []

    def metric(**values):
        lines.append(values)
        if values["step"] == stop:
            raise Stop

    with contextlib.suppress(Stop):
        go_on(TASK, model, items, recipe, folder=folder, metric=metric)
    return lines, {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def test_a_killed_run_goes_on_exactly_with_its_head(tmp_path, recipe, items):
    whole, wanted = train(tmp_path / "whole", recipe, items)
    train(tmp_path / "killed", recipe, items, stop=5)
    newest = max((tmp_path / "killed").glob("step-*"), key=lambda path: path.name)
    assert load_file(newest / "classifier.safetensors")["classifier"].any()
    rest, got = train(tmp_path / "killed", recipe, items)
    assert rest[0]["step"] == 5
    assert rest[-1]["loss"] == whole[-1]["loss"]
    assert set(got) == set(wanted)
    assert "head.classifier" in got
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)


def test_a_damaged_head_costs_the_steps_since_the_checkpoint_before(tmp_path, recipe, items):
    whole, wanted = train(tmp_path, recipe, items)
    newest = max(tmp_path.glob("step-*"), key=lambda path: int(path.name.partition("-")[2]))
    data = bytearray((newest / "classifier.safetensors").read_bytes())
    data[-1] ^= 1
    (newest / "classifier.safetensors").write_bytes(data)
    again, got = train(tmp_path, recipe, items)
    assert 0 < len(again) < len(whole)
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)


def test_a_head_is_read_back_as_it_was_written(tmp_path):
    head = Head([TOPIC, TAGS], 6)
    head.classifier.data = torch.randn(5, 6)
    save_head(head, tmp_path)
    again = load_head(tmp_path)
    assert again.targets == [TOPIC, TAGS]
    assert torch.equal(again.classifier, head.classifier)
    states = torch.randn(2, 6)
    topic, tags = again.probabilities(states)
    scores = 16 * states / states.norm(dim=1, keepdim=True) @ head.classifier.T
    torch.testing.assert_close(topic, scores[:, :3].softmax(1))
    torch.testing.assert_close(tags, scores[:, 3:].sigmoid())


@pytest.mark.parametrize("damage", ["no head", "no targets", "another shape", "no JSON"])
def test_a_head_that_cannot_be_read_is_refused(tmp_path, damage):
    save_head(Head([TOPIC], 6), tmp_path)
    config = tmp_path / "classifier.json"
    if damage == "no head":
        (tmp_path / "classifier.safetensors").unlink()
    elif damage == "no targets":
        config.write_text("{}")
    elif damage == "another shape":
        config.write_text(json.dumps({"targets": [TAGS.model_dump(mode="json")]}))
    else:
        config.write_text("{")
    with pytest.raises(UsageError, match=r"no classifier here|cannot be read"):
        load_head(tmp_path)
