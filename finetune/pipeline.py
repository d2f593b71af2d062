"""Prepare → check → train → evaluate → report: what the command line and Python call.

Example:
    >>> from finetune import load_recipe, run
    >>> recipe = load_recipe("recipes/quickstart.yaml")
    >>> run(recipe).state["state"]                                  # doctest: +SKIP
    'done'
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import corpus, evaluation, report, runs
from finetune.backends import platform
from finetune.errors import (
    ConfirmationNeeded,
    DataError,
    FinetuneError,
    Interrupted,
    PlatformError,
    RunError,
)
from finetune.files import Lock
from finetune.progress import Progress, silent
from finetune.recipe import Recipe
from finetune.runs import Run
from finetune.signals import interruptible

if TYPE_CHECKING:
    from finetune.backends.platform.access import Key
    from finetune.backends.platform.reconcile import Confirm
    from finetune.clusters import Job
    from finetune.planning import Plan

RUNS = Path("runs")
DATASETS = Path("datasets")
_JOIN_SECONDS = 3600.0  # in which the first node must have prepared the data
BACKENDS: dict[str, str] = {
    "local": "finetune.backends.local:train",
    "platform": "finetune.backends.platform:train",
}


def prepare(
    recipe: Recipe,
    *,
    folder: Path = DATASETS,
    workers: int | None = None,
    progress: Progress = silent,
) -> corpus.Dataset:
    """Make the dataset of a recipe, or find it where nothing has changed since.

    Args:
        recipe: What to prepare.
        folder: Where dataset folders lie.
        workers: How many processes convert; chosen by the size of the sources where absent.
        progress: Told about the rows read.

    Raises:
        DataError: More rows were rejected than `data.max_rejected` allows.
        UsageError: A source is not there or has no format that is known.
    """
    return corpus.prepare(recipe, folder=folder, workers=workers, progress=progress)


def plan(
    recipe: Recipe,
    *,
    folder: Path = RUNS,
    datasets: Path = DATASETS,
    memory: int | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> Plan:
    """Return the bill of a recipe: its dataset is made, nothing is downloaded, nothing is sent.

    Args:
        recipe: What would be run.
        folder: Where run folders lie; the speed of an earlier run of this model is taken from it.
        datasets: Where dataset folders lie.
        memory: Plan for a GPU with so many bytes, instead of for this machine.
        workers: How many processes convert; chosen by the size of the sources where absent.
        progress: Told about the rows read and the records counted.

    Raises:
        RecipeError: `training.seq_len` is above the model's context.
        UsageError: There is no such model or source.
        DataError: The data cannot be used.
    """
    from finetune.planning import check_model, make_plan

    check_model(recipe)  # before the data are read
    dataset = prepare(recipe, folder=datasets, workers=workers, progress=progress)
    speed, cost = _measured_speed(recipe, folder), _told_cost(recipe, dataset, folder)
    return make_plan(recipe, dataset, memory=memory, speed=speed, cost=cost, progress=progress)


def run(
    recipe: Recipe,
    *,
    folder: Path = RUNS,
    datasets: Path = DATASETS,
    run_folder: Path | None = None,
    fresh: bool = False,
    workers: int | None = None,
    key: Key | None = None,
    confirm: Confirm | None = None,
    progress: Progress = silent,
) -> Run:
    """Execute a recipe: make the dataset, train, evaluate and report.

    The newest unfinished run of the same recipe and data is continued; a finished one is
    returned as it is.

    Args:
        recipe: What to run.
        folder: Where run folders lie.
        datasets: Where dataset folders lie.
        run_folder: This folder and no other.
        fresh: Start over, whatever there is.
        workers: How many processes convert; chosen by the size of the sources where absent.
        key: The platform's key, where it is not in MISTRAL_API_KEY.
        confirm: Asked before a job spends money; None where nobody can be asked.
        progress: Told about every stage.

    Raises:
        DataError: The data cannot be used.
        PlatformError: The service cannot be reached, or does not offer this.
        ConfirmationNeeded: A job would spend money and nobody said yes.
        RunError: `run_folder` holds a run of another recipe or other data.
        RunLocked: Another process works on this run.
        TrainingError: Training failed.
        Interrupted: A signal came; the same call goes on.
    """
    from finetune.backends.local.launch import check_launch
    from finetune.planning import check_model

    train = _backend(recipe, key=key, confirm=confirm)
    check_model(recipe)
    if recipe.backend == "local" and check_launch(recipe).number:
        return _join(recipe, run_folder, progress)
    dataset = prepare(recipe, folder=datasets, workers=workers, progress=progress)
    evaluation.open_judge(recipe, dataset.manifest)  # before hours of training
    identity = runs.identify(recipe, dataset.digest)
    with Lock(folder / ".lock"):
        current = _find(identity, folder, run_folder, fresh=fresh)
        if current is None:
            place = run_folder or runs.new_folder(folder, recipe.name)
            facts: Any = {"dataset": dataset.folder, "dataset_digest": dataset.digest}
            current = Run.create(place, recipe, identity=identity, **facts)
    if current.state["state"] == "done":
        return current
    with current.lock():
        current.tidy()
        _work(current, recipe, dataset, train, key, progress)
    return current


def launch(
    recipe: Recipe,
    *,
    datasets: Path = DATASETS,
    overrides: Sequence[str] = (),
    gpu: str | None = None,
    bucket: str | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> Job:
    """Return what a cluster's task file says of a recipe; see `clusters.write_task`.

    Args:
        recipe: What is to run there.
        datasets: Where dataset folders lie.
        overrides: `key=value` given beside the recipe.
        gpu: Name of a GPU, instead of the smallest that suffices.
        bucket: Where the run folder lies, of clusters without a common file system.
        workers: How many processes convert.
        progress: Told about the rows read and the records counted.

    Raises:
        UsageError: The recipe is not for the local backend, or no GPU holds it.
        DataError: The data would stop the run.
    """
    from finetune.clusters import describe_job
    from finetune.planning import check_model, make_plan

    place = check_model(recipe)
    dataset = prepare(recipe, folder=datasets, workers=workers, progress=progress)
    bill = make_plan(recipe, dataset, progress=progress)
    if bill.problems:
        raise DataError(bill.problems[0], hint="`finetune plan` shows all of it")
    return describe_job(
        recipe,
        identity=runs.identify(recipe, dataset.digest),
        longest=bill.longest,
        shape=place.shape,
        disk=bill.disk_bytes + sum(download.size_bytes or 0 for download in bill.downloads),
        gated=any(download.gated is not False for download in bill.downloads),
        overrides=overrides,
        gpu=gpu,
        bucket=bucket,
    )


def evaluate(
    current: Run,
    *,
    against: str | None = None,
    judge_key: str | None = None,
    key: Key | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure base and tuned model of a run on its held-out records, and report.

    Args:
        current: The run.
        against: Another run, adapter or model to measure beside them; or `MODEL@URL`.
        judge_key: The key of the recipe's judge, where it is not Mistral's own.
        key: The platform's key, where it is not in MISTRAL_API_KEY.
        progress: Told about the work.

    Raises:
        RunError: The run has no model yet.
        PlatformError: The recipe's judge does not answer, and all else is measured and reported;
            or the platform does not.
    """
    with contextlib.ExitStack() as stack:
        service = None
        if current.model is not None and not current.tuned.is_dir():
            service = stack.enter_context(platform.connect(current.recipe, current, key=key))
        try:
            return evaluation.evaluate(
                current, against=against, judge_key=judge_key, service=service, progress=progress
            )
        finally:
            if current.evaluation():
                report.write_report(current)


