import json
import re
import shutil
from pathlib import Path

import pytest

from finetune import pipeline
from finetune.backends.local.device import Device
from finetune.catalog import find_model
from finetune.corpus import Dataset
from finetune.errors import DataError, RecipeError, UsageError
from finetune.planning import make_plan
from finetune.recipe import Recipe, load_recipe
from finetune.records import decode
from finetune.tokens import load_tokenizer

RECIPES = Path(__file__).parents[2] / "recipes"
GPU = Device(kind="cuda", name="a GPU", total=24 * 10**9, free=24 * 10**9, bf16=True)


def chat(*texts, system=None):
    messages = [{"role": "system", "content": system}] if system else []
    for index, text in enumerate(texts):
        messages.append({"role": ("user", "assistant")[index % 2], "content": text})
    return {"messages": messages}


ROWS = [chat(f"Question number {n}?", f"The answer is {n}.") for n in range(40)]


@pytest.fixture
def plan(tmp_path):
    """Prepare rows for real, and plan a recipe on them."""

    def make(rows=ROWS, *, model="mistral-nemo", device=GPU, speed=None, environment=(), **recipe):
        source = tmp_path / "chats.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        training = {"seq_len": 1024, **recipe.pop("training", {})}
        data = {"train": [{"path": str(source)}], "validation": 0.0, **recipe.pop("data", {})}
        made = Recipe.model_validate({"model": model, "data": data, "training": training, **recipe})
        dataset = pipeline.prepare(made, folder=tmp_path / "datasets")
        return make_plan(made, dataset, device=device, speed=speed, environment=dict(environment))

    return make


def test_tokens_are_those_of_the_models_tokenizer(plan):
    made = plan()
    tokenizer = load_tokenizer("v3-tekken")
    samples = [
        sample
        for row in ROWS
        for sample in tokenizer.encode(decode("chat", json.dumps(row).encode()))
    ]
    assert made.exact
    assert made.records == made.samples == 40
    assert made.tokens == sum(map(len, samples))
    assert made.trained_tokens == sum(sample.count_trained() for sample in samples)
    assert made.longest == max(map(len, samples))
    assert made.expansion_tokens == 0


def test_steps_and_epochs_are_those_of_the_schedule(plan):
    made = plan(training={"epochs": 2}, local={"batch_tokens": 200})
    assert made.epochs == 2
    assert made.tokens_seen == 2 * made.tokens
    assert made.steps >= made.tokens_seen / 200
    counted = plan(training={"steps": 3}, local={"batch_tokens": 200})
    assert counted.steps == 3
    assert counted.tokens_seen <= 600


@pytest.mark.parametrize(("weight", "share"), [(2.0, 2), (0.5, 0.5)])
def test_the_weight_of_the_only_source_counts_as_it_does_in_training(plan, tmp_path, weight, share):
    source = {"path": str(tmp_path / "chats.jsonl"), "weight": weight}
    made = plan(training={"epochs": 2}, data={"train": [source]})
    assert made.tokens_seen == 2 * share * plan(training={"epochs": 1}).tokens


def test_turns_trained_one_by_one_are_counted_with_what_they_add(plan):
    rows = [chat("a", "b", "c", "d", system="Be brief.")]
    made = plan(rows)
    assert made.samples == 2
    assert 0 < made.expansion_tokens < made.tokens


def test_a_tokenizer_that_is_not_here_is_stood_in_for_and_said_so(plan):
    made = plan([chat("a", "b", "c", "d", system="Be brief.")], model="ministral-3-8b")
    assert not made.exact
    assert made.samples == 1  # v13 trains a conversation in one pass
    assert any("v13" in note for note in made.notes)


def test_a_model_that_nobody_knows_is_planned_from_bytes(plan):
    made = plan(model="somebody/else")
    assert made.memory is None
    assert not made.exact
    assert made.tokens > 0
    assert made.downloads[0].size_bytes is None
    assert any("guess" in note for note in made.notes)


