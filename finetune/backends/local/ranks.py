"""Ranks: the processes that train one model together, and what they say to each other.

Each rank holds the whole schedule, so that counts need no communication. The first one writes;
the others write nothing but their part of a checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from finetune.errors import RunError

if TYPE_CHECKING:
    from finetune.recipe.tree import Launch


class Ranks(NamedTuple):
    """A process among those that train together.

    Attributes:
        number: Which one this is, from 0.
        total: How many there are.
        here: Which one on its machine: the number of its GPU.
    """

    number: int = 0
    total: int = 1
    here: int = 0

    @property
    def first(self) -> bool:
        """Whether this one writes."""
        return self.number == 0

    def wait(self) -> None:
        """Return when all ranks have come here."""
        if self.total > 1:
            from torch import distributed

            distributed.barrier()

    def add(self, *values: float) -> list[float]:
        """Return the sums of each value over all ranks."""
        if self.total == 1:
            return list(values)
        import torch
        from torch import distributed

        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        sums = torch.tensor(values, dtype=torch.float64, device=device)
        distributed.all_reduce(sums)
        return [float(value) for value in sums.tolist()]

    def any(self, value: bool) -> bool:
        """Tell whether one of the ranks says yes."""
        return self.add(float(value))[0] > 0


ALONE = Ranks()


def read_ranks(launch: Launch, environment: Mapping[str, str] = os.environ) -> Ranks:
    """Return which rank this process is, from what torch's launchers put into the environment.

    Raises:
        RunError: There are more or fewer processes than the recipe says.
    """
    count = int(environment.get("WORLD_SIZE") or 1)
    wanted = launch.processes * launch.nodes
    if count != wanted:
        raise RunError(
            f"local.launch: {launch.processes} x {launch.nodes} processes are to train,"
            f" {count} were started",
            hint="call `finetune run` itself: it starts the processes that `local.launch` names",
        )
    number = int(environment.get("RANK") or 0)
    return Ranks(number, count, int(environment.get("LOCAL_RANK") or 0))