def _join(recipe: Recipe, folder: Path | None, progress: Progress) -> Run:
    """Train with the processes of this node in a run that the first node has prepared."""
    from finetune.backends.local.launch import train_in_ranks

    if folder is None:
        raise RunError("--run: missing: all nodes work in one run folder")
    progress("wait", 0)
    give_up = time.monotonic() + _JOIN_SECONDS
    while True:
        current = Run(folder) if (folder / "run.json").is_file() else None
        state = current.state["state"] if current else None
        if current and state == "training":
            train_in_ranks(current, recipe, progress=progress)
            return current
        if current and state in ("evaluating", "done"):
            return current
        if time.monotonic() > give_up:
            raise RunError(f"{folder}: the first node has not begun to train ({state})")
        time.sleep(1)


def _measured_speed(recipe: Recipe, folder: Path) -> float | None:
    """Return the tokens a second of the newest run of this model that has measured any."""
    for current in reversed(runs.list_runs(folder)):
        lines = current.metrics() if current.recipe.model == recipe.model else []
        if speed := runs.measure_speed(lines):
            return speed["tokens_per_second"]
    return None


def _told_cost(recipe: Recipe, dataset: corpus.Dataset, folder: Path) -> str | None:
    """Return what the service said that a job of this recipe and data costs, if there was one."""
    found = runs.find_identity(runs.identify(recipe, dataset.digest), folder)
    told = found.state.get("cost") if found is not None else None
    if found is None or not told or told["amount"] is None:
        return None
    return f"{told['amount']:g} {told['currency']} (job {found.state['job']})"


