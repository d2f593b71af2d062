"""A SkyPilot task: spot machines of the EU, the run folder in a bucket that outlives them.

Made for SkyPilot 0.14: https://docs.skypilot.co/en/latest/reference/yaml-spec.html (2026-11-23).
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import LiteralScalarString

from finetune.clusters.job import Job
from finetune.errors import UsageError
from finetune.text import did_you_mean, size

# Regions in member states of the European Union, by the scheme of the bucket, as the providers
# list them (docs.aws.amazon.com/global-infrastructure, cloud.google.com/compute/docs/regions-zones,
# learn.microsoft.com/azure/reliability/regions-list; 2026-11-23). London and Zurich are not in it.
REGIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "s3": (
        "aws",
        ("eu-central-1", "eu-west-1", "eu-west-3", "eu-north-1", "eu-south-1", "eu-south-2"),
    ),
    "gs": (
        "gcp",
        (
            "europe-west1",
            "europe-west3",
            "europe-west4",
            "europe-west8",
            "europe-west9",
            "europe-west12",
            "europe-north1",
            "europe-central2",
            "europe-southwest1",
        ),
    ),
    "https": (
        "azure",
        (
            "westeurope",
            "northeurope",
            "francecentral",
            "germanywestcentral",
            "swedencentral",
            "italynorth",
            "polandcentral",
            "spaincentral",
        ),
    ),
}
_TASK, _RUNS = "~/task", "/runs"


def write(job: Job) -> str:
    """Return the task as YAML.

    Raises:
        UsageError: No bucket was named, or the recipe asks for several nodes.
    """
    if job.recipe.local.launch.nodes > 1:
        raise UsageError(
            "local.launch.nodes: several nodes must see one run folder, and a bucket is no common"
            " file system",
            hint="one node with more processes, or `--to slurm`",
        )
    document = _describe(job)
    yaml = YAML()
    yaml.width = 10_000  # paths stay on their line
    yaml.indent(mapping=2, sequence=4, offset=2)
    out = io.StringIO()
    yaml.dump(document, out)
    return _introduce(job) + out.getvalue()


def _describe(job: Job) -> dict[str, Any]:
    cloud, regions = REGIONS[_find_scheme(job)]
    return {
        "name": job.name,
        "resources": {
            "accelerators": f"{job.gpu.name}:{job.recipe.local.launch.processes}",
            "use_spot": True,
            "disk_size": math.ceil(job.disk / 1e9),
            "any_of": [{"infra": f"{cloud}/{region}"} for region in regions],
        },
        **({"secrets": {"HF_TOKEN": None}} if job.gated else {}),
        "file_mounts": {
            **{_place(job, path): str(path) for path in job.files},
            _RUNS: {"source": job.bucket, "mode": "MOUNT_CACHED"},
        },
        "setup": LiteralScalarString(
            "set -eu\n"
            "[ -x ~/env/bin/finetune ] || python3 -m venv ~/env\n"
            f"~/env/bin/pip install --quiet {' '.join(repr(name) for name in job.packages)}\n"
        ),
        "run": LiteralScalarString(
            "set -eu\n"
            f"cd {_RUNS}\n"
            f"exec ~/env/bin/finetune run {_place(job, job.file)} --run {_RUNS}/{job.name}"
            f" {job.arguments}\n"
        ),
    }


def _find_scheme(job: Job) -> str:
    scheme = (job.bucket or "").partition("://")[0]
    if scheme not in REGIONS:
        known = ", ".join(f"{name}://…" for name in REGIONS)
        raise UsageError(
            f"--bucket {job.bucket}: the run folder needs a bucket of yours ({known})"
            if job.bucket
            else "--bucket: missing: what a spot machine has done must outlive it",
            hint=did_you_mean(scheme, REGIONS) or "for example `--bucket s3://my-runs`, in the EU",
        )
    return scheme


def _place(job: Job, path: Path) -> str:
    """Return where a file lies there: named as in the recipe, seen from the recipe."""
    written = job.files[path]
    if written.startswith(("/", "~")):
        return written
    return f"{_TASK}/{path.relative_to(job.root).as_posix()}"


def _introduce(job: Job) -> str:
    need = f"{size(job.memory.total)} a process (estimate)" if job.memory else "named by hand"
    lines = [
        f"{job.name}: written by `finetune launch`; nothing has been submitted.",
        "",
        "  sky jobs launch " + ("--secret HF_TOKEN " if job.gated else "") + "THIS-FILE",
        "",
        "After a preemption the job starts again somewhere in the EU and goes on from the newest",
        "checkpoint in the bucket. Put the bucket into the EU as well, and name it in",
        "~/.sky/config.yaml as `jobs.bucket`: SkyPilot copies the files below through it.",
        f"GPU: {need}.",
        "These files leave this machine as they are, personal data in them too:",
        *(f"  {path}" for path in job.files),
    ]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)
