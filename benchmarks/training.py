"""Training speed: ours beside TRL's SFTTrainer with its defaults and beside a hand-written loop.

    python benchmarks/training.py            # a quarter of an hour, or more on a busy machine

Every arm trains the same LoRA adapter on the same samples (chats of varied length, about 230
tokens on average, 8 a step, in the given order), on one thread, in a process of its own. Speed is
tokens per second of CPU time without the first step; memory is the peak resident set. The loop
shares no code with ours: it is what a person would write by hand for speed. It adds and rounds in
the same order, as bfloat16 forgives no other: laid end to end in reverse, the loop's own samples
give losses 1.7e-3 apart by the third step.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).parent.parent
Samples = list[dict[str, list[int]]]

BATCH, RANK, ALPHA, RATE = 8, 16, 32, 1e-4
PLANNED = 8  # steps of the learning rate's cosine, in every arm
STEPS = {"embedded": 3, "tiny": 5}
RUNS = {"trl": 1, "loop": 3, "ours": 3}
BARS = {
    "embedded": {"speed": 3.5, "loop": 0.95, "memory": 0.8},
    "tiny": {"speed": 8.0, "loop": 0.95, "memory": 0.35},
}
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Clock:
    """CPU time, tokens and loss of each step."""

    def __init__(self, samples: Samples) -> None:
        sizes = [len(sample["input_ids"]) for sample in samples]
        self.tokens = [sum(sizes[i : i + BATCH]) for i in range(0, len(sizes), BATCH)]
        self.times: list[float] = []
        self.losses: list[float] = []

    def step(self, loss: float) -> None:
        """Note that a step is over."""
        self.times.append(time.process_time())
        self.losses.append(loss)

    def result(self) -> dict[str, Any]:
        """Return tokens per CPU second, peak memory in MB, and the losses."""
        spent = self.times[-1] - self.times[0]
        speed = sum(self.tokens[1 : len(self.times)]) / spent
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return {"speed": speed, "memory": memory, "losses": self.losses}


def make_model(name: str, folder: Path) -> Path:
    """Return the folder of the model, making it where it has to be made."""
    if name == "embedded":
        from finetune.backends.local.embedded import provide_model

        return provide_model()
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4}
    heads = {"num_attention_heads": 8, "num_key_value_heads": 2, "sliding_window": None}
    MistralForCausalLM(MistralConfig(vocab_size=32768, **shape, **heads)).save_pretrained(folder)
    return folder


def make_samples(folder: Path) -> Samples:
    """Return chats as token ids: a question that is not trained, an answer that is."""
    from finetune import records
    from finetune.tokens import load_tokenizer

    # the tiny model's vocabulary is that of the v3 tokenizer in mistral-common's wheel
    own = (folder / "tekken.json").exists()
    tokenizer = load_tokenizer(folder if own else "v3")
    draw = random.Random(0)
    subjects = [
        "The customer",
        "Our team",
        "A colleague",
        "The invoice",
        "Votre commande",
        "The parcel",
    ]
    verbs = ["asks about", "needs", "has not received", "confirms", "a besoin de", "is late with"]
    objects = [
        "the refund",
        "a new password",
        "order 48213",
        "the delivery",
        "la facture",
        "an update",
    ]

    def talk(words: float) -> str:
        sentences = round(words / 6)
        parts = (
            f"{draw.choice(subjects)} {draw.choice(verbs)} {draw.choice(objects)}"
            for _ in range(sentences)
        )
        return ". ".join(parts) + "."

    samples = []
    for _ in range(BATCH * PLANNED):
        words = min(500.0, max(30.0, draw.lognormvariate(4.6, 0.7)))
        share = draw.uniform(0.15, 0.4)
        messages = [
            {"role": "user", "content": talk(words * share)},
            {"role": "assistant", "content": talk(words * (1 - share))},
        ]
        (sample,) = tokenizer.encode(records.from_object("chat", {"messages": messages}))
        samples.append({"input_ids": sample.input_ids, "labels": sample.labels})
    return samples


def run_trl(folder: Path, samples: Samples, steps: int, clock: Clock) -> None:
    """TRL as it comes: what is set is what the comparison needs, the rest is its default."""
    from datasets import Dataset
    from peft import LoraConfig
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class Watch(TrainerCallback):
        def on_log(self, _args, state, control, logs, **_):
            if "loss" in logs:
                clock.step(logs["loss"])
                control.should_training_stop = state.global_step == steps

    words = Tokenizer(models.WordLevel({"<pad>": 0}, unk_token="<pad>"))
    with tempfile.TemporaryDirectory() as scratch:
        SFTTrainer(
            model=str(folder),
            args=SFTConfig(
                output_dir=scratch,
                per_device_train_batch_size=BATCH,
                train_sampling_strategy="sequential",
                max_steps=PLANNED,
                learning_rate=RATE,
                lr_scheduler_type="cosine",
                logging_steps=1,
                save_strategy="no",
                use_cpu=True,
                report_to="none",
                disable_tqdm=True,
                seed=0,
            ),
            train_dataset=Dataset.from_list(samples),
            processing_class=PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>"),
            peft_config=LoraConfig(
                r=RANK, lora_alpha=ALPHA, target_modules=LINEARS, task_type="CAUSAL_LM"
            ),
            callbacks=[Watch()],
        ).train()


def run_ours(folder: Path, samples: Samples, steps: int, clock: Clock) -> None:
    """The local backend's own `fit`."""
    import torch
    from transformers import AutoModelForCausalLM

    from finetune.backends.local.loop import fit
    from finetune.backends.local.lora import add_adapter
    from finetune.backends.local.samples import pack
    from finetune.backends.local.schedule import Step
    from finetune.backends.local.sft import TASK
    from finetune.recipe.tree import Recipe

    training = {"learning_rate": RATE, "warmup_fraction": 0, "weight_decay": 0}
    local = {"lora": {"rank": RANK, "alpha": ALPHA}, "save_every": 1000}
    recipe = Recipe.model_validate(
        {"model": "m", "data": {"train": [{"path": "x"}]}, "training": training, "local": local}
    )

    class Enough(Exception):
        pass

    def metric(*, loss: float, **_: Any) -> None:
        clock.step(loss)
        if len(clock.times) == steps:
            raise Enough

    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    model = add_adapter(base, recipe.local.lora)
    packed = [pack(SimpleNamespace(**sample, weights=None)) for sample in samples]
    plan = [
        Step([list(range(i * BATCH, (i + 1) * BATCH))], tokens, i + 1.0)
        for i, tokens in enumerate(clock.tokens)
    ]
    with tempfile.TemporaryDirectory() as scratch, contextlib.suppress(Enough):
        fit(TASK, model, packed, plan, recipe, folder=Path(scratch), identity={}, metric=metric)


