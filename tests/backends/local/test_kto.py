import contextlib
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from trl import KTOConfig, KTOTrainer

from finetune.backends.local import kto
from finetune.backends.local.attention import attend_within
from finetune.backends.local.lora import add_adapter
from finetune.backends.local.quiet import quiet
from finetune.backends.local.schedule import Step
from finetune.errors import DataError
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
GOOD = [True, False, True, True, False, True]


def make_ratings(rows):
    return [
        kto.Rated(make_answer(row["prompt_ids"], row["chosen_ids"]), good)
        for row, good in zip(rows, GOOD, strict=True)
    ]


@pytest.fixture
def rows():
    return make_rows(6)


class Trainer(KTOTrainer):
    """TRL's, on finished ids."""

    def _prepare_dataset(self, dataset, *_, **__):
        return dataset


@pytest.mark.parametrize("make_adapted", [make_adapted, make_mixture])
def test_loss_and_gradients_are_those_of_trl(tmp_path, rows, make_adapted):
    ours = make_adapted()
    items = kto.refer(ours, make_ratings(rows))
    disturb(ours)
    task = kto.make_task(BETA)
    with attend_within(ours):
        common = task.survey(ours, items)
        total, figures = task.loss(ours, task.collate(items) | common)
        loss = total / len(items)
        loss.backward()

    finished = []
    for row, item in zip(rows, items, strict=True):
        (other,) = item.other.samples
        assert list(other.input_ids[: len(row["prompt_ids"])]) == row["prompt_ids"]
        assert list(other.targets) in [one["chosen_ids"] for one in rows if one is not row]
        finished.append(
            {
                "prompt_ids": row["prompt_ids"],
                "completion_ids": row["chosen_ids"],
                "KL_completion_ids": list(other.targets),
                "label": item.good,
            }
        )
    theirs = make_adapted()
    words = Tokenizer(models.WordLevel({"<pad>": 0}, unk_token="<pad>"))
    with quiet():
        trainer = Trainer(
            model=theirs,
            args=KTOConfig(
                output_dir=str(tmp_path),
                beta=BETA,
                undesirable_weight=2.0,  # four good ones, two that are not
                bf16=False,
                gradient_checkpointing=False,
                max_length=None,
                per_device_train_batch_size=len(rows),
                train_sampling_strategy="sequential",
                report_to="none",
                disable_tqdm=True,
                use_cpu=True,
            ),
            train_dataset=Dataset.from_list(finished),
            processing_class=PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>"),
        )
        disturb(theirs)
        wanted = trainer.compute_loss(theirs, trainer.data_collator(finished))
        wanted.backward()
    assert abs(loss.item() - wanted.item()) < 1e-5
    metrics = {name: values[-1] for name, values in trainer._metrics["train"].items()}
    logged = {name: value.item() / len(items) for name, value in figures.items()}
    assert logged["kl"] == pytest.approx(metrics["kl"], abs=1e-5)
    assert logged["reward_chosen"] == pytest.approx(metrics["rewards/chosen"], abs=1e-5)
    assert logged["reward_rejected"] == pytest.approx(metrics["rewards/rejected"], abs=1e-5)
    if make_adapted is make_mixture:
        assert logged["router_loss"] == pytest.approx(metrics["aux_loss"], rel=1e-5)
    assert_near(gradients(ours), gradients(theirs))


def train(folder, rows, *, stop=None):
    """Train all ratings in each of six steps; return the metrics and the trained weights."""
    recipe = make_recipe(lora={"rank": 4, "dropout": 0.0})
    model = add_adapter(make_model(), recipe.local.lora)
    items = kto.refer(model, make_ratings(rows))
    tokens = sum(item.tokens for item in items)
    steps = [Step([list(range(6))], tokens, n + 1.0) for n in range(6)]
    lines = []

    def metric(**values):
        lines.append(values)
        if values["step"] == stop:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        told = {"validation": items[:3], "metric": metric}
        go_on(kto.make_task(BETA), model, items, recipe, steps, folder=folder, **told)
    return lines, {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def test_good_answers_gain_and_the_others_lose(tmp_path, rows):
    lines, _ = train(tmp_path, rows)
    assert lines[0]["loss"] == pytest.approx(0.5 * (4 * 1 + 2 * 2) / 6, abs=1e-3)
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.1
    assert lines[-1]["reward_chosen"] > 0.1 > -0.1 > lines[-1]["reward_rejected"]
    assert lines[-1]["kl"] >= 0
    assert lines[-1]["validation_loss"] < lines[1]["validation_loss"]


def test_a_killed_run_goes_on_exactly(tmp_path, rows):
    whole, wanted = train(tmp_path / "whole", rows)
    train(tmp_path / "killed", rows, stop=3)
    rest, got = train(tmp_path / "killed", rows)
    assert rest[0]["step"] == 3
    assert rest[-1]["loss"] == whole[-1]["loss"]
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)


def rating(text, *, label):
    answer = {"role": "assistant", "content": text}
    question = {"role": "user", "content": "Well?"}
    return {"prompt": [question], "completion": [answer], "label": label}


def write(path, rows):
    from finetune import records

    lines = [records.encode(records.from_object("rating", row)) for row in rows]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return SimpleNamespace(path=path, weight=1.0, records=len(rows))


@pytest.mark.parametrize(("label", "word"), [(True, "good"), (False, "not good")])
def test_ratings_that_are_all_the_same_are_refused(tmp_path, label, word):
    one = write(tmp_path / "a.jsonl", [rating("Yes.", label=label)] * 2)
    other = write(tmp_path / "b.jsonl", [rating("No.", label=not label)])
    kto.check_ratings(SimpleNamespace(folder=tmp_path, train=[one, other]))
    with pytest.raises(DataError, match=f"all answers are rated {word}  ") as caught:
        kto.check_ratings(SimpleNamespace(folder=tmp_path, train=[one]))
    assert caught.value.exit_code == 3
