import pytest
import torch

from finetune.backends.local.attention import register
from finetune.backends.local.lora import add_adapter
from finetune.backends.local.loss import CHUNK, head_loss, packed_loss, routed_loss
from finetune.backends.local.samples import collate, pack
from finetune.backends.local.task import count_items
from finetune.recipe.tree import Lora
from tests.backends.local.conftest import (
    VOCABULARY,
    assert_near,
    make_mixtral,
    make_model,
    make_samples,
)


def reference(model, samples):
    """Each sample alone, full logits, float64 sum: what the packed loss must be."""
    model.set_attn_implementation("eager")
    total, items = 0.0, 0.0
    for sample in samples:
        logits = model(input_ids=torch.tensor([sample.input_ids])).logits[0, :-1].double()
        labels = torch.tensor(sample.labels[1:])
        losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        weights = torch.tensor((sample.weights or [1.0] * len(sample.labels))[1:])
        weights = weights.double() * (labels != -100)
        total, items = total + (losses * weights).sum(), items + weights.sum().item()
    return total, items


def gradients(model):
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("window", [None, 16])
@pytest.mark.parametrize("tied", [False, True])
def test_a_packed_row_is_its_samples_one_by_one(weighted, window, tied):
    model = make_model(sliding_window=window, tie_word_embeddings=tied)
    samples = make_samples(8, weighted=weighted)
    expected, items = reference(model, samples)
    expected.backward()
    wanted = gradients(model)

    model.set_attn_implementation(register())
    packed = [pack(sample) for sample in samples]
    loss = packed_loss(model, collate(packed))
    loss.backward()
    assert count_items(packed) == pytest.approx(items)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert_near(gradients(model), wanted)


def test_samples_do_not_see_each_other():
    model = make_model()
    model.set_attn_implementation(register())
    one, two, other = (pack(sample) for sample in make_samples(3))
    first = packed_loss(model, collate([one, two])) - packed_loss(model, collate([one]))
    second = packed_loss(model, collate([other, two])) - packed_loss(model, collate([other]))
    assert first.item() == pytest.approx(second.item(), rel=1e-5)


@pytest.mark.parametrize("count", [1, CHUNK, CHUNK + 1, 3 * CHUNK - 1])
def test_chunks_add_up(count):
    torch.manual_seed(1)
    hidden = torch.randn(count, 16, requires_grad=True)
    head, targets = torch.randn(50, 16), torch.randint(50, (count,))
    weights = torch.rand(count)
    (head_loss(hidden, head, targets, weights) / 7).backward()
    got, hidden.grad = hidden.grad, None
    losses = torch.nn.functional.cross_entropy(
        (hidden.double() @ head.double().T), targets, reduction="none"
    )
    (losses @ weights.double() / 7).backward()
    assert_near({"hidden": got}, {"hidden": hidden.grad})


def test_extreme_logits_stay_finite():
    hidden = torch.tensor([[200.0], [-200.0]], requires_grad=True)
    loss = head_loss(hidden, torch.tensor([[1.0], [-1.0]]), torch.tensor([0, 0]))
    loss.backward()
    assert loss.item() == pytest.approx(400)
    assert torch.isfinite(hidden.grad).all()


def test_the_first_token_is_never_a_target():
    (sample,) = make_samples(1)
    sample.labels = list(sample.input_ids)
    packed = pack(sample)
    assert list(packed.targets) == sample.input_ids[1:]
    assert packed.items == len(sample.input_ids) - 1


def test_memory_does_not_hold_all_logits():
    seen = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, _types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                seen.append(out.numel())
            return out

    hidden = torch.randn(4 * CHUNK, 8, requires_grad=True)
    with Watch():
        head_loss(hidden, torch.randn(1000, 8), torch.randint(1000, (4 * CHUNK,))).backward()
    assert CHUNK * 1000 in seen
    assert max(seen) == CHUNK * 1000


def make_mixture():
    model = make_mixtral(vocab_size=VOCABULARY, num_local_experts=4, router_aux_loss_coef=0.1)
    return add_adapter(model, Lora(rank=3, experts=True)).train()


def test_the_router_loss_is_that_of_the_model_with_its_own_coefficient():
    model = make_mixture()
    sample = make_samples(1)[0]
    ids, labels = (torch.tensor([values]) for values in (sample.input_ids, sample.labels))
    theirs = model(input_ids=ids, labels=labels)
    model.set_attn_implementation(register())
    packed = [pack(sample)]
    total, figures = routed_loss(model, collate(packed))
    items = count_items(packed)
    assert total.item() / items == pytest.approx(theirs.loss.item(), rel=1e-5)
    assert figures["router_loss"].item() / items == pytest.approx(theirs.aux_loss.item(), rel=1e-5)
    assert theirs.aux_loss.item() > 1  # 1 would be: all experts alike

    # a measure of answers knows nothing of it
    total, figures = routed_loss(model.eval(), collate(packed))
    assert not figures
    assert total.item() == pytest.approx(packed_loss(model, collate(packed)).item())


def test_every_expert_receives_gradients():
    model = make_mixture()
    model.set_attn_implementation(register())
    routed_loss(model, collate([pack(sample) for sample in make_samples(8)]))[0].backward()
    found = 0
    for name, parameter in model.named_parameters():
        if "experts" in name and "lora_B" in name:  # A's gradient is zero while B is
            by_expert = parameter.grad.reshape(len(parameter), 3, 4).abs().amax(dim=(0, 1))
            assert by_expert.min() > 0, name
            found += 1
    assert found == 2
