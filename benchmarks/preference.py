"""DPO beside TRL's DPOTrainer with its defaults: the same pairs, adapter and steps, in one run.

    python benchmarks/preference.py            # some ten minutes, or more on a busy machine

Both train the embedded model on the pairs of `recipes/preferences.yaml`, four a step in the given
order, on one thread, each in a process of its own. Speed is tokens of both answers, prompts
included, per second of CPU time without the first step; ours pays for its reference, which is
measured once before training, with the share of it that belongs to the steps that are counted.
TRL measures its own in each step. Memory is the peak resident set.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from arms import ALPHA, LINEARS, RANK, RATE, ROOT, Clock, apart, find_dtype, show, spawn, tell

PAIRS, STEPS = 4, 3
BETA = 0.1
BARS = {"speed": 2.0, "loss": 2e-2}


def make_pairs(folder: Path) -> list[Any]:
    """Return the first pairs of the recipe's data, of very different lengths, as tokens."""
    from finetune import load_recipe, prepare
    from finetune.backends.local.dpo import read_pairs
    from finetune.tokens import load_tokenizer

    recipe = load_recipe(ROOT / "recipes" / "preferences.yaml")
    with tempfile.TemporaryDirectory() as scratch:
        dataset = prepare(recipe, folder=Path(scratch))
        pairs = read_pairs(dataset.train[0].path, recipe, load_tokenizer(folder))
    return pairs[: PAIRS * STEPS]


def run_trl(folder: Path, pairs: list[Any], clock: Clock) -> None:
    """TRL as it comes: what is set is what the comparison needs, the rest is its default."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    class Finished(DPOTrainer):  # it has no way in for finished tokens
        def _prepare_dataset(self, dataset, *_, **__):
            return dataset

    class Watch(TrainerCallback):
        def on_log(self, _args, _state, _control, logs, **_):
            if "loss" in logs:
                clock.step(logs["loss"])

    rows = []
    for pair in pairs:
        (chosen,), (rejected,) = pair.chosen.samples, pair.rejected.samples
        row = {"prompt_ids": list(chosen.input_ids[: chosen.rows[0] + 1])}
        rows.append(
            row | {"chosen_ids": list(chosen.targets), "rejected_ids": list(rejected.targets)}
        )
    words = Tokenizer(models.WordLevel({"<pad>": 0}, unk_token="<pad>"))
    with tempfile.TemporaryDirectory() as scratch:
        Finished(
            model=str(folder),
            args=DPOConfig(
                output_dir=scratch,
                beta=BETA,
                per_device_train_batch_size=PAIRS,
                train_sampling_strategy="sequential",
                max_steps=STEPS,
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
            processing_class=PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>"),
            peft_config=LoraConfig(
                r=RANK, lora_alpha=ALPHA, target_modules=LINEARS, task_type="CAUSAL_LM"
            ),
            callbacks=[Watch()],
        ).train()


def run_ours(folder: Path, pairs: list[Any], clock: Clock) -> None:
    """The local backend's own reference and `fit`."""
    from transformers import AutoModelForCausalLM

    from finetune.backends.local.dpo import make_task, refer
    from finetune.backends.local.loop import fit
    from finetune.backends.local.lora import add_adapter
    from finetune.backends.local.schedule import Step
    from finetune.recipe.tree import Recipe

    training = {"learning_rate": RATE, "warmup_fraction": 0, "weight_decay": 0}
    local = {"lora": {"rank": RANK, "alpha": ALPHA}, "save_every": 1000}
    recipe = Recipe.model_validate(
        {"model": "m", "data": {"train": [{"path": "x"}]}, "training": training, "local": local}
    )
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=find_dtype())
    model = add_adapter(base, recipe.local.lora)
    started = time.process_time()
    pairs = refer(model, pairs)
    clock.before = time.process_time() - started
    plan = [
        Step([list(range(i * PAIRS, (i + 1) * PAIRS))], tokens, 1.0)
        for i, tokens in enumerate(clock.tokens)
    ]

    def metric(*, loss: float, **_: Any) -> None:
        clock.step(loss)

    with tempfile.TemporaryDirectory() as scratch:
        fit(
            make_task(BETA), model, pairs, plan, recipe,
            folder=Path(scratch), identity={}, metric=metric,
        )  # fmt: skip


ARMS = {"trl": run_trl, "ours": run_ours}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arm", choices=sorted(ARMS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        import torch

        from finetune.backends.local.embedded import provide_model

        torch.set_num_threads(1)
        folder = provide_model()
        pairs = make_pairs(folder)
        sizes = [pair.tokens for pair in pairs]
        clock = Clock([sum(sizes[i : i + PAIRS]) for i in range(0, len(sizes), PAIRS)])
        ARMS[options.arm](folder, pairs, clock)
        tell(clock)
        return
    found = {arm: spawn([sys.executable, __file__, "--arm", arm]) for arm in ARMS}
    for arm, result in found.items():
        show(arm, result)
    ratio = found["ours"]["speed"] / found["trl"]["speed"]
    gap = apart(found["trl"], found["ours"])
    print(f"speed over TRL  {ratio:8.2f}  >= {BARS['speed']}")
    print(f"loss apart      {gap:8.5f}  <= {BARS['loss']}")
    sys.exit(0 if ratio >= BARS["speed"] and gap <= BARS["loss"] else "missed")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
