import contextlib
from pathlib import Path
from types import SimpleNamespace

import mistral_common
import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer

from finetune import records, runs
from finetune.backends import local
from finetune.backends.local import dpo
from finetune.backends.local.attention import attend_within
from finetune.backends.local.lora import add_adapter
from finetune.backends.local.quiet import quiet
from finetune.backends.local.rewards import Answer, measure_log_probs
from finetune.backends.local.schedule import Step
from finetune.recipe import Recipe
from finetune.tokens import load_tokenizer
from tests.backends.local.conftest import assert_near, go_on, make_model, make_recipe
from tests.backends.local.preferences import (
    disturb,
    gradients,
    make_adapted,
    make_answer,
    make_mixture,
    make_rows,
)

BETA = 0.3


def make_pairs(rows):
    return [
        dpo.Pair(
            *(make_answer(row["prompt_ids"], row[name]) for name in ("chosen_ids", "rejected_ids"))
        )
        for row in rows
    ]


@pytest.fixture
def rows():
    return make_rows(6)


class Trainer(DPOTrainer):
    """TRL's, on finished ids."""

    def _prepare_dataset(self, dataset, *_, **__):
        return dataset


def make_trainer(model, rows, folder, **arguments):
    words = Tokenizer(models.WordLevel({"<pad>": 0}, unk_token="<pad>"))
    return Trainer(
        model=model,
        args=DPOConfig(
            output_dir=str(folder),
            beta=BETA,
            bf16=False,
            gradient_checkpointing=False,
            max_length=None,
            per_device_train_batch_size=len(rows),
            train_sampling_strategy="sequential",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            **arguments,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>"),
    )


@pytest.mark.parametrize("make_adapted", [make_adapted, make_mixture])
def test_loss_and_gradients_are_those_of_trl(tmp_path, rows, make_adapted):
    theirs = make_adapted()
    with quiet():
        trainer = make_trainer(theirs, rows, tmp_path)
        disturb(theirs)
        wanted = trainer.compute_loss(theirs, trainer.data_collator(rows))
        wanted.backward()

    ours = make_adapted()
    pairs = dpo.refer(ours, make_pairs(rows))
    disturb(ours)
    task = dpo.make_task(BETA)
    with attend_within(ours):
        total, figures = task.loss(ours, task.collate(pairs))
        loss = total / len(pairs)
        loss.backward()
    assert abs(loss.item() - wanted.item()) < 1e-5
    assert abs(loss.item() - 0.6931) > 1e-2
    logged = {name: value.item() / len(pairs) for name, value in figures.items()}
    metrics = {name: values[-1] for name, values in trainer._metrics["train"].items()}
    assert logged["reward_accuracy"] == pytest.approx(metrics["rewards/accuracies"])
    assert logged["reward_margin"] == pytest.approx(metrics["rewards/margins"], abs=1e-5)
    assert logged["reward_chosen"] == pytest.approx(metrics["rewards/chosen"], abs=1e-5)
    assert logged["reward_rejected"] == pytest.approx(metrics["rewards/rejected"], abs=1e-5)
    if make_adapted is make_mixture:
        assert logged["router_loss"] == pytest.approx(metrics["aux_loss"], rel=1e-5)
    assert_near(gradients(ours), gradients(theirs))


def train(folder, rows, *, stop=None):
    """Train pairs for eight steps of three; return the metrics and the trained weights."""
    recipe = make_recipe(lora={"rank": 4, "dropout": 0.1})
    model = add_adapter(make_model(), recipe.local.lora)
    pairs = dpo.refer(model, make_pairs(rows))
    half = [[0, 2, 4], [1, 3, 5]]
    steps = [
        Step([half[n % 2]], sum(pairs[i].tokens for i in half[n % 2]), (n + 1) / 2)
        for n in range(8)
    ]
    lines = []

    def metric(**values):
        lines.append(values)
        if values["step"] == stop:
            raise KeyboardInterrupt

    task = dpo.make_task(BETA)
    with contextlib.suppress(KeyboardInterrupt):
        told = {"validation": pairs[:2], "metric": metric}
        go_on(task, model, pairs, recipe, steps, folder=folder, **told)
    return lines, {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def test_the_better_answers_gain(tmp_path, rows):
    lines, _ = train(tmp_path, rows)
    assert lines[0]["loss"] == pytest.approx(0.6931, abs=1e-3)
    assert lines[-1]["loss"] < 0.3
    assert lines[-1]["validation_loss"] < lines[1]["validation_loss"]
    assert lines[-1]["reward_accuracy"] == 1
    margin = lines[-1]["reward_chosen"] - lines[-1]["reward_rejected"]
    assert lines[-1]["reward_margin"] == pytest.approx(margin)
    assert margin > 1


@pytest.mark.parametrize("killed_at", [1, 4])
def test_a_killed_run_goes_on_exactly(tmp_path, rows, killed_at):
    whole, wanted = train(tmp_path / "whole", rows)
    train(tmp_path / "killed", rows, stop=killed_at)
    rest, got = train(tmp_path / "killed", rows)
    assert rest[0]["step"] == 1 + (killed_at - 1) // 2 * 2
    assert rest[-1]["loss"] == whole[-1]["loss"]
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)


def test_the_reference_is_the_model_before_training_without_dropout(rows):
    recipe = make_recipe(lora={"rank": 4, "dropout": 0.5})
    model = add_adapter(make_model(), recipe.local.lora).train()
    pairs = dpo.refer(model, make_pairs(rows))
    assert model.training
    base = make_model()
    for row, pair in zip(rows, pairs, strict=True):
        for name, value in zip(("chosen_ids", "rejected_ids"), pair.reference, strict=True):
            ids = torch.tensor([row["prompt_ids"] + row[name]])
            scores = base(ids).logits[0, :-1].log_softmax(-1)
            picked = scores.gather(1, ids[0, 1:, None])[len(row["prompt_ids"]) - 1 :]
            assert value == pytest.approx(picked.sum().item(), abs=1e-3)


def test_an_answer_of_several_samples_is_their_sum():
    rows = make_rows(2)
    parts = [make_answer(row["prompt_ids"], row["chosen_ids"]).samples[0] for row in rows]
    model = make_model()
    apart = measure_log_probs(model, [Answer((part,)) for part in parts])
    (together,) = measure_log_probs(model, [Answer(tuple(parts))])
    assert together == pytest.approx(sum(apart), abs=1e-4)


TOKENIZER = "mistral_instruct_tokenizer_240323.model.v3"


def test_a_run_from_records_to_an_adapter(tmp_path):
    folder = tmp_path / "model"
    make_model(vocab_size=load_tokenizer("v3").vocab_size).save_pretrained(folder)
    data = Path(mistral_common.__file__).parent / "data"
    (folder / "tokenizer.model.v3").write_bytes((data / TOKENIZER).read_bytes())
    lines = [
        records.encode(
            records.from_object(
                "preference",
                {
                    "prompt": [{"role": "user", "content": f"What is {n} and {n}?"}],
                    "chosen": [{"role": "assistant", "content": f"It is {2 * n}."}],
                    "rejected": [{"role": "assistant", "content": "Nobody knows that."}],
                },
            )
        )
        for n in range(8)
    ]
    path = tmp_path / "train-a.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    dataset = SimpleNamespace(
        folder=tmp_path,
        digest="d1",
        train=[SimpleNamespace(path=path, weight=1.0, records=8)],
        validation=path,
    )
    recipe = Recipe.model_validate(
        {
            "model": str(folder),
            "method": "dpo",
            "data": {"train": [{"path": "a.jsonl"}]},
            "training": {"steps": 4, "learning_rate": 1e-2, "seq_len": 100},
            "local": {"batch_tokens": 100, "dtype": "float32", "beta": 0.5},
        }
    )
    run = runs.Run.create(
        tmp_path / "run", recipe, identity="i", dataset=tmp_path, dataset_digest="d1"
    )
    local.train(run, recipe, dataset)
    metrics = run.metrics()
    assert metrics[0]["loss"] == pytest.approx(0.6931, abs=1e-3)
    assert metrics[-1]["validation_loss"] < 0.69
    assert (run.adapter / "adapter_model.safetensors").exists()
    assert "dpo" in (run.adapter / "README.md").read_text()
