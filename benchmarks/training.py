"""Training speed: ours beside what one would otherwise use, on the same samples and steps.

    python benchmarks/training.py            # half an hour, or more on a busy machine
    python benchmarks/training.py --cases varied equal
    python benchmarks/training.py --llamafactory ENVIRONMENT/bin/python

Every arm trains the same LoRA adapter on the same samples, 8 a step, in the given order, on one
thread, in a process of its own. Speed is tokens per second of CPU time without the first step;
memory is the peak resident set.

    chats    conversations of varied length, about 230 tokens, of which the answers are trained
    tiny     the same with a model of four layers and a vocabulary of 32k
    varied   documents of 30 to 800 tokens, all trained: continued pretraining
    equal    documents of 128 tokens each

    trl           TRL's SFTTrainer with its defaults
    packed        the same with `packing=True` and rows of 1024 tokens: other batches, so that its
                  losses are not compared
    llamafactory  LLaMA-Factory with its defaults, from an environment of its own
    loop          a loop in plain torch, as a person would write it by hand for speed
    ours          the local backend

The loop shares no code with ours. It adds and rounds in the same order, as bfloat16 forgives no
other: laid end to end in reverse, the loop's own samples give losses 1.7e-3 apart by the third
step. Ours, TRL and the loop compute in the numbers that the backend chooses for this processor:
bfloat16, TRL's default, or float32; LLaMA-Factory in float32, its default.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import random
import statistics
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from arms import ALPHA, LINEARS, RANK, RATE, ROOT, Clock, apart, find_dtype, show, spawn, tell

Samples = list[dict[str, list[int]]]

BATCH = 8
PLANNED = 8  # steps of the learning rate's cosine, in every arm
ROW = 1024  # tokens of a packed row
RUNS = {"trl": 1, "packed": 1, "llamafactory": 1, "loop": 3, "ours": 3}
# arms; steps; the least speed over TRL; the most memory beside it (documents of one length need
# no padding, and TRL computes their activations again instead of holding them)
CASES: dict[str, tuple[tuple[str, ...], int, float, float | None]] = {
    "chats": (("trl", "llamafactory", "loop", "ours"), 3, 3.5, 0.8),
    "tiny": (("trl", "llamafactory", "loop", "ours"), 5, 8.0, 0.35),
    "varied": (("trl", "packed", "ours"), 2, 3.0, None),
    "equal": (("trl", "packed", "ours"), 2, 2.0, None),
}


def make_model(name: str, folder: Path) -> None:
    """Put the model of a case into a folder."""
    if name != "tiny":
        from finetune.backends.local.embedded import provide_model

        folder.symlink_to(provide_model())
        return
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4}
    heads = {"num_attention_heads": 8, "num_key_value_heads": 2, "sliding_window": None}
    MistralForCausalLM(MistralConfig(vocab_size=32768, **shape, **heads)).save_pretrained(folder)


def make_samples(name: str, folder: Path) -> Samples:
    """Return token ids: chats, whose answers are trained, or documents, trained as a whole."""
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
    if name in {"varied", "equal"}:
        for _ in range(BATCH * PLANNED):
            length = 128 if name == "equal" else round(draw.lognormvariate(4.7, 0.7))
            (sample,) = tokenizer.encode(records.from_object("text", {"text": talk(900)}))
            ids = sample.input_ids[: min(800, max(30, length))]
            samples.append({"input_ids": ids, "labels": ids})
        return samples
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


def run_packed(folder: Path, samples: Samples, steps: int, clock: Clock) -> None:
    """TRL with the packing that its guide advises."""
    packing = {"packing": True, "max_length": ROW, "per_device_train_batch_size": 2}
    many = [{"input_ids": sample["input_ids"]} for sample in samples * 3]
    run_trl(folder, many, steps, clock, **packing)


def run_trl(folder: Path, samples: Samples, steps: int, clock: Clock, **options: Any) -> None:
    """TRL as it comes: what is set is what the comparison needs, the rest is its default."""
    import torch
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
        trainer = SFTTrainer(
            model=str(folder),
            args=SFTConfig(
                output_dir=scratch,
                **({"per_device_train_batch_size": BATCH} | options),
                train_sampling_strategy="sequential",
                max_steps=PLANNED,
                learning_rate=RATE,
                lr_scheduler_type="cosine",
                bf16=find_dtype() == torch.bfloat16,  # else Adam's first steps come apart
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
        )
        rows = [len(ids) for ids in trainer.train_dataset["input_ids"]]
        size = trainer.args.per_device_train_batch_size
        clock.tokens = [sum(rows[i : i + size]) for i in range(0, len(rows), size)]
        trainer.train()


def run_ours(folder: Path, samples: Samples, steps: int, clock: Clock) -> None:
    """The local backend's own `fit`."""
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

    base = AutoModelForCausalLM.from_pretrained(folder, dtype=find_dtype())
    model = add_adapter(base, recipe.local.lora)
    packed = [pack(SimpleNamespace(**sample, weights=None, images=())) for sample in samples]
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
        folder, dtype=find_dtype(), attn_implementation="loop"
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
        half = base.dtype == torch.bfloat16
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
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


