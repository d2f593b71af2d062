"""One rank: the process that `accelerate launch` starts to train its share of a run.

`python -m finetune.backends.local.rank RUN`, see `launch`.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import msgspec

from finetune.backends.local import train_here
from finetune.backends.local.ranks import read_ranks
from finetune.corpus import Dataset
from finetune.errors import FinetuneError, TrainingError
from finetune.progress import silent
from finetune.runs import Run
from finetune.signals import interruptible


class Reader(Run):
    """A run that the first rank writes, as the others see it."""

    def set_state(self, state: str, **facts: Any) -> None:
        """Write nothing."""

    def event(self, name: str, **facts: Any) -> None:
        """Write nothing."""

    def metric(self, **values: Any) -> None:
        """Write nothing."""


def main(folder: Path) -> int:
    """Train this rank's share of the run in `folder` and return the exit code."""
    say = _Messages()
    threading.Thread(target=_listen, daemon=True).start()
    try:
        with interruptible("interrupted before the first step"):
            recipe = Run(folder).recipe
            ranks = read_ranks(recipe.local.launch)
            _meet()
            run = Run(folder) if ranks.first else Reader(folder)
            progress = say.progress if ranks.first else silent
            train_here(run, recipe, Dataset.load(run.dataset), progress=progress)
            _part()
    except FinetuneError as error:
        say.error(error)
        return error.exit_code
    except Exception as error:  # noqa: BLE001 (whoever follows has to hear of it)
        traceback.print_exc()
        say.error(TrainingError(f"{folder}: a training process failed: {type(error).__name__}"))
        return TrainingError.exit_code
    return 0


class _Messages:
    """Lines of JSON to the process that follows; all else that is printed goes to the log."""

    def __init__(self) -> None:
        self._to = os.dup(1)
        os.dup2(2, 1)

    def progress(
        self, stage: str, done: int, total: int | None = None, **facts: float | str
    ) -> None:
        self._write({"progress": [stage, done, total, facts]})

    def error(self, error: FinetuneError) -> None:
        self._write({"error": {"type": type(error).__name__, "state": vars(error)}})

    def _write(self, message: dict[str, Any]) -> None:
        os.write(self._to, msgspec.json.encode(message) + b"\n")


def _listen() -> None:
    """Turn what comes in into signals; end with the process that follows, at once."""
    while number := os.read(0, 1):
        os.kill(os.getpid(), number[0])
    os._exit(1)


def _meet() -> None:
    """Join the other ranks: NCCL between GPUs, gloo between CPUs."""
    import torch
    from accelerate import PartialState

    PartialState(cpu=not torch.cuda.is_available())


def _part() -> None:
    from torch import distributed

    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
