import random

import pytest

from finetune.backends.local.generate import generate
from finetune.backends.local.model import load_adapter, load_model
from finetune.errors import TrainingError


@pytest.fixture(scope="module")
def tuned(tiny_base, tiny_adapter):
    return load_adapter(load_model(tiny_base, dtype="float32"), tiny_adapter)


@pytest.fixture(scope="module")
def prompts():
    dice = random.Random(3)
    return [[1, *dice.choices(range(20, 64), k=dice.randrange(1, 40))] for _ in range(24)]


def one_by_one(model, prompt, *, eos_id, limit):
    """Greedy generation without cache, batch or mask."""
    import torch

    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(limit):
            best = model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax().item()
            if best == eos_id:
                break
            ids.append(best)
    return ids[len(prompt) :]


@pytest.mark.parametrize("batch_tokens", [1, 100, 10_000])
def test_batches_answer_as_single_prompts_do(tuned, prompts, batch_tokens):
    first = generate(tuned, prompts, eos_id=-1, pad_id=11, max_new_tokens=8)
    eos_id = max(range(64), key=lambda token: sum(token in answer for answer in first))
    expected = [one_by_one(tuned, prompt, eos_id=eos_id, limit=8) for prompt in prompts]
    assert len({len(answer) for answer in expected}) > 2, "rows end at different times"
    told = []
    answers = generate(
        tuned,
        prompts,
        eos_id=eos_id,
        pad_id=11,
        max_new_tokens=8,
        batch_tokens=batch_tokens,
        progress=lambda stage, done, total: told.append((stage, done, total)),
    )
    assert answers == expected
    assert told[-1] == ("generate", 24, 24)


def test_an_answer_ends_with_what_the_model_can_see(tuned):
    prompts = [[1, *range(20, 60)] * 6, [1, 20, 30], [1, *range(20, 60)] * 7]  # of 256 tokens
    answers = generate(tuned, prompts, eos_id=-1, pad_id=11, max_new_tokens=10**9)
    assert [len(answer) for answer in answers] == [10, 253, 1]
    assert answers[:1] == generate(tuned, prompts[:1], eos_id=-1, pad_id=11, max_new_tokens=10)


def test_the_base_answers_when_the_adapter_is_off(tuned, prompts, tiny_base):
    base = load_model(tiny_base, dtype="float32")
    expected = generate(base, prompts, eos_id=2, pad_id=11, max_new_tokens=6)
    with tuned.disable_adapter():
        assert generate(tuned, prompts, eos_id=2, pad_id=11, max_new_tokens=6) == expected
    assert generate(tuned, prompts, eos_id=2, pad_id=11, max_new_tokens=6) != expected


def short_of_memory(model, most):
    """The model on a device that has the memory for so many rows and no more."""
    import torch

    sizes = []

    class Short(torch.nn.Module):
        config = model.config

        def get_input_embeddings(self):
            return model.get_input_embeddings()

        def forward(self, **given):
            sizes.append(len(given["input_ids"]))
            if sizes[-1] > most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return model(**given)

    return Short(), sizes


def test_without_memory_for_a_batch_smaller_ones_are_made(tuned, prompts):
    expected = generate(tuned, prompts, eos_id=-1, pad_id=11, max_new_tokens=4)
    model, sizes = short_of_memory(tuned, 5)
    assert generate(model, prompts, eos_id=-1, pad_id=11, max_new_tokens=4) == expected
    assert [size for size in sizes if size > 5][:3] == [24, 12, 6]


def test_without_memory_for_one_prompt_it_says_so(tuned, prompts):
    model, _ = short_of_memory(tuned, 0)
    with pytest.raises(TrainingError, match="do not fit into the device's memory"):
        generate(model, prompts, eos_id=-1, pad_id=11, max_new_tokens=4)


def test_no_prompts_no_answers(tuned):
    assert generate(tuned, [], eos_id=2, pad_id=11) == []


@pytest.mark.heavy
def test_the_embedded_model_answers_in_bfloat16(embedded_model):
    from finetune.tokens import load_tokenizer

    tokenizer = load_tokenizer(embedded_model)
    prompts = [
        [tokenizer.bos_id, *tokenizer.text_ids(text)]
        for text in ("The capital of France is", "One, two, three, four,")
    ]
    answers = generate(
        load_model(embedded_model, dtype="bfloat16"),
        prompts,
        eos_id=tokenizer.eos_id,
        pad_id=tokenizer.pad_id,
        max_new_tokens=3,
    )
    assert tokenizer.decode(answers[0]).startswith(" Paris")
    assert tokenizer.decode(answers[1]).startswith(" five")


@pytest.mark.heavy
def test_the_embedded_model_answers_and_scores_alike_alone_and_together(embedded_model):
    from finetune.backends.local.score import score
    from finetune.tokens import load_tokenizer

    tokenizer = load_tokenizer(embedded_model)
    model = load_model(embedded_model, dtype="float32")
    texts = (
        "The capital of France is",
        "One, two, three, four,",
        "Dear customer, thank you for your letter of last week. We are sorry to hear that your",
        "def add(a, b):",
    )
    prompts = [[tokenizer.bos_id, *tokenizer.text_ids(text)] for text in texts]
    ends = {"eos_id": tokenizer.eos_id, "pad_id": tokenizer.pad_id, "max_new_tokens": 8}
    assert generate(model, prompts, **ends) == generate(model, prompts, batch_tokens=1, **ends)
    samples = [tokenizer.encode_text(text) for text in texts]
    alone = [score(model, [sample])[0] for sample in samples]
    for (loss, count), (other, same) in zip(score(model, samples), alone, strict=True):
        assert count == same
        assert loss / count == pytest.approx(other / same, abs=1e-5)
