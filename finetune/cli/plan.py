"""`finetune plan`: the bill."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from finetune.cli.console import Console, output_options
from finetune.cli.options import recipe_options, workers_option
from finetune.errors import UsageError
from finetune.text import duration, plural, safe, size

if TYPE_CHECKING:
    from finetune.planning import Plan


@click.command("plan")
@recipe_options
@click.option(
    "--memory",
    type=click.FloatRange(min=0, min_open=True),
    metavar="GB",
    help="Plan for a GPU with so much memory, not for this machine.",
)
@workers_option
@output_options
def command(
    recipe: Path,
    overrides: tuple[str, ...],
    backend: str | None,
    *,
    memory: float | None,
    workers: int | None,
    console: Console,
) -> None:
    """Show the bill of a recipe: records, tokens, steps, memory, cost, what leaves the machine.

    The dataset is made (and kept for the run); nothing is downloaded, nothing is sent. Exits 3
    where the data would stop the run.
    """
    from finetune import pipeline
    from finetune.recipe import load_recipe

    loaded = load_recipe(recipe, overrides, backend=backend)
    if memory is not None and not math.isfinite(memory):
        raise UsageError(f"--memory {memory}: is no number of GB")
    budget = None if memory is None else round(memory * 1e9)
    with console.progress() as progress:
        plan = pipeline.plan(loaded, memory=budget, workers=workers, progress=progress)
    console.emit(plan)
    console.name(plan.dataset)
    _show_data(console, plan)
    _show_steps(console, plan)
    _show_memory(console, plan)
    _show_outside(console, plan)
    for note in plan.notes:
        console.show(f"note         {note}")
    for problem in plan.problems:
        console.show(f"problem      {problem}", style="red")
    chosen = ["--backend", backend] if backend else []
    given = [word for pair in overrides for word in ("-s", pair)]
    console.next(shlex.join(["finetune", "run", str(recipe), *chosen, *given]))
    if plan.problems:
        raise click.exceptions.Exit(3)


def _show_data(console: Console, plan: Plan) -> None:
    about = "" if plan.exact else "about "
    console.show(f"model        {plan.model}  ({plan.licence or 'not in the catalog'})")
    console.show(f"method       {plan.method} on the {plan.backend} backend")
    console.show(
        f"records      {plan.records:,} to train, {plan.validation_records:,} validation, "
        f"{plan.evaluation_records:,} evaluation"
    )
    console.show(
        f"tokens       {about}{plan.tokens:,} in {plural(plan.samples, 'sample')}, "
        + ("" if plan.targets else f"{plan.trained_tokens:,} trained, ")
        + f"longest {plan.longest:,}"
    )
    for source in plan.sources:
        console.show(
            f"  {source.name:<26} {plural(source.records, 'record')}, {source.tokens:,} tokens"
            + (f", weight {source.weight:g}" if source.weight != 1 else "")
        )
    for target in plan.targets:
        kind = "one a record" if target.loss_function == "single_class" else "any number a record"
        weight = f", weight {target.weight:g}" if target.weight != 1 else ""
        console.show(
            f"target       {target.name}: {plural(len(target.labels), 'label')}, {kind}{weight}"
        )
        console.show(f"  {safe(', '.join(target.labels), 400)}")
    if plan.expansion_tokens:
        share = plan.expansion_tokens / plan.tokens
        console.show(
            f"expansion    {plan.expansion_tokens:,} of these tokens ({share:.0%}) repeat a "
            "conversation for each trained turn"
        )


def _show_steps(console: Console, plan: Plan) -> None:
    if plan.steps is not None:
        console.show(
            f"steps        {plan.steps:,} optimizer steps, {plan.epochs:.4g} epochs, "
            f"{plan.tokens_seen:,} tokens"
        )
        known = "unknown: no speed was measured here"
        if plan.seconds and plan.tokens_per_second:
            known = f"{duration(plan.seconds)} at {plan.tokens_per_second:,.0f} tokens/s, as before"
        console.show(f"time         {known}")
    if plan.flops:
        console.show(f"compute      {plan.flops:.3g} floating-point operations")


def _show_memory(console: Console, plan: Plan) -> None:
    memory = plan.memory
    if memory is None:
        return
    each = f" in each of {memory.processes} processes" if memory.processes > 1 else ""
    console.show(f"memory       {size(memory.total_bytes)} at the peak{each} (estimate)")
    for name, part in memory.parts.items():
        console.show(f"  {name:<13} {size(part):>10}")
    fits = "fits" if memory.fits else "does not fit"
    console.show(
        f"device       {memory.device} with {size(memory.available_bytes)} free: {fits}",
        style=None if memory.fits else "red",
    )
    again = ", gradient checkpointing" if memory.gradient_checkpointing else ""
    console.show(f"at once      {memory.micro_batch_tokens:,} tokens{again}")
    console.show(f"seq_len      {memory.largest_seq_len:,} tokens is the largest that fits")
    trainable = sum(memory.trainable.values())
    console.show(f"trainable    {trainable:,} weights in {', '.join(memory.trainable)}")
    console.show(f"disk         {size(plan.disk_bytes)} for checkpoints and adapter")


def _show_outside(console: Console, plan: Plan) -> None:
    for download in plan.downloads:
        amount = f"about {size(download.size_bytes)}" if download.size_bytes else "size unknown"
        console.show(f"download     {download.what}: {amount} from the Hugging Face hub")
        if download.gated is not False and not download.token_present:
            asks = "asks" if download.gated else "may ask"
            console.show(f"  the hub {asks} for its terms to be accepted: then set HF_TOKEN")
    for upload in plan.uploads:
        console.show(f"leaves       {upload.file}, {size(upload.size_bytes)}, to {upload.host}")
    if not plan.uploads:
        console.show("leaves       nothing of the data leaves this machine")
    cost = plan.cost
    if cost is None:
        return
    told = cost.told or f"unknown until {cost.model} has validated the job"
    console.show(f"cost         {told}")
    for tokens, steps in cost.steps.items():
        console.show(f"  {plural(steps, 'step')} if a step is {tokens:,} tokens there")
    for fact in cost.facts:
        console.show(f"  {fact}")
    if cost.max_cost:
        console.show(f"  the run stops before it spends more than {cost.max_cost}")
    for warning in cost.warnings:
        console.show(f"warning      {warning}")
