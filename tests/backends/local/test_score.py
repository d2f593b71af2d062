from __future__ import annotations

import pytest

from finetune.backends.local.quiet import quiet
from finetune.backends.local.score import score
from finetune.tokens import Sample


@pytest.fixture(scope="module")
def model():
    with quiet():
        import torch
        from transformers import MistralConfig, MistralForCausalLM

        torch.manual_seed(0)
        return MistralForCausalLM(
            MistralConfig(
                vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                num_attention_heads=2, num_key_value_heads=1, initializer_range=0.3,
            )
        )  # fmt: skip


def plain(model, sample):
    """The same from whole logits, in float64, position by position."""
    import torch

    with torch.no_grad():
        logits = model.eval()(torch.tensor([sample.input_ids])).logits[0].double()
    total = count = 0.0
    for place, label in enumerate(sample.labels):
        if place and label != -100:
            weight = 1.0 if sample.weights is None else sample.weights[place]
            total -= weight * logits[place - 1].log_softmax(0)[label].item()
            count += weight
    return total, count


def sample(length, trained, weights=None):
    ids = [(7 * place + length) % 300 for place in range(length)]
    labels = [token if place in trained else -100 for place, token in enumerate(ids)]
    return Sample(ids, labels, weights)


def test_scores_are_those_of_whole_logits(model):
    samples = [
        sample(9, {5, 6, 7}),
        sample(4, {0, 3}),  # nothing comes before the first token: it is no target
        sample(1400, set(range(100, 1400))),  # more than one chunk
        sample(6, {2, 3, 5}, [0, 0, 0.5, 1.0, 0, 0.25]),
        sample(3, set()),
    ]
    told = []
    scores = score(model, samples, progress=lambda *facts: told.append(facts[1]))
    for (loss, count), one in zip(scores, samples, strict=True):
        assert (loss, count) == pytest.approx(plain(model, one), rel=1e-5)
    assert scores[4] == (0.0, 0.0)
    assert scores[3][1] == 1.75
    assert told == [0, 5]


def test_a_model_that_cannot_be_told_the_borders_takes_samples_one_by_one(model):
    class Plain(type(model)):
        _supports_attention_backend = False

    with quiet():
        plain_model = Plain(model.config)
    plain_model.load_state_dict(model.state_dict())
    samples = [sample(9, {5, 6, 7}), sample(6, {2, 3}), sample(300, set(range(1, 300)))]
    together, told = score(model, samples), []
    alone = score(plain_model, samples, progress=lambda *facts: told.append(facts[1]))
    assert told == [0, 1, 2, 3]
    for (loss, count), (other, same) in zip(together, alone, strict=True):
        assert count == same
        assert loss / count == pytest.approx(other / same, abs=1e-5)


def test_samples_do_not_fit_one_row(model):
    samples = [sample(1500, {5, 6, 7}), sample(1400, {2, 3}), sample(3000, {9})]
    told = []
    scores = score(model, samples, progress=lambda *facts: told.append(facts[1]))
    assert told == [0, 1, 2, 3]
    assert scores[2] == pytest.approx(plain(model, samples[2]), rel=1e-5)


def test_the_model_attends_as_before(model):
    before = model.config._attn_implementation
    score(model, [sample(4, {2})])
    assert model.config._attn_implementation == before


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_in_its_mode(model, training):
    model.train(training)
    score(model, [sample(4, {2})])
    assert model.training is training
