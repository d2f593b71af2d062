"""All weights trained, on a tiny model."""

import json

import pytest
import torch

from finetune import load_recipe, pipeline
from finetune.backends.local.chat import Chat
from finetune.backends.local.full import read_numbers, save_model, unfreeze
from finetune.backends.local.lora import count_trainable
from finetune.backends.local.model import load_model
from finetune.backends.local.sft import TASK
from finetune.errors import RunError, UsageError
from finetune.export import export
from tests.backends.local.conftest import go_on, make_mixtral, make_model, make_recipe
from tests.export.conftest import make_base


class Stop(Exception):
    """Stands for a kill."""


def train(folder, samples, *, make=make_model, dtype="float32", stop=None):
    recipe = make_recipe(full=True)
    model, losses = unfreeze(make(), dtype), []

    def metric(**values):
        losses.append(values["loss"])
        if values["step"] == stop:
            raise Stop

    try:
        go_on(TASK, model, samples, recipe, folder=folder, metric=metric)
    except Stop:
        return losses, None
    return losses, {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize(
    "make",
    [
        make_model,
        lambda: make_model(tie_word_embeddings=True),
        lambda: make_mixtral(vocab_size=300),
    ],
    ids=["mistral", "tied", "mixtral"],
)
def test_a_killed_run_goes_on_exactly(folder, tmp_path, samples, make):
    losses, whole = train(folder, samples, make=make)
    assert losses[-1] < losses[0]
    train(tmp_path / "killed", samples, make=make, stop=3)
    rest, again = train(tmp_path / "killed", samples, make=make)
    assert rest == losses[2:]
    for name, weight in whole.items():
        assert torch.equal(weight, again[name]), name


def test_a_checkpoint_of_another_model_is_refused(folder, samples):
    train(folder, samples, stop=3)
    with pytest.raises(RunError, match="holds the weights of another model"):
        train(folder, samples, make=lambda: make_model(head_dim=8))


def test_weights_stay_in_float32_while_bfloat16_computes(folder, tmp_path, samples):
    exact, _ = train(folder, samples)
    rounded, weights = train(tmp_path / "half", samples, dtype="bfloat16")
    assert rounded == pytest.approx(exact, rel=0.02)
    assert rounded != exact
    assert {weight.dtype for weight in weights.values()} == {torch.float32}


def test_the_model_is_saved_as_the_base_holds_its_weights(tmp_path):
    base = make_base(tmp_path / "base")
    load_model(base, dtype="bfloat16").save_pretrained(base)
    config = (base / "config.json").read_bytes()
    model = unfreeze(load_model(base, dtype="float32"), "float32")
    with torch.no_grad():
        model.lm_head.weight += 1
    save_model(model, base, tmp_path / "model", "# A card\n")
    assert read_numbers(tmp_path / "model") == torch.bfloat16
    assert (tmp_path / "model" / "config.json").read_bytes() == config
    assert (tmp_path / "model" / "tekken.json").is_file()
    again, before = (load_model(f, dtype="float32") for f in (tmp_path / "model", base))
    difference = again.lm_head.weight - before.lm_head.weight
    torch.testing.assert_close(difference, torch.ones_like(difference), rtol=0, atol=0.01)


def test_groups_are_named_by_module():
    groups = count_trainable(unfreeze(make_mixtral(), "float32"))
    assert groups["experts"] == 2 * (2 * 48 * 32 + 32 * 48)
    assert {"embed_tokens", "lm_head", "gate", "norm", "q_proj", "input_layernorm"} < set(groups)


def test_a_run_in_full_from_data_to_every_form(tmp_path):
    base = make_base(tmp_path / "base")
    (tmp_path / "sums.jsonl").write_text(
        "".join(
            json.dumps({"question": f"How much is {n} and {n}?", "answer": str(2 * n)}) + "\n"
            for n in range(20)
        )
    )
    (tmp_path / "sums.yaml").write_text(
        f"model: {base}\n"
        "data: {train: [{path: sums.jsonl, columns: {user: question, assistant: answer}}],"
        " validation: 0.2}\n"
        "training: {steps: 6, learning_rate: 1e-2, seq_len: 128}\n"
        "evaluation: {max_new_tokens: 4, forgetting: false}\n"
        "local: {full: true, dtype: float32, batch_tokens: 300}\n"
    )
    recipe = load_recipe(tmp_path / "sums.yaml")
    plan = pipeline.plan(recipe, folder=tmp_path / "runs", datasets=tmp_path / "datasets")
    assert set(plan.memory.trainable) == {"decoder"}
    run = pipeline.run(recipe, folder=tmp_path / "runs", datasets=tmp_path / "datasets")

    assert (run.tuned, run.state["tuned_model"]) == (run.whole, "model")
    assert not run.adapter.exists()
    assert sum(plan.memory.trainable.values()) == sum(
        p.numel() for p in load_model(base).parameters()
    )
    measures = run.evaluation()
    assert measures["tuned"]["loss"]["value"] < measures["base"]["loss"]["value"] - 0.1
    assert "All weights of" in (run.whole / "README.md").read_text()
    Chat(recipe, run.tuned, max_new_tokens=3).ask("How much is 3 and 3?")
    for form in ("merged", "consolidated"):
        assert export(run, tmp_path / form, to=form)["agreement"] == 1.0
    card = (tmp_path / "merged" / "README.md").read_text()
    assert "tuned in full by" in card
    assert "6 × weights × tokens" in card
    for form in ("adapter", "lora", "vllm", "hub"):
        with pytest.raises(UsageError, match="the run trained all weights of its model"):
            export(run, tmp_path / form, to=form)
