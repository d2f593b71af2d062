"""Kill a run at random times, let the same call go on, and compare with the unbroken run.

`python benchmarks/kills.py [KILLS] [--seed N]` trains a tiny model on a CPU, one thread, through
the whole job: prepare, train with validation and dropout, publish the best checkpoint, report.
Each trial is a process that is killed with SIGKILL after a time drawn from the length of an
unbroken run, and one that goes on. Printed are how many trials were killed in which state, from
which step they went on, and the largest difference of the last loss; a trial whose adapter is not
the unbroken run's, byte by byte, is a failure.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

WORDS = "red blue green dark light warm cold soft hard round flat small large old new".split()


def make_recipe(folder: Path) -> Path:
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
        "training: {epochs: 3, learning_rate: 1e-2, seq_len: 300}\n"
        "evaluation: {measure: false}\n"
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
    try:
        work()
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        os._exit(1)
    os._exit(0)


def main() -> int:
    """Print the figures; return 1 where a run did not go on as it should."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
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
    failed, largest, resumed = 0, 0.0, []
    with tempfile.TemporaryDirectory() as place:
        path = make_recipe(Path(place))

        def run(folder: Path) -> None:
            recipe = load_recipe(path)
            pipeline.run(recipe, folder=folder / "runs", datasets=folder / "datasets")

        whole = Path(place) / "whole"
        begun = time.perf_counter()
        assert os.waitpid(start(lambda: run(whole)), 0)[1] == 0
        seconds = time.perf_counter() - begun
        (wanted,) = list_runs(whole / "runs")
        weights = (wanted.adapter / "adapter_model.safetensors").read_bytes()
        last = wanted.metrics()[-1]
        print(
            f"unbroken: {seconds:.1f} s, {last['step']} steps, loss {last['loss']:.6f}", flush=True
        )
        killed = trial = 0
        while killed < options.kills:
            folder = Path(place) / f"trial-{trial}"
            trial += 1
            child = start(lambda folder=folder: run(folder))
            time.sleep(draw.uniform(0, seconds))
            os.kill(child, signal.SIGKILL)
            if os.waitpid(child, 0)[1] != signal.SIGKILL:
                continue  # it was faster
            killed += 1
            runs = list_runs(folder / "runs") if (folder / "runs").exists() else []
            states[runs[0].state["state"] if runs else "before the run"] += 1
            before = len(runs[0].metrics()) if runs else 0
            status = os.waitpid(start(lambda folder=folder: run(folder)), 0)[1]
            found = list_runs(folder / "runs")
            good = status == 0 and len(found) == 1 and found[0].state["state"] == "done"
            if good:
                line = found[0].metrics()[-1]
                largest = max(largest, abs(line["loss"] - last["loss"]))
                written = (found[0].adapter / "adapter_model.safetensors").read_bytes()
                good = line["step"] == last["step"] and written == weights
                resumed.append(before)
            failed += not good
            print(f"{killed}: {'same' if good else 'FAILED'} after step {before}", flush=True)
    print(f"{killed} kills: {dict(states)}; {failed} failed; loss differs by {largest:.1e} at most")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
