"""Shards on CPUs: FSDP2 by accelerate's own preparation, over gloo, beside one process.

    python benchmarks/launch.py            # a minute

`accelerate launch` refuses FSDP on a CPU; what shards the model (`fsdp2_prepare_model`) does not.
Two processes hold a shard each, and accumulate a step over two micro-batches through our loss.
Printed: the largest difference of a gradient from that of one process, relative to its largest
value, for LoRA and for all weights. Exits 1 above 1e-5.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).parent.parent
MOST = 1e-5


def main() -> int:
    worst = {}
    for what in ("LoRA", "all weights"):
        command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
        options = {"num_processes": 2, "num_machines": 1, "main_process_port": 0}
        options |= {"mixed_precision": "no", "dynamo_backend": "no"}
        options |= {"num_cpu_threads_per_process": 1}
        for key, value in options.items():
            command += [f"--{key}", str(value)]
        done = subprocess.run(
            [*command, __file__, what],
            env=os.environ | {"PYTHONPATH": str(ROOT), "FSDP_VERSION": "2"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        worst[what] = float(done.stdout.split("difference")[1].split()[0])
        print(f"FSDP2 on two CPUs, {what}: gradients within {worst[what]:.1e}")
    return int(max(worst.values()) > MOST)


def build(what: str) -> Any:
    """Return a tiny model, the same in each process."""
    import torch

    from finetune.backends.local.lora import add_adapter
    from finetune.recipe.tree import Lora
    from tests.backends.local.conftest import make_model

    model = make_model()
    if what == "all weights":
        return model.requires_grad_(True)
    model = add_adapter(model, Lora(rank=4))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zero at first: gradients of the others would be, too
            torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(3))
    return model


def shard(model: Any) -> Any:
    """Shard a model as accelerate does on GPUs."""
    import torch
    from accelerate.utils import FullyShardedDataParallelPlugin
    from accelerate.utils.fsdp_utils import fsdp2_prepare_model

    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        reshard_after_forward=True,
        state_dict_type="SHARDED_STATE_DICT",
        cpu_ram_efficient_loading=False,
    )
    accelerator = SimpleNamespace(
        state=SimpleNamespace(fsdp_plugin=plugin),
        mixed_precision="no",
        is_main_process=True,
        parallelism_config=None,
        torch_device_mesh=None,
        device=torch.device("cpu"),
    )
    return fsdp2_prepare_model(accelerator, model)


def work(what: str) -> None:
    """Compare the gradients of two shards with those of one process."""
    from accelerate import PartialState

    from finetune.backends.local.attention import attend_within
    from finetune.backends.local.samples import collate, pack
    from finetune.backends.local.sft import TASK
    from finetune.backends.local.trainer import call_within
    from tests.backends.local.conftest import make_samples

    state = PartialState(cpu=True)
    samples = [pack(sample) for sample in make_samples(8)]
    alone = build(what)
    with attend_within(alone):
        TASK.loss(alone, collate(samples))[0].backward()
    expected = {n: p.grad for n, p in alone.named_parameters() if p.grad is not None}
    model = build(what)
    with attend_within(model):
        model = shard(model)
        loss = call_within(TASK.loss)
        mine = samples[state.process_index :: 2]
        for number, group in enumerate((mine[:2], mine[2:])):
            model.set_requires_gradient_sync(number == 1)
            (loss(model, collate(group))[0] * 2).backward()
    found = {n: p.grad.full_tensor() for n, p in model.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    worst = max(((found[n] - g).abs().max() / g.abs().max()).item() for n, g in expected.items())
    if state.is_main_process:
        print(f"difference {worst}", flush=True)
    state.destroy_process_group()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        work(sys.argv[1])
    else:
        sys.exit(main())
