"""A Slurm batch script: one task a node, each of which starts its own processes.

Options as in https://slurm.schedmd.com/sbatch.html (read 2026-11-23).
"""

from __future__ import annotations

import shlex

from finetune.clusters.job import Job
from finetune.text import size

_CORES = 8  # for each GPU
_GRACE = 600  # seconds before the end of its time in which a job saves and stops


def write(job: Job) -> str:
    """Return the script."""
    launch = job.recipe.local.launch
    options = {
        "job-name": job.name,
        "nodes": launch.nodes,
        "ntasks-per-node": 1,
        "gpus-per-node": launch.processes,
        "cpus-per-task": launch.processes * _CORES,
        "time": "24:00:00",
        "signal": f"TERM@{_GRACE}",
        "requeue": None,
        "open-mode": "append",
        "output": f"{job.name}-%j.log",
        "chdir": str(job.here),
    }
    directives = [
        f"#SBATCH --{key}" + ("" if value is None else f"={shlex.quote(str(value))}")
        for key, value in options.items()
    ]
    packages = shlex.join(job.packages)
    command = f"finetune run {shlex.quote(str(job.file))} --run runs/{job.name} {job.arguments}"
    return "\n".join(["#!/bin/bash", *_introduce(job), *directives, "", _BODY]).format(
        packages=packages, command=command
    )


# The first node's address and a port that follows from the job's number are what the nodes need
# to find each other. 143 is what `finetune run` ends with when it has saved after a SIGTERM.
_BODY = """\
set -euo pipefail

env=$PWD/.finetune-env
if [ ! -x "$env/bin/finetune" ]; then
  python3 -m venv "$env"
  "$env/bin/pip" install --quiet {packages}
fi
export PATH="$env/bin:$PATH"
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))

code=0
srun --kill-on-bad-exit=1 {command} || code=$?
if [ "$code" = 143 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


def _introduce(job: Job) -> list[str]:
    need = f"{size(job.memory.total)} (estimate)" if job.memory else "what was named by hand"
    lines = [
        f"{job.name}: written by `finetune launch`; nothing has been submitted.",
        "",
        "  sbatch THIS-FILE",
        "",
        f"Each GPU needs {need}: {job.gpu.name} or larger. Add your site's partition,",
        "account and GPU type as #SBATCH lines. Ten minutes before its time is over, or when it is",
        "preempted, the job saves, stops and is put into the queue again; it goes on exactly.",
        "Where compute nodes have no network: make the environment and fetch the model on the",
        "login node first. All nodes must see these files and the working folder:",
        *(f"  {path}" for path in job.files),
    ]
    return [f"# {line}".rstrip() for line in lines]