def run_loop(folder: Path, samples: Samples, steps: int, clock: Clock) -> None:
    """A loop in plain torch: packed rows, attention by sample, loss in chunks, bf16."""
    import torch
    from peft import LoraConfig, get_peft_model
    from torch.nn.functional import scaled_dot_product_attention
    from transformers import (
        AttentionInterface,
        AttentionMaskInterface,
        AutoModelForCausalLM,
        set_seed,
    )

    def attention(module, q, k, v, _mask, *, lengths, scaling, **_):
        k, v = (x.repeat_interleave(module.num_key_value_groups, dim=1) for x in (k, v))
        parts = zip(*(x.split(lengths, dim=2) for x in (q, k, v)), strict=True)
        out = [scaled_dot_product_attention(*p, is_causal=True, scale=scaling) for p in parts]
        return torch.cat(out, dim=2).transpose(1, 2), None

    class CrossEntropy(torch.autograd.Function):
        @staticmethod
        def forward(ctx, hidden, head, targets):
            slope, total = torch.empty_like(hidden), 0.0
            for i in range(0, len(targets), 512):
                places = range(len(targets[i : i + 512])), targets[i : i + 512]
                scores = (hidden[i : i + 512] @ head.T).float()
                picked, top = scores[places], scores.amax(-1, keepdim=True)
                mass = scores.sub_(top).exp_().sum(-1, keepdim=True)
                total += ((mass.log() + top)[:, 0] - picked).sum()
                scores.div_(mass)[places] -= 1
                slope[i : i + 512] = scores.to(head.dtype) @ head
            ctx.save_for_backward(slope)
            return total

        @staticmethod
        def backward(ctx, scale):
            return ctx.saved_tensors[0] * scale, None, None

    AttentionInterface.register("loop", attention)
    AttentionMaskInterface.register("loop", lambda *_, **__: None)
    base = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, attn_implementation="loop"
    )
    set_seed(0)
    lora = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=LINEARS, task_type="CAUSAL_LM")
    trained = [p for p in get_peft_model(base, lora).train().parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / PLANNED))
    )
    for step in range(steps):
        batch = samples[step * BATCH : (step + 1) * BATCH]
        lengths = [len(sample["input_ids"]) for sample in batch]
        ids = torch.tensor([token for sample in batch for token in sample["input_ids"]])
        labels = torch.tensor([x for sample in batch for x in [*sample["labels"][1:], -100]])
        places = torch.cat([torch.arange(length) for length in lengths])
        keep = labels != -100
        with torch.autocast("cpu", torch.bfloat16):
            hidden = base.model(
                input_ids=ids[None], position_ids=places[None], use_cache=False, lengths=lengths
            ).last_hidden_state[0]
            total = CrossEntropy.apply(hidden[keep], base.lm_head.weight, labels[keep])
        loss = total / keep.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        clock.step(loss.item())


