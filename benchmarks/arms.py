"""What the training benchmarks share: each arm trains in a process of its own, on one thread.

The adapter is the same in every arm, and so are the numbers that are computed in: those that the
backend chooses for this processor, bfloat16 or float32.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RANK, ALPHA, RATE = 16, 32, 1e-4
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
MARK = "RESULT "


class Clock:
    """CPU time and loss of each step.

    Args:
        tokens: Of each step.
    """

    def __init__(self, tokens: list[int]) -> None:
        self.tokens = tokens
        self.times: list[float] = []
        self.losses: list[float] = []
        self.before = 0.0  # spent on all steps before the first

    def step(self, loss: float) -> None:
        """Note that a step is over."""
        self.times.append(time.process_time())
        self.losses.append(loss)

    def result(self) -> dict[str, Any]:
        """Return tokens per CPU second after the first step, peak memory in MB, and the losses."""
        counted = sum(self.tokens[1 : len(self.times)])
        share = counted / sum(self.tokens)
        spent = self.times[-1] - self.times[0] + self.before * share
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return {"speed": counted / spent, "memory": memory, "losses": self.losses}


def find_dtype() -> Any:
    """Return the numbers that the backend computes in here."""
    import torch

    from finetune.backends.local.model import choose_dtype

    return getattr(torch, choose_dtype("auto", "cpu"))


def spawn(command: list[str]) -> dict[str, Any]:
    """Run an arm, a command that calls `tell`, and return its result."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    line = next(line for line in done.stdout.splitlines() if line.startswith(MARK))
    return json.loads(line.removeprefix(MARK))


def tell(clock: Clock) -> None:
    """Print the result of the arm that this process is."""
    print(MARK + json.dumps(clock.result()))


def show(arm: str, result: dict[str, Any]) -> None:
    """Print a line of the table."""
    losses = " ".join(f"{loss:.5f}" for loss in result["losses"][:3])
    print(f"{arm:13} {result['speed']:8.1f} tok/s {result['memory']:7.0f} MB  losses {losses}")


def apart(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Return the largest difference of a loss."""
    pairs = zip(one["losses"], other["losses"], strict=False)
    return max(abs(a - b) for a, b in pairs)
