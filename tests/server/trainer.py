"""A trainer that ends at once: it makes the run that `finetune run` would, with a given adapter.

`trainer.py ADAPTERS RECIPE --run FOLDER` takes the adapter from `ADAPTERS/<method>`, none where that is
not there; each training is a line of `trained.log` in the server's folder. A recipe of more than 50
steps trains until it is told to stop, one of 12 with a learning rate of 0.01 is really trained.
"""

import os
import shutil
import sys
import time
from pathlib import Path

from finetune import pipeline
from finetune.errors import Interrupted
from finetune.files import read_json
from finetune.recipe import load_recipe


def train(run, recipe, dataset, *, progress):
    steps = read_json(recipe.file.parent / "validation.json")["steps"]
    with open("trained.log", "a") as log:
        log.write(f"{run.folder.name}\n")
    for step in range(1, steps + 1):
        run.metric(
            step=step, epoch=step / steps, tokens=10 * step, loss=1 / step, validation_loss=1.0
        )
        if steps > 50:
            time.sleep(0.03)
    adapter = adapters / recipe.method
    if adapter.is_dir():
        shutil.copytree(adapter, run.adapter)
    else:
        run.adapter.mkdir()


adapters, path, folder = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[4])
recipe = load_recipe(path)
if recipe.training.steps == 12 and recipe.training.learning_rate == 0.01:
    arguments = ["-m", "finetune", "run", str(path), "--run", str(folder), "--json"]
    os.execv(sys.executable, [sys.executable, *arguments])
pipeline.BACKENDS["local"] = "__main__:train"
try:
    pipeline.run(recipe, run_folder=folder)
except Interrupted as error:
    sys.exit(error.exit_code)
