"""`finetune launch`: a recipe as a task file for a cluster."""

from __future__ import annotations

from pathlib import Path

import click

from finetune.cli.console import Console, output_options
from finetune.cli.options import recipe_options, workers_option
from finetune.text import size


@click.command("launch")
@recipe_options
@click.option("--to", required=True, metavar="CLUSTER", help="skypilot or slurm.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--gpu", metavar="NAME", help="This GPU, not the smallest that suffices.")
@click.option("--bucket", metavar="URL", help="Of skypilot: where the run folder lies.")
@workers_option
@output_options
def command(
    recipe: Path,
    overrides: tuple[str, ...],
    backend: str | None,
    *,
    to: str,
    output: Path | None,
    gpu: str | None,
    bucket: str | None,
    workers: int | None,
    console: Console,
) -> None:
    """Write a task file that runs a recipe on a cluster: set-up, data, GPUs, continuation.

    Nothing is submitted. The dataset is made (and kept), so that memory and GPUs can be told.
    """
    from finetune import pipeline
    from finetune.clusters import find_cluster, write_task
    from finetune.recipe import load_recipe

    ending = find_cluster(to)
    loaded = load_recipe(recipe, overrides, backend=backend)
    with console.progress() as progress:
        job = pipeline.launch(
            loaded, overrides=overrides, gpu=gpu, bucket=bucket, workers=workers, progress=progress
        )
    output = output or Path(f"{job.name}{ending}")
    submit = write_task(job, to, output)
    launch = loaded.local.launch
    memory = job.memory.total if job.memory else None
    console.emit(
        {
            "file": str(output),
            "name": job.name,
            "cluster": to,
            "gpu": job.gpu.name,
            "processes": launch.processes,
            "nodes": launch.nodes,
            "memory_bytes": memory,
            "files": [str(path) for path in job.files],
            "command": submit,
        }
    )
    console.name(output)
    console.show(f"file     {output}")
    console.show(f"GPUs     {launch.nodes} x {launch.processes} {job.gpu.name}")
    if memory:
        console.show(f"memory   {size(memory)} a process (estimate)")
    verb = "leaves" if job.bucket else "reads"
    for path in job.files:
        console.show(f"{verb:<8} {path}")
    console.next(submit)
