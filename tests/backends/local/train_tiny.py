"""Trains a tiny model: `train_tiny.py FOLDER [--full-after STEP]`, one line a step.

After STEP no file of more than 10 kB can be written any more.
"""

import resource
import sys
from pathlib import Path

import torch

from finetune.backends.local.lora import add_adapter
from finetune.backends.local.samples import pack
from finetune.backends.local.sft import TASK
from finetune.errors import FinetuneError
from tests.backends.local.conftest import go_on, make_model, make_recipe, make_samples

torch.set_num_threads(1)
full_after = int(sys.argv[3]) if len(sys.argv) > 3 else None
recipe = make_recipe()
samples = [pack(sample) for sample in make_samples(24)]


def show(*, step, loss, **_):
    print(step, loss, flush=True)
    if step == full_after:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))


try:
    model = add_adapter(make_model(), recipe.local.lora)
    go_on(TASK, model, samples, recipe, folder=Path(sys.argv[1]), metric=show)
except FinetuneError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
