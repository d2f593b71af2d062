"""Kills `prepare` at every file operation and at random times, and fills its disk at many sizes.

Each is done in a fork. `python tests/corpus/sweep.py RECIPE-AS-JSON FOLDER 200` kills it at 200
random times; without a number at ten.

After each, the same call must end with the bytes of an unbroken one, and before that nothing may
stand under a final name but a whole dataset. Prints how many were killed and how many found the
disk full.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

from finetune.corpus import Dataset, prepare
from finetune.recipe import Recipe

OPERATIONS = {
    "open",
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "shutil.rmtree",
    "os.scandir",
}
recipe = Recipe.model_validate_json(sys.argv[1])
root = Path(sys.argv[2])


def bytes_of(folder: Path):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def fork(work) -> int:
    """Run `work` in a fork and return how it ended."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def kill_at(number: int, folder: Path):
    def work():
        left = number

        def count(event, arguments):
            nonlocal left
            if event in OPERATIONS:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        prepare(recipe, folder=folder)

    return work


def fill_at(size: int, folder: Path):
    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        prepare(recipe, folder=folder)

    return work


def check(folder: Path, *, clean: bool) -> None:
    visible = [p for p in folder.glob("*") if not p.name.startswith(".")] if folder.exists() else []
    assert all(Dataset.load(path).is_whole() for path in visible), visible
    if clean and folder.exists():
        assert not visible, visible
        assert not list(folder.iterdir()), "left-overs"
    prepare(recipe, folder=folder)
    assert bytes_of(folder) == reference
    shutil.rmtree(folder)


def kill_after(seconds: float, folder: Path) -> int:
    """Kill a fork that prepares; return how it ended."""
    child = os.fork()
    if child == 0:
        prepare(recipe, folder=folder)
        os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


prepare(recipe, folder=root / "reference")
started = time.perf_counter()  # the second time nothing is imported any more, as in a fork
prepare(recipe, folder=root / "timed")
whole = time.perf_counter() - started
reference = bytes_of(root / "reference")
killed = full = 0
status = -1
while status != 0:
    killed += 1
    status = fork(kill_at(killed, root / "killed"))
    check(root / "killed", clean=False)
for size in range(0, 40_000, 1500):
    if fork(fill_at(size, root / "full")) == 0:
        break
    full += 1
    check(root / "full", clean=True)
rng, midway = random.Random(0), 0
for _ in range(int(sys.argv[3]) if len(sys.argv) > 3 else 10):
    midway += kill_after(rng.uniform(0, whole), root / "midway") == signal.SIGKILL
    check(root / "midway", clean=False)
print(killed, full, midway)
