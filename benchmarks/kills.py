"""Kill a run at random times, let the same call go on, and compare with the unbroken run.

`python benchmarks/kills.py [KILLS] [--seed N]` trains a tiny model on a CPU, one thread, through
the whole job: prepare, train with validation and dropout, publish the best checkpoint, report.
Each trial is a process that is killed with SIGKILL after a time drawn from the length of an
unbroken run, and one that goes on. Printed are how many trials were killed in which state, from
which step they went on, and the largest difference of the last loss; a trial whose adapter is not
the unbroken run's, byte by byte, is a failure. `benchmarks/crash_points.py` kills at each change
of a file instead.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from finetune.runs import Run

WORDS = "red blue green dark light warm cold soft hard round flat small large old new".split()


def make_recipe(
    folder: Path, *, length: str = "epochs: 3", evaluation: str = "measure: false"
) -> Path:
    """Write a tiny model, data and a recipe; return the recipe."""
    import mistral_common
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    from finetune.files import to_json
    from finetune.tokens import load_tokenizer

    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=load_tokenizer("v3").vocab_size,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=None,
    )
    MistralForCausalLM(config).save_pretrained(folder / "model")
    name = "mistral_instruct_tokenizer_240323.model.v3"
    data = Path(mistral_common.__file__).parent / "data" / name
    (folder / "model" / "tokenizer.model.v3").write_bytes(data.read_bytes())
    draw = random.Random(0)
    rows = []
    for number in range(48):
        things = " ".join(draw.choices(WORDS, k=draw.randint(3, 30)))
        rows.append(to_json({"prompt": f"{number}: {things}", "completion": things[::-1]}))
    (folder / "data.jsonl").write_bytes(b"\n".join(rows) + b"\n")
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        "name: kills\nmodel: ./model\n"
        "data: {train: [{path: data.jsonl}], validation: 0.1}\n"
        f"training: {{{length}, learning_rate: 1e-2, seq_len: 300}}\n"
        f"evaluation: {{{evaluation}}}\n"
        "local:\n  lora: {rank: 4, dropout: 0.1}\n  dtype: float32\n  batch_tokens: 600\n"
        "  micro_batch_tokens: 200\n  save_every: 2\n  threads: 1\n  best_by: validation_loss\n"
    )
    return recipe


def start(work: Callable[[], None]) -> int:
    """Do this in a process of its own, which has all libraries already; return its number."""
    child = os.fork()
    if child:
        return child
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    code = 1
    try:
        work()
        code = 0
    finally:
        if code:
            traceback.print_exc(limit=0)
        os._exit(code)


def judge(folder: Path, wanted: Run) -> float | None:
    """Return how far the last loss is off, None where the run is not the one that was wanted."""
    from finetune.runs import list_runs

    found = list_runs(folder / "runs")
    if len(found) != 1 or found[0].state["state"] != "done":
        return None
    one, other = (run.metrics()[-1] for run in (found[0], wanted))
    name = "adapter_model.safetensors"
    if (found[0].adapter / name).read_bytes() != (wanted.adapter / name).read_bytes():
        return None
    return abs(one["loss"] - other["loss"]) if one["step"] == other["step"] else None


def main() -> int:
    """Print the figures; return 1 where a run did not go on as it should."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kills", type=int, nargs="?", default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"

    import torch
    import trl  # noqa: F401 (each process would import it)

    import finetune.backends.local.keeper  # noqa: F401 (likewise)
    from finetune import load_recipe, pipeline
    from finetune.runs import list_runs

    torch.set_num_threads(1)
    draw = random.Random(options.seed)
    states: collections.Counter[str] = collections.Counter()
    differences: list[float | None] = []
    with tempfile.TemporaryDirectory() as place:
        path = make_recipe(Path(place))

        def run(folder: Path) -> None:
            recipe = load_recipe(path)
            pipeline.run(recipe, folder=folder / "runs", datasets=folder / "datasets")

        begun = time.perf_counter()
        os.waitpid(start(partial(run, Path(place) / "whole")), 0)
        seconds = time.perf_counter() - begun
        (wanted,) = list_runs(Path(place) / "whole" / "runs")
        steps = len(wanted.metrics())
        print(f"unbroken: {seconds:.1f} s, {steps} steps", flush=True)
        trial = 0
        while len(differences) < options.kills:
            folder = Path(place) / f"trial-{trial}"
            trial += 1
            child = start(partial(run, folder))
            time.sleep(draw.uniform(0, seconds))
            os.kill(child, signal.SIGKILL)
            if os.waitpid(child, 0)[1] != signal.SIGKILL:
                continue  # it was faster
            runs = list_runs(folder / "runs") if (folder / "runs").exists() else []
            states[runs[0].state["state"] if runs else "before the run"] += 1
            done = len(runs[0].metrics()) if runs else 0
            os.waitpid(start(partial(run, folder)), 0)
            differences.append(judge(folder, wanted))
            print(f"{len(differences)}: step {done}, off by {differences[-1]}", flush=True)
            shutil.rmtree(folder)
    failed = differences.count(None)
    most = max((value for value in differences if value is not None), default=0.0)
    print(f"{len(differences)} kills: {dict(states)}; {failed} failed; loss off by {most} at most")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
