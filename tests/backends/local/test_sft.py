from pathlib import Path
from types import SimpleNamespace

import mistral_common
import pytest
from safetensors import safe_open

from finetune import records, runs
from finetune.backends.local import train
from finetune.backends.local.model import load_adapter, load_model
from finetune.errors import DataError, RecipeError, RunError, UsageError
from finetune.recipe import Recipe
from finetune.tokens import load_tokenizer
from tests.backends.local.conftest import make_model

TALK = [
    ("What is the capital of France?", "Paris."),
    ("And of Italy?", "Rome, of course."),
    ("Translate: good morning", "Bonjour !"),
    ("Say something long", "The quick brown fox jumps over the lazy dog, again and again."),
] * 3
TOKENIZER = "mistral_instruct_tokenizer_240323.model.v3"


def write(path, talk):
    lines = []
    for question, answer in talk:
        user = {"role": "user", "content": question}
        messages = [user, {"role": "assistant", "content": answer}]
        lines.append(records.encode(records.from_object("chat", {"messages": messages})))
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


@pytest.fixture
def model(tmp_path):
    """The folder of a tiny model with a real tokenizer."""
    folder = tmp_path / "model"
    make_model(vocab_size=load_tokenizer("v3").vocab_size).save_pretrained(folder)
    data = Path(mistral_common.__file__).parent / "data"
    (folder / "tokenizer.model.v3").write_bytes((data / TOKENIZER).read_bytes())
    return folder


@pytest.fixture
def dataset(tmp_path):
    """What training reads of a dataset."""
    path = write(tmp_path / "train-a.jsonl", TALK)
    return SimpleNamespace(
        folder=tmp_path,
        digest="d1",
        train=[SimpleNamespace(path=path, weight=1.0, records=len(TALK))],
        validation=write(tmp_path / "validation.jsonl", TALK[:2]),
    )


def make_recipe(model, *, data=None, local=None, **training):
    return Recipe.model_validate(
        {
            "name": "capitals",
            "model": str(model),
            "data": {"train": [{"path": "a.jsonl"}]} | (data or {}),
            "training": {"epochs": 2, "learning_rate": 1e-2, "seq_len": 100} | training,
            "local": {"batch_tokens": 100, "dtype": "float32"} | (local or {}),
        }
    )


def make_run(folder, recipe, dataset):
    facts = {"dataset": dataset.folder, "dataset_digest": dataset.digest}
    return runs.Run.create(folder, recipe, identity="i", **facts)


def test_a_run_ends_with_an_adapter_and_its_card(tmp_path, model, dataset):
    recipe = make_recipe(model)
    run = make_run(tmp_path / "run", recipe, dataset)
    seen = []

    def note(stage, *_, **facts):
        seen.append((stage, facts))

    train(run, recipe, dataset, progress=note)
    metrics = run.metrics()
    assert metrics[-1]["epoch"] == 2
    assert metrics[-1]["validation_loss"] < metrics[0]["loss"]
    assert sorted(path.name for path in run.adapter.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    with safe_open(run.adapter / "adapter_model.safetensors", "pt") as file:
        assert len(file.keys()) == 2 * 7 * 2  # layers, linears, A and B
    card = (run.adapter / "README.md").read_text()
    assert "d1" in card
    assert "Paris" not in card
    assert dict(seen)["adapt"]["q_proj"] > 0
    load_adapter(load_model(model, dtype="float32"), run.adapter)


def test_the_same_call_again_changes_nothing(tmp_path, model, dataset):
    recipe = make_recipe(model)
    run = make_run(tmp_path / "run", recipe, dataset)
    train(run, recipe, dataset)
    before = (run.adapter / "adapter_model.safetensors").read_bytes()
    train(run, recipe, dataset)
    assert (run.adapter / "adapter_model.safetensors").read_bytes() == before


def test_a_changed_setting_is_named(tmp_path, model, dataset):
    recipe = make_recipe(model)
    run = make_run(tmp_path / "run", recipe, dataset)
    train(run, recipe, dataset)
    other_seed = make_recipe(model).model_copy(update={"seed": 1})
    for changed, difference in (
        (make_recipe(model, learning_rate=2e-2), "`training.learning_rate` was 0.01, is 0.02"),
        (make_recipe(model, local={"batch_tokens": 90}), "`local.batch_tokens` was 100, is 90"),
        (other_seed, "`seed` was 0, is 1"),
    ):
        with pytest.raises(RunError) as caught:
            train(run, changed, dataset)
        assert caught.value.message.endswith(f"belongs to another run: {difference}")
    train(run, make_recipe(model, local={"keep_checkpoints": 3}), dataset)


def test_changed_data_are_named(tmp_path, model, dataset):
    recipe = make_recipe(model)
    run = make_run(tmp_path / "run", recipe, dataset)
    train(run, recipe, dataset)
    dataset.digest = "d2"
    with pytest.raises(RunError, match="`dataset` was d1, is d2"):
        train(run, recipe, dataset)


def test_another_base_is_named(tmp_path, model, dataset):
    recipe = make_recipe(model)
    run = make_run(tmp_path / "run", recipe, dataset)
    train(run, recipe, dataset)
    weights = model / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(RunError, match="`base` was "):
        train(run, recipe, dataset)


def test_a_record_that_is_too_long_is_named_without_its_text(tmp_path, model, dataset):
    write(dataset.train[0].path, [*TALK, ("Say it", "very secret words " * 60)])
    recipe = make_recipe(model)
    run = make_run(tmp_path / "run", recipe, dataset)
    with pytest.raises(DataError) as caught:
        train(run, recipe, dataset)
    assert caught.value.line == len(TALK) + 1
    assert caught.value.rule == "too-long"
    assert "secret" not in str(caught.value)


def test_nothing_left_to_train(tmp_path, model, dataset):
    write(dataset.train[0].path, [("Say it", "very secret words " * 60)])
    recipe = make_recipe(model, data={"too_long": "drop"})
    run = make_run(tmp_path / "run", recipe, dataset)
    with pytest.raises(DataError, match="nothing to train"):
        train(run, recipe, dataset)


@pytest.mark.parametrize("rows", [300, 70000])
def test_a_tokenizer_that_does_not_match_the_weights(tmp_path, model, dataset, rows):
    make_model(vocab_size=rows, hidden_size=8).save_pretrained(model)
    recipe = make_recipe(model)
    run = make_run(tmp_path / "run", recipe, dataset)
    with pytest.raises(UsageError, match="the tokenizer does not match the weights") as caught:
        train(run, recipe, dataset)
    assert caught.value.exit_code == 2
    assert not run.metrics()


def test_a_target_that_the_model_has_not(tmp_path, model, dataset):
    recipe = make_recipe(model, local={"lora": {"targets": ["q_proj", "c_attn"]}})
    run = make_run(tmp_path / "run", recipe, dataset)
    with pytest.raises(RecipeError, match="`c_attn` names no linear"):
        train(run, recipe, dataset)
