"""Classifiers: how good beside TF-IDF, how fast beside transformers' Trainer.

    pip install scikit-learn                     # the package itself does not need it
    python benchmarks/classifier.py quality      # trains recipes/intents.yaml: some ten minutes
    python benchmarks/classifier.py speed        # some five minutes

`quality` runs the recipe on the embedded model and fits scikit-learn's TF-IDF with logistic
regression on the same training records: words, and pieces of words, the better of the two. Both
are graded on the same held-out records, by scikit-learn, whose figures must be ours.

`speed` trains adapter and head on the same messages of varied length, 16 a step, on one thread, in
a process of its own for each arm: once with ours, once with transformers' Trainer as it comes
(AutoModelForSequenceClassification, its padding, its attention, the same LoRA, its head set to
0 as ours is). Our head reads the last hidden state as it is here, as transformers' does. Speed is
tokens per second of CPU time without the first step; padding is no token.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from array import array
from pathlib import Path
from typing import Any

from arms import ALPHA, LINEARS, RANK, RATE, ROOT, Clock, apart, find_dtype, show, spawn, tell

RECIPE = ROOT / "recipes" / "intents.yaml"
BEHIND = 0.02  # of macro-F1, that the tuned model may be behind TF-IDF
FASTER, APART = 1.7, 2e-2
BATCH, LABELS = 16, 5
PLANNED, STEPS = 8, 4


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def measure_quality(folder: Path) -> list[str]:
    """Print the table of both on the same records, and return the bars that were missed."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, f1_score
    from sklearn.pipeline import make_pipeline

    command = [sys.executable, "-m", "finetune", "run", str(RECIPE), "--run", str(folder / "run")]
    start = time.monotonic()
    subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, stdout=2
    )
    spent = time.monotonic() - start
    (dataset,) = (folder / "datasets").iterdir()
    training = [row for path in dataset.glob("train-*.jsonl") for row in read(path)]
    held_out = read(dataset / "evaluation.jsonl")
    texts = [[row["text"] for row in rows] for rows in (training, held_out)]
    labels = [[row["labels"]["intent"] for row in rows] for rows in (training, held_out)]
    given = {}
    for name, options in {
        "TF-IDF, words": {},
        "TF-IDF, pieces": {"analyzer": "char_wb", "ngram_range": (2, 5)},
    }.items():
        vectors = TfidfVectorizer(sublinear_tf=True, **options)
        baseline = make_pipeline(vectors, LogisticRegression(C=10, max_iter=2000))
        given[name] = list(baseline.fit(texts[0], labels[0]).predict(texts[1]))
    lines = read(folder / "run" / "predictions.jsonl")
    scores = [line["tuned"]["scores"]["intent"] for line in lines]
    given["tuned"] = [max(one, key=one.get) for one in scores]
    print(f"{len(training)} records to train, {len(held_out)} held out; run took {spent:.0f} s")
    f1 = {}
    for name, labels_given in given.items():
        f1[name] = f1_score(labels[1], labels_given, average="macro")
        accuracy = accuracy_score(labels[1], labels_given)
        print(f"{name:15} macro-F1 {f1[name]:.3f}  accuracy {accuracy:.3f}")
    ours = json.loads((folder / "run" / "evaluation.json").read_bytes())["tuned"]
    best = max(value for name, value in f1.items() if name != "tuned")
    missed = []
    if abs(ours["f1_macro"]["value"] - f1["tuned"]) > 1e-9:
        missed.append("our macro-F1 is not scikit-learn's")
    if f1["tuned"] < best - BEHIND:
        missed.append(f"macro-F1 {f1['tuned']:.3f}, at least {best - BEHIND:.3f}")
    return missed


def make_messages(folder: Path) -> list[tuple[list[int], int]]:
    """Return messages of 15 to 400 words as token ids, and a label of each."""
    from finetune.tokens import load_tokenizer

    tokenizer = load_tokenizer(folder)
    draw = random.Random(0)
    words = "refund invoice parcel late please colis Rechnung thanks order wrong kettle".split()
    messages = []
    for _ in range(BATCH * PLANNED):
        length = round(min(400.0, max(15.0, draw.lognormvariate(3.8, 0.7))))
        text = " ".join(draw.choice(words) for _ in range(length))
        messages.append(([tokenizer.bos_id, *tokenizer.text_ids(text)], draw.randrange(LABELS)))
    return messages