def run_llamafactory(folder: Path, samples: Samples, steps: int, clock: Clock) -> None:
    """LLaMA-Factory as it comes, on samples that are tokenized already."""
    from datasets import Dataset, DatasetDict
    from llamafactory.train.tuner import run_exp
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, TrainerCallback

    class Watch(TrainerCallback):
        def on_log(self, _args, state, control, logs=None, **_):
            if "loss" in (logs or {}):
                clock.step(logs["loss"])
                control.should_training_stop = state.global_step == steps

    with tempfile.TemporaryDirectory() as scratch:
        model, data = Path(scratch) / "model", Path(scratch) / "data"
        model.mkdir()
        for file in folder.iterdir():  # it asks for a tokenizer, though nothing is left to encode
            if file.suffix in {".json", ".safetensors"} and "tok" not in file.name:
                (model / file.name).symlink_to(file)
        (model / "tekken.json").unlink(missing_ok=True)
        words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1}, unk_token="<pad>"))
        PreTrainedTokenizerFast(
            tokenizer_object=words, pad_token="<pad>", eos_token="</s>"
        ).save_pretrained(model)
        whole = [s | {"attention_mask": [1] * len(s["input_ids"])} for s in samples]
        DatasetDict({"train": Dataset.from_list(whole)}).save_to_disk(str(data))
        run_exp(
            {
                "model_name_or_path": str(model),
                "tokenized_path": str(data),
                "dataset": "tokenized",  # asked for, and not read where there are tokens
                "output_dir": str(Path(scratch) / "out"),
                "stage": "sft",
                "do_train": True,
                "template": "empty",
                "finetuning_type": "lora",
                "lora_rank": RANK,
                "lora_alpha": ALPHA,
                "lora_target": ",".join(LINEARS),
                "per_device_train_batch_size": BATCH,
                "gradient_accumulation_steps": 1,
                "disable_shuffling": True,
                "max_steps": PLANNED,
                "learning_rate": RATE,
                "lr_scheduler_type": "cosine",
                "logging_steps": 1,
                "save_strategy": "no",
                "use_cpu": True,
                "report_to": "none",
                "seed": 0,
            },
            callbacks=[Watch()],
        )


ARMS = {
    "trl": run_trl,
    "packed": run_packed,
    "llamafactory": run_llamafactory,
    "loop": run_loop,
    "ours": run_ours,
}


def compare(name: str, folder: Path, llamafactory: str | None) -> list[str]:
    """Measure all arms of a case, print the table, and return the bars that were missed."""
    arms = tuple(arm for arm in CASES[name][0] if arm != "llamafactory" or llamafactory)
    with open(folder / "samples.json", "w", encoding="utf-8") as file:
        json.dump(make_samples(name, folder / "model"), file)
    results: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arms}
    for turn in range(max(RUNS.values())):
        for arm in arms:
            if turn < RUNS[arm]:
                python = llamafactory if arm == "llamafactory" else sys.executable
                command = [str(python), __file__, "--cases", name, "--arm", arm]
                results[arm].append(spawn([*command, "--folder", str(folder)]))
    middle = {
        arm: rs[0] | {key: statistics.median(r[key] for r in rs) for key in ("speed", "memory")}
        for arm, rs in results.items()
    }
    for arm, result in middle.items():
        show(f"{name:7} {arm}", result)
    return judge(name, middle)


def judge(name: str, results: dict[str, dict[str, Any]]) -> list[str]:
    """Hold the figures of a case against its bars; return those that were missed."""
    _, _, fast, lean = CASES[name]
    ours = results["ours"]
    figures: list[tuple[str, float, float | None, bool]] = []
    for arm, result in results.items():
        if arm == "ours":
            continue
        least = {"trl": fast, "loop": 0.95}.get(arm)
        figures.append((f"speed over {arm}", ours["speed"] / result["speed"], least, True))
        if arm != "packed":
            most = {"trl": 2e-2, "loop": 1e-3}.get(arm)
            figures.append((f"loss apart from {arm}", apart(ours, result), most, False))
    over = ours["memory"] / results["trl"]["memory"]
    figures.append(("memory over trl", over, lean, False))
    missed = []
    for what, value, bar, at_least in figures:
        good = bar is None or (value >= bar if at_least else value <= bar)
        held = "" if bar is None else f"{'>=' if at_least else '<='} {bar:<6} "
        held += "" if bar is None else "ok" if good else "MISSED"
        print(f"{name:7} {what:28} {value:9.5f}  {held}".rstrip(), flush=True)
        missed += [] if good else [f"{name}: {what}"]
    return missed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=sorted(CASES), default=list(CASES))
    parser.add_argument(
        "--llamafactory", metavar="PYTHON", help="the interpreter of an environment that has it"
    )
    parser.add_argument("--arm", choices=sorted(ARMS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        import torch

        torch.set_num_threads(1)
        (name,) = options.cases
        samples = json.loads((options.folder / "samples.json").read_bytes())
        sizes = [len(sample["input_ids"]) for sample in samples]
        clock = Clock([sum(sizes[i : i + BATCH]) for i in range(0, len(sizes), BATCH)])
        folder = (options.folder / "model").resolve()
        ARMS[options.arm](folder, samples, CASES[name][1], clock)
        tell(clock)
        return
    missed = []
    for name in options.cases:
        with tempfile.TemporaryDirectory() as scratch:
            make_model(name, Path(scratch) / "model")
            missed += compare(name, Path(scratch), options.llamafactory)
    sys.exit(f"missed: {', '.join(missed)}" if missed else 0)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
