"""A trainer that ends at once: it makes the run that `finetune run` would, with a given adapter.

`trainer.py ADAPTER RECIPE --run FOLDER`; each training is a line of `trained.log` in the server's folder. A
recipe of more than 50 steps trains until it is told to stop. ADAPTER may be `-` for none.
"""

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
    if adapter.is_dir():
        shutil.copytree(adapter, run.adapter)
    else:
        run.adapter.mkdir()


adapter, path, folder = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[4])
pipeline.BACKENDS["local"] = "__main__:train"
try:
    pipeline.run(load_recipe(path), run_folder=folder)
except Interrupted as error:
    sys.exit(error.exit_code)