ARMS = {"trl": run_trl, "loop": run_loop, "ours": run_ours}


def spawn(arm: str, name: str, folder: Path) -> dict[str, Any]:
    """Run one arm in a process of its own and return its result."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, "--models", name, "--arm", arm, "--folder", str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    return json.loads(line.removeprefix("RESULT "))


def compare(name: str, folder: Path) -> list[str]:
    """Measure all arms on one model, print the table, and return the bars that were missed."""
    results: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
    for turn in range(max(RUNS.values())):
        for arm in ARMS:
            if turn < RUNS[arm]:
                results[arm].append(spawn(arm, name, folder))
    speed = {arm: statistics.median(r["speed"] for r in rs) for arm, rs in results.items()}
    memory = {arm: statistics.median(r["memory"] for r in rs) for arm, rs in results.items()}
    losses = {arm: rs[0]["losses"] for arm, rs in results.items()}
    for arm in ARMS:
        shown = " ".join(f"{loss:.5f}" for loss in losses[arm][:3])
        print(f"{name:9} {arm:5} {speed[arm]:8.1f} tok/s  {memory[arm]:7.0f} MB  losses {shown}")

    def apart(other: str) -> float:
        return max(abs(a - b) for a, b in zip(losses["ours"], losses[other], strict=False))

    bars = BARS[name]
    missed = []
    for what, value, bar, at_least in (
        ("speed over TRL", speed["ours"] / speed["trl"], bars["speed"], True),
        ("speed over the loop", speed["ours"] / speed["loop"], bars["loop"], True),
        ("memory over TRL", memory["ours"] / memory["trl"], bars["memory"], False),
        ("loss apart from TRL", apart("trl"), 2e-2, False),
        ("loss apart from the loop", apart("loop"), 1e-3, False),
    ):
        good = value >= bar if at_least else value <= bar
        sign = ">=" if at_least else "<="
        print(f"{name:9} {what:25} {value:9.5f}  {sign} {bar:<6} {'ok' if good else 'MISSED'}")
        missed += [] if good else [f"{name}: {what}"]
    return missed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=sorted(BARS), default=list(BARS))
    parser.add_argument("--arm", choices=sorted(ARMS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        import torch

        torch.set_num_threads(1)
        samples = make_samples(options.folder)
        clock = Clock(samples)
        ARMS[options.arm](options.folder, samples, STEPS[options.models[0]], clock)
        print("RESULT " + json.dumps(clock.result()))
        return
    missed = []
    for name in options.models:
        with tempfile.TemporaryDirectory() as scratch:
            missed += compare(name, make_model(name, Path(scratch)))
    sys.exit(f"missed: {', '.join(missed)}" if missed else 0)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