def test_downloads_name_repository_size_and_token(plan):
    (download,) = plan(model="ministral-8b-2410").downloads
    assert download.what == "mistralai/Ministral-8B-Instruct-2410"
    assert download.size_bytes == 2 * 8_019_808_256
    assert download.gated is True
    assert not download.token_present
    (download,) = plan(model="ministral-8b-2410", environment={"HF_TOKEN": "x"}).downloads
    assert download.token_present


def test_a_local_folder_needs_no_download_and_its_config_wins(plan, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    config = {
        "model_type": "mistral",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 128,
        "vocab_size": 32768,
        "max_position_embeddings": 2048,
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    import mistral_common

    data = Path(mistral_common.__file__).parent / "data"
    shutil.copy(data / "mistral_instruct_tokenizer_240323.model.v3", folder / "tokenizer.model.v3")
    made = plan(model=str(folder))
    assert made.exact
    assert made.downloads == []
    assert made.memory.largest_seq_len == 2048
    with pytest.raises(RecipeError, match=r"training\.seq_len: 4,096 is above .* 2,048 tokens"):
        plan(model=str(folder), training={"seq_len": 4096})


def test_samples_over_seq_len_are_counted_for_each_policy(plan):
    rows = [*ROWS, chat("long " * 300, "x"), chat("long " * 400, "y")]
    refused = plan(rows, training={"seq_len": 100})
    assert refused.problems == [
        "2 samples longer than `training.seq_len` (100 tokens): raise it, or set `data.too_long`"
    ]
    dropped = plan(rows, training={"seq_len": 100}, data={"too_long": "drop"})
    assert dropped.problems == []
    assert dropped.samples == 40
    assert dropped.sources[0].dropped == 2


def test_memory_is_held_against_the_device(plan):
    fits = plan(local={"quantize": "4bit"})
    assert fits.memory.fits
    assert fits.memory.total_bytes == sum(fits.memory.parts.values())
    assert 1024 < fits.memory.largest_seq_len <= find_model("mistral-nemo").context
    assert not plan().memory.fits  # 24.5 GB of weights in bfloat16


def test_time_is_told_only_where_a_speed_was_measured(plan):
    assert plan().seconds is None
    made = plan(speed=100.0)
    assert made.seconds == made.tokens_seen / 100


def test_on_the_platform_files_leave_and_the_cost_is_unknown(plan):
    made = plan(backend="platform", data={"validation": 0.2})
    assert made.memory is None
    assert made.steps is None
    assert made.downloads == []
    names = {upload.file for upload in made.uploads}
    assert "validation.jsonl" in names
    assert all(upload.host == "api.mistral.ai" and upload.size_bytes for upload in made.uploads)
    assert made.cost.model == "open-mistral-nemo"
    assert not made.cost.known
    assert made.cost.minimum_usd == 4
    assert any("not published" in fact for fact in made.cost.facts)
    assert any("5 %" in warning for warning in made.cost.warnings)


def test_on_the_platform_only_as_much_validation_leaves_as_it_takes(plan):
    rows = [chat(f"Question {n}?", f"The answer is {n}.") for n in range(400)]
    made = plan(rows, backend="platform", data={"validation": 0.2})
    *train, validation = made.uploads
    trained = sum(upload.size_bytes for upload in train)
    assert 0.04 * trained < validation.size_bytes <= 0.05 * trained
    (warning,) = made.cost.warnings
    assert re.match(r"validation data: \d+ records of \d+ would be uploaded, those of", warning)


def test_platform_steps_are_epochs_times_tokens_over_tokens_a_step(plan):
    made = plan(backend="platform", training={"epochs": 1000})
    for step_tokens, steps in made.cost.steps.items():
        assert steps == round(1000 * made.tokens / step_tokens)


def test_a_model_without_a_name_there_is_refused(plan):
    with pytest.raises(RecipeError, match="La Plateforme has no name"):
        plan(model="ministral-3-8b", backend="platform")
    named = plan(model="ministral-3-8b", backend="platform", platform={"model": "ministral-x"})
    assert named.cost.model == "ministral-x"


@pytest.mark.parametrize(
    ("model", "local", "said"),
    [
        ("mixtral-8x7b", {}, "memory: 2 GPUs of 80 GB would hold it, weights spread over them"),
        ("mistral-nemo", {}, "memory: 1 GPU of 80 GB would hold it (an estimate)"),
        ("mistral-nemo", {"full": True}, "memory: 4 GPUs of 80 GB would hold it"),
        # Experts are fused tensors, which bitsandbytes does not quantize.
        ("mistral-small-4", {"quantize": "4bit"}, "memory: 4 GPUs of 80 GB would hold it"),
        ("mistral-medium-3.5", {}, "128 billion weights alone take 256.0 GB: at least 4 GPUs"),
        ("mistral-medium-3.5", {"quantize": "4bit"}, "at least 1 GPU of 80 GB"),
    ],
)
def test_what_does_not_fit_says_how_many_gpus_it_needs(plan, model, local, said):
    made = plan(model=model, local=local)
    assert any(said in note for note in made.notes), made.notes


def test_models_that_cannot_be_tuned_are_refused_by_name(plan, tmp_path):
    with pytest.raises(UsageError, match="mistral-large-3: cannot be tuned on this machine"):
        plan(model="mistral-large-3")
    text = {"model_type": "mistral_large4_text", "hidden_size": 64}
    config = {"model_type": "mistral_large4", "text_config": text}
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="chooses by an index which tokens it reads"):
        plan(model=str(tmp_path / "large"))


def test_fp8_and_unknown_models_are_refused_with_the_next_step(plan):
    with pytest.raises(UsageError, match="8-bit floats") as error:
        plan(model="ministral-3-8b-fp8")
    assert "ministral-3-8b" in error.value.hint
    with pytest.raises(UsageError, match="no such folder") as error:
        plan(model="mistral-nemmo")
    assert error.value.hint == "did you mean `mistral-nemo`?"


def test_nothing_left_to_train_is_an_error(plan):
    rows = [chat("long " * 300, "x")]
    with pytest.raises(DataError, match="no sample is left"):
        plan(rows, training={"seq_len": 100}, data={"too_long": "drop"})


@pytest.mark.parametrize("recipe", ["quickstart", "ministral-3-8b-24gb", "laplateforme"])
def test_shipped_recipes_plan_without_a_problem(tmp_path, recipe):
    loaded = load_recipe(RECIPES / f"{recipe}.yaml")
    dataset = pipeline.prepare(loaded, folder=tmp_path)
    made = make_plan(loaded, Dataset.load(dataset.folder), device=GPU, environment={})
    assert made.problems == []
    assert made.records > 300
    if made.memory:
        assert made.memory.fits


def test_a_pair_is_one_item_with_the_tokens_of_both_answers(plan, tmp_path):
    rows = [
        {
            "prompt": chat(f"Question number {n}?")["messages"],
            "chosen": [{"role": "assistant", "content": f"It is {n}, I have looked it up."}],
            "rejected": [{"role": "assistant", "content": "No idea."}],
        }
        for n in range(20)
    ]
    samples = [
        load_tokenizer("v3-tekken").encode(decode("preference", json.dumps(row).encode()))
        for row in rows
    ]
    sizes = [sum(map(len, pair)) for pair in samples]
    made = plan(rows, method="dpo", training={"epochs": 1}, local={"batch_tokens": max(sizes)})
    assert made.records == made.samples == made.steps == 20
    assert made.tokens == made.tokens_seen == sum(sizes)
    assert made.trained_tokens == sum(s.count_trained() for pair in samples for s in pair)
    assert made.longest == max(len(sample) for pair in samples for sample in pair)
    assert made.expansion_tokens == 0
    assert made.memory.micro_batch_tokens >= max(sizes)
    limit = {"training": {"seq_len": 100}, "method": "dpo"}
    rows[0]["chosen"][0]["content"] *= 20
    assert plan(rows, **limit).problems
    dropped = plan(rows, data={"too_long": "drop"}, **limit)
    assert (dropped.samples, dropped.records) == (19, 20)
    assert "1 sample over `training.seq_len` left out" in dropped.notes
