"""Kills `prepare` at every file operation and fills its disk at many sizes, each in a fork.

After each, the same call must end with the bytes of an unbroken one, and before that nothing may
stand under a final name but a whole dataset. Prints how many were killed and how many found the
disk full.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
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


prepare(recipe, folder=root / "reference")
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
print(killed, full)
