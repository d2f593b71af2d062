"""Clusters: a recipe as a task file that somebody else's scheduler runs. Nothing is submitted.

CLUSTERS is the whole list. Each module has `write(job) -> str`: the same recipe, data and options
give the same text.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from finetune.clusters.job import GPUS, Gpu, Job, describe_job
from finetune.errors import UsageError
from finetune.text import did_you_mean

__all__ = ["CLUSTERS", "GPUS", "Gpu", "Job", "describe_job", "write_task"]

CLUSTERS: dict[str, tuple[str, str, str]] = {
    "skypilot": ("finetune.clusters.skypilot", ".sky.yaml", "sky jobs launch {secret}{file}"),
    "slurm": ("finetune.clusters.slurm", ".sbatch", "sbatch {file}"),
}


def write_task(job: Job, to: str, output: Path) -> str:
    """Write the task file of a job and return the command that submits it.

    Args:
        job: What is to run.
        to: A key of CLUSTERS.
        output: The file.

    Raises:
        UsageError: There is no such cluster, or the job does not fit it.
    """
    find_cluster(to)
    module, _, command = CLUSTERS[to]
    text: str = importlib.import_module(module).write(job)
    output.write_text(text, encoding="utf-8")
    return command.format(file=output, secret="--secret HF_TOKEN " if job.gated else "")


def find_cluster(name: str) -> str:
    """Return how the task files of a cluster end.

    Raises:
        UsageError: There is no such cluster.
    """
    if name not in CLUSTERS:
        hint = did_you_mean(name, CLUSTERS) or f"there are {', '.join(CLUSTERS)}"
        raise UsageError(f"--to {name}: no such cluster", hint=hint)
    return CLUSTERS[name][1]
