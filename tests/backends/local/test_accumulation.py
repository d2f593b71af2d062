"""A step of eight micro-batches of one item is the step of one micro-batch of eight."""

from array import array
from contextlib import contextmanager

import pytest
from torch.optim.optimizer import register_optimizer_step_pre_hook

from finetune.backends.local import classifier, dpo, kto, sft
from finetune.backends.local.samples import pack
from finetune.backends.local.schedule import Step
from finetune.recipe.tree import ClassifierTarget
from tests.backends.local.conftest import assert_near, go_on, make_model, make_recipe, make_samples
from tests.backends.local.preferences import disturb, make_answer, make_rows

ITEMS, STEPS = 8, 2
TARGETS = [
    ClassifierTarget(name="topic", labels=["a", "b", "c"], loss_function="single_class"),
    ClassifierTarget(name="tags", labels=["x", "y"], weight=0.5, loss_function="multi_class"),
]


def make_chats(_model):
    return [pack(sample) for sample in make_samples(ITEMS, weighted=True)]


def make_documents(_model):
    samples = make_samples(ITEMS)
    for sample in samples:
        sample.labels = list(sample.input_ids)
    return [pack(sample) for sample in samples]


def make_labelled(_model):
    labels = [((0,), (0,)), ((2,), ()), (None, (0, 1)), ((1,), None)] * 2
    texts = [array("i", sample.input_ids) for sample in make_samples(ITEMS)]
    return [classifier.Labelled(ids, found) for ids, found in zip(texts, labels, strict=True)]


def make_pairs(model):
    names = ("chosen_ids", "rejected_ids")
    rows = make_rows(ITEMS)
    pairs = [[make_answer(row["prompt_ids"], row[name]) for name in names] for row in rows]
    return dpo.refer(model, [dpo.Pair(*pair) for pair in pairs])


def make_ratings(model):
    good = [True, False, True, True, False, True, True, False]
    answers = [make_answer(row["prompt_ids"], row["chosen_ids"]) for row in make_rows(ITEMS)]
    return kto.refer(model, [kto.Rated(*pair) for pair in zip(answers, good, strict=True)])


METHODS = {
    "sft": (sft.TASK, make_chats),
    "pretrain": (sft.TASK, make_documents),
    "classifier": (classifier.TASK, make_labelled),
    "dpo": (dpo.make_task(0.3), make_pairs),
    "kto": (kto.make_task(0.3), make_ratings),
}


@contextmanager
def watched():
    """Give the gradients that the optimizer gets in each step."""
    found = []

    def note(optimizer, *_):
        groups = optimizer.param_groups
        gradients = [p.grad.clone() for group in groups for p in group["params"]]
        found.append(dict(enumerate(gradients)))

    handle = register_optimizer_step_pre_hook(note)
    yield found
    handle.remove()


def train(folder, method, groups):
    """Train the same items in each step; return losses, gradients, and how the weights moved."""
    task, make_items = METHODS[method]
    recipe = make_recipe(lora={"rank": 4, "dropout": 0.0}, save_every=STEPS)
    training = {"learning_rate": 1e-4, "classifier_targets": TARGETS}
    recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update=training)})
    model = task.prepare(make_model(initializer_range=0.3), recipe)
    items = make_items(model)
    disturb(model)  # at the start, half of the gradients are zero
    before = trained(model)
    tokens = sum(item.tokens for item in items)
    steps = [Step(groups, tokens, number + 1.0) for number in range(STEPS)]
    lines = []
    with watched() as slopes:
        go_on(task, model, items, recipe, steps, folder=folder, metric=lambda **m: lines.append(m))
    moved = {name: after - before[name] for name, after in trained(model).items()}
    return [line["loss"] for line in lines], slopes, moved


def trained(model):
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("method", METHODS)
def test_one_by_one_is_all_at_once(tmp_path, method):
    losses, slopes, moved = train(tmp_path / "one", method, [[n] for n in range(ITEMS)])
    whole, wanted, way = train(tmp_path / "whole", method, [list(range(ITEMS))])
    assert len(losses) == len(slopes) == STEPS
    assert losses == pytest.approx(whole, rel=1e-5)
    for one, other in zip(slopes, wanted, strict=True):
        assert_near(one, other)
    for name, change in moved.items():
        assert (change - way[name]).norm() <= 1e-4 * way[name].norm(), name