def train_ours(folder: Path, messages: list[tuple[list[int], int]], clock: Clock) -> None:
    """The local backend's own `fit`."""
    import torch

    from finetune.backends.local.classifier import TASK, Labelled, collate
    from finetune.backends.local.head import Head
    from finetune.backends.local.loop import fit
    from finetune.backends.local.model import load_model
    from finetune.backends.local.schedule import Step
    from finetune.recipe.tree import Recipe

    targets = [
        {"name": "t", "labels": list("abcde")[:LABELS], "loss_function": "single_class"},
    ]
    training = {"learning_rate": RATE, "warmup_fraction": 0, "weight_decay": 0}
    local = {"lora": {"rank": RANK, "alpha": ALPHA}, "save_every": 1000}
    recipe = Recipe.model_validate(
        {
            "model": "m",
            "method": "classifier",
            "data": {"train": [{"path": "x"}]},
            "training": training | {"classifier_targets": targets},
            "local": local,
        }
    )

    class Enough(Exception):
        pass

    class PlainHead(Head):
        def forward(self, states: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return (torch.nn.functional.linear(states.float(), self.classifier),)

    def read_last(items: list[Labelled]) -> dict[str, Any]:
        ends = collate(items)["borders"][1:].long()
        return collate(items) | {"rows": ends - 1, "counts": [1] * len(items)}

    def metric(*, loss: float, **_: Any) -> None:
        clock.step(loss)
        if len(clock.times) == STEPS:
            raise Enough

    task = TASK._replace(collate=read_last)
    model = task.prepare(load_model(folder), recipe)
    model.head = PlainHead(model.head.targets, model.head.classifier.shape[1])
    items = [Labelled(array("i", ids), ((label,),)) for ids, label in messages]
    plan = []
    for start in range(0, len(items), BATCH):
        group = list(range(start, start + BATCH))
        plan.append(Step([group], sum(items[place].tokens for place in group), start + 1.0))
    with tempfile.TemporaryDirectory() as scratch, contextlib.suppress(Enough):
        fit(task, model, items, plan, recipe, folder=Path(scratch), identity={}, metric=metric)


def train_with_trainer(folder: Path, messages: list[tuple[list[int], int]], clock: Clock) -> None:
    """Transformers as it comes: what is set is what the comparison needs."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from tokenizers import Tokenizer, models
    from transformers import (
        AutoModelForSequenceClassification,
        DataCollatorWithPadding,
        PreTrainedTokenizerFast,
        Trainer,
        TrainerCallback,
        TrainingArguments,
        set_seed,
    )

    from finetune.tokens import load_tokenizer

    class Watch(TrainerCallback):
        def on_log(self, _args, state, control, logs, **_):
            if "loss" in logs:
                clock.step(logs["loss"])
                control.should_training_stop = state.global_step == STEPS

    pad = load_tokenizer(folder).pad_id
    vocabulary = {f"<{number}>": number for number in range(pad + 1)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<0>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token=f"<{pad}>")
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=LABELS, pad_token_id=pad, dtype=find_dtype()
    )
    torch.nn.init.zeros_(model.score.weight)
    set_seed(0)
    lora = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=LINEARS, task_type="SEQ_CLS")
    rows = [{"input_ids": ids, "labels": label} for ids, label in messages]
    with tempfile.TemporaryDirectory() as scratch:
        Trainer(
            model=get_peft_model(model, lora),
            args=TrainingArguments(
                output_dir=scratch,
                per_device_train_batch_size=BATCH,
                train_sampling_strategy="sequential",
                max_steps=PLANNED,
                learning_rate=RATE,
                lr_scheduler_type="cosine",
                bf16=find_dtype() == torch.bfloat16,
                logging_steps=1,
                save_strategy="no",
                use_cpu=True,
                report_to="none",
                disable_tqdm=True,
                seed=0,
            ),
            train_dataset=Dataset.from_list(rows),
            data_collator=DataCollatorWithPadding(tokenizer),
            callbacks=[Watch()],
        ).train()


ARMS = {"ours": train_ours, "Trainer": train_with_trainer}


def run_arm(arm: str) -> None:
    """Train one arm and print what it took."""
    import torch

    from finetune.backends.local.embedded import provide_model

    torch.set_num_threads(1)
    folder = provide_model()
    messages = make_messages(folder)
    sizes = [len(ids) for ids, _ in messages]
    clock = Clock([sum(sizes[i : i + BATCH]) for i in range(0, len(sizes), BATCH)])
    ARMS[arm](folder, messages, clock)
    tell(clock)


def measure_speed() -> list[str]:
    """Print the table of both arms, and return the bars that were missed."""
    found = {arm: spawn([sys.executable, __file__, "speed", "--arm", arm]) for arm in ARMS}
    for arm, result in found.items():
        show(arm, result)
    faster = found["ours"]["speed"] / found["Trainer"]["speed"]
    gap = apart(found["ours"], found["Trainer"])
    print(f"ours is {faster:.2f} times as fast, bar {FASTER}; losses {gap:.1e} apart, bar {APART}")
    missed = [] if faster >= FASTER else ["speed over Trainer"]
    return missed + ([] if gap <= APART else ["losses apart"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("quality", "speed"))
    parser.add_argument("--folder", type=Path, help="where the recipe runs; goes on there")
    parser.add_argument("--arm", choices=sorted(ARMS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        run_arm(options.arm)
        return
    if options.part == "speed":
        missed = measure_speed()
    elif options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
        missed = measure_quality(options.folder)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            missed = measure_quality(Path(scratch))
    sys.exit(f"missed: {', '.join(missed)}" if missed else 0)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
