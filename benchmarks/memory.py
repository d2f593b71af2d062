"""The memory estimate beside the measured peak: four CPU configurations of two models.

    python benchmarks/memory.py              # a few minutes on two cores

Each configuration trains two steps in a process of its own, through the code that `finetune run`
trains with; the peak is that process's largest resident set. The estimate is to lie within 20 %.
"""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import tempfile
from array import array
from pathlib import Path

ROOT = Path(__file__).parent.parent
TINY = {
    "vocab_size": 32768,
    "hidden_size": 256,
    "intermediate_size": 640,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "sliding_window": None,
    "tie_word_embeddings": True,
}
CONFIGURATIONS = (
    {"model": "tiny", "micro_batch_tokens": 8192},
    {"model": "tiny", "micro_batch_tokens": 4096, "dtype": "float32"},
    {"model": "smollm2-135m", "micro_batch_tokens": 2048},
    {"model": "smollm2-135m", "micro_batch_tokens": 2048, "gradient_checkpointing": "on"},
    {"model": "tiny", "micro_batch_tokens": 4096, "lora": {"dora": True}},
    {"model": "tiny", "micro_batch_tokens": 2048, "full": True},
    {"model": "mixture", "micro_batch_tokens": 1024, "lora": {"experts": True}},
)


def measure(configuration: dict[str, str | int]) -> dict[str, float]:
    """Train two steps in a process of its own; return peak and estimate in bytes."""
    done = subprocess.run(
        [sys.executable, __file__, json.dumps(configuration)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def train(configuration: dict[str, str | int]) -> dict[str, float]:
    """Train two steps here; return peak and estimate in bytes."""
    from finetune.backends.local.device import find_device
    from finetune.backends.local.full import unfreeze
    from finetune.backends.local.loop import fit
    from finetune.backends.local.lora import add_adapter
    from finetune.backends.local.memory import estimate_memory
    from finetune.backends.local.model import load_model, resolve_model
    from finetune.backends.local.samples import Packed
    from finetune.backends.local.schedule import plan_training
    from finetune.backends.local.sft import TASK
    from finetune.catalog import read_shape
    from finetune.recipe import Recipe

    local = {"gradient_checkpointing": "off", **configuration}
    local["batch_tokens"] = local["micro_batch_tokens"]
    name = local.pop("model")
    recipe = Recipe.model_validate(
        {
            "model": name,
            "data": {"train": [{"path": "none"}]},
            "training": {"steps": 2},
            "local": local,
        }
    )
    with tempfile.TemporaryDirectory() as work:
        own = name in ("tiny", "mixture")
        folder = make_random(Path(work), str(name)) if own else resolve_model(str(name))
        shape = read_shape(json.loads((folder / "config.json").read_text(encoding="utf-8")))
        chance = random.Random(0)
        samples = []
        for _ in range(60):
            length = chance.randint(100, 400)
            ids = [chance.randrange(20, shape.vocab) for _ in range(length)]
            rows = range(length // 4, length - 1)
            samples.append(
                Packed(array("i", ids), array("i", rows), array("i", ids[rows[0] + 1 :]), None)
            )
        lengths = [len(sample.input_ids) for sample in samples]
        micro = recipe.local.micro_batch_tokens
        steps = plan_training(recipe, lengths, micro_batch_tokens=micro)
        again = recipe.local.gradient_checkpointing == "on"
        groups = [group for step in steps for group in step.micro_batches]
        tokens = max(sum(lengths[index] for index in group) for group in groups)
        if recipe.local.full:
            model = unfreeze(load_model(folder, dtype="float32"), recipe.local.dtype)
        else:
            model = add_adapter(load_model(folder, dtype=recipe.local.dtype), recipe.local.lora)
        place = Path(work) / "checkpoints"
        fit(
            TASK, model, samples, steps, recipe,
            folder=place, identity={}, gradient_checkpointing=again,
        )  # fmt: skip
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
    memory = estimate_memory(
        shape,
        recipe,
        find_device(),
        tokens=tokens,
        trained=tokens * 3 // 4,
        gradient_checkpointing=again,
    )
    return {"peak": peak, "estimate": memory.total, "tokens": tokens, **memory.parts}


def make_random(folder: Path, name: str) -> Path:
    """Save a small random model, dense or a mixture of experts."""
    import torch
    from transformers import MistralConfig, MistralForCausalLM, MixtralConfig, MixtralForCausalLM

    if name == "tiny":
        model = MistralForCausalLM(MistralConfig(**TINY))
    else:
        model = MixtralForCausalLM(MixtralConfig(**TINY, num_local_experts=64))
    model.to(torch.bfloat16).save_pretrained(folder / name)
    return folder / name


def main() -> None:
    """Print the table, and fail where an estimate is out by more than 20 %."""
    if len(sys.argv) > 1:
        print(json.dumps(train(json.loads(sys.argv[1]))))
        return
    worst = 0.0
    for configuration in CONFIGURATIONS:
        result = measure(configuration)
        ratio = result["estimate"] / result["peak"]
        worst = max(worst, abs(ratio - 1))
        settings = ", ".join(f"{key} {value}" for key, value in configuration.items())
        print(f"{settings:<72} {result['estimate'] / 1e6:7.0f} MB estimated", end="")
        print(f" {result['peak'] / 1e6:7.0f} MB measured  {ratio:.2f}")
    if worst > 0.2:
        sys.exit(f"an estimate is out by {worst:.0%}")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