def _backend(recipe: Recipe, **options: Any) -> Any:
    """Return what trains; the options are those of the platform."""
    module, function = BACKENDS[recipe.backend].split(":")
    train = getattr(importlib.import_module(module), function)
    return functools.partial(train, **options) if recipe.backend == "platform" else train


def _find(identity: str, folder: Path, run_folder: Path | None, *, fresh: bool) -> Run | None:
    if run_folder is None:
        return None if fresh else runs.find_identity(identity, folder)
    if not (run_folder / "run.json").exists():
        return None
    current = Run(run_folder)
    if fresh:
        raise RunError(f"{run_folder}: holds a run already", hint="name another folder")
    if current.identity != identity:
        raise RunError(
            f"{run_folder}: holds a run of another recipe or other data",
            hint="leave `--run` out, or name another folder",
        )
    return current


def _work(
    current: Run,
    recipe: Recipe,
    dataset: corpus.Dataset,
    train: Any,
    key: Key | None,
    progress: Progress,
) -> None:
    try:
        place = f"{current.folder}: interrupted, state saved"
        with interruptible(place, hint="the same command goes on"):
            if current.model is None:
                current.set_state("training")
                train(current, recipe, dataset, progress=progress)
            speed = runs.measure_speed(current.metrics())
            current.set_state("evaluating", **({"speed": speed} if speed else {}))
            _measure(current, dataset, key, progress)
            current.set_state("done", tuned_model=current.model)
    except Interrupted as error:
        state = "cancelled" if _was_asked(current) else "interrupted"
        current.set_state(state, error=error.message)
        raise
    except FinetuneError as error:
        # What a key, a word or a better line would mend has not failed.
        waits = isinstance(error, ConfirmationNeeded) or error.exit_code in (4, 5)
        state = "interrupted" if waits else "cancelled" if _was_asked(current) else "failed"
        current.set_state(state, error=error.message)
        raise
    except Exception as error:
        with contextlib.suppress(OSError):  # the disk may be what failed
            current.set_state("failed", error=f"unexpected {type(error).__name__}")
        raise


def _measure(current: Run, dataset: corpus.Dataset, key: Key | None, progress: Progress) -> None:
    """Evaluate, where that is wanted and something is kept to measure on, and report."""
    measured = current.recipe.evaluation.measure
    if measured and (dataset.evaluation or dataset.validation):
        try:
            evaluate(current, key=key, progress=progress)
        except PlatformError as error:  # there is a model all the same
            current.event("unmeasured", reason=error.message)
    if current.evaluation() is None:
        report.write_report(current)


def _was_asked(current: Run) -> bool:
    """Tell whether somebody has cancelled the run."""
    return any(event["event"] == "cancel" for event in current.events()[-3:])
