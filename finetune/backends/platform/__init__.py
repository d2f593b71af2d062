"""The platform backend: jobs on La Plateforme, or on a server that speaks its API."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from finetune.corpus.labels import fill_targets
from finetune.corpus.privacy.egress import allows_host, judge_egress
from finetune.errors import Interrupted, RecipeError, RunError
from finetune.progress import Progress, silent

if TYPE_CHECKING:
    from finetune.backends.platform.access import Address, Key
    from finetune.backends.platform.api import Client
    from finetune.backends.platform.reconcile import Confirm
    from finetune.backends.platform.replies import Job
    from finetune.corpus import Dataset
    from finetune.recipe import Recipe
    from finetune.runs import Run
from finetune.signals import interruptible


def train(
    run: Run,
    recipe: Recipe,
    dataset: Dataset,
    *,
    key: Key | None = None,
    confirm: Confirm | None = None,
    progress: Progress = silent,
) -> None:
    """Train by a job of the service; the same call goes on with the job that there is.

    Args:
        run: The run; its journal tells what was done.
        recipe: What is asked for.
        dataset: What is uploaded.
        key: The key, where it is not in MISTRAL_API_KEY.
        confirm: Asked before money is spent; None where nobody can be asked.
        progress: Told of every state.

    Raises:
        RecipeError: The data may not leave this machine.
        DataError: The labels of a classifier cannot be trained.
        PlatformError: The service cannot be reached, refuses the key, or does not offer this.
        ConfirmationNeeded: It would spend money and nobody said yes.
        TrainingError: The job failed.
        Interrupted: A signal came; the job goes on.
    """
    from finetune.backends.platform.reconcile import Submission

    recipe = fill_targets(recipe, dataset)
    with connect(recipe, run, key=key) as client:
        check_egress(recipe, dataset, client.address)
        submission = Submission(run, recipe, dataset, client, confirm=confirm, progress=progress)
        words, hint = f"{run.folder}: interrupted, state saved", "the same command goes on"
        try:
            with interruptible(words, hint=hint):
                submission.carry_on()
        except Interrupted as error:
            job = run.state.get("job") or _find_job(run)
            if job is None:
                raise
            raise Interrupted(
                error.exit_code - 128,
                f"{run.folder}: detached: job {job} goes on at {client.address.host}",
                hint=f"the same command follows it; `finetune cancel {run.folder.name}` stops it",
            ) from None
        finally:
            for notice in client.notices:
                run.event("notice", text=notice)


@contextlib.contextmanager
def connect(recipe: Recipe, run: Run | None, *, key: Key | None = None) -> Iterator[Client]:
    """Give a client of the recipe's service; an embedded server lives as long as the block.

    Args:
        recipe: Its `platform.host` says where.
        run: Whose folder an embedded server keeps its own in.
        key: The key, where it is not in MISTRAL_API_KEY.

    Raises:
        RecipeError: `platform.host` is no address.
        PlatformError: There is no key.
    """
    from finetune.backends.platform.access import EMBEDDED, read_address

    with contextlib.ExitStack() as stack:
        host = recipe.platform.host
        if host == EMBEDDED:
            from finetune.backends.platform.embedded import serve

            if run is None:
                raise RecipeError("platform.host: `embedded` serves a run, and there is none here")
            host, key = stack.enter_context(serve(run))
        yield stack.enter_context(open_client(read_address(host), key))


@contextlib.contextmanager
def open_client(address: Address, key: Key | None = None) -> Iterator[Client]:
    """Give a client of a service.

    Args:
        address: Where it is.
        key: The key, where it is not in MISTRAL_API_KEY or the keyring.

    Raises:
        PlatformError: There is no key.
    """
    from finetune.backends.platform.access import find_key
    from finetune.backends.platform.api import Client

    client = Client(address, key or find_key(address, os.environ))
    try:
        yield client
    finally:
        client.close()


def cancel(run: Run, *, key: Key | None = None) -> str:
    """Cancel a run's job, and return what became of it.

    Raises:
        RunError: There is no job that could be cancelled.
        PlatformError: The service cannot be reached, or refuses.
    """
    from finetune.backends.platform.access import EMBEDDED

    recipe, job = run.recipe, _find_job(run)
    if recipe.platform.host == EMBEDDED or job is None:
        # The server ends with the process, and the job with the server.
        if not run.cancel():
            _end(run)
        return "cancelled"
    with connect(recipe, run, key=key) as client:
        status = client.cancel_job(job).status
    if run.worker() is None and status in ("CANCELLED", "CANCELLATION_REQUESTED"):
        _end(run)
    return status.lower()


def follow(run: Run, *, key: Key | None = None) -> Iterator[Job]:
    """Yield a run's job now and again until it has ended; nothing is written.

    Raises:
        RunError: It has none.
        PlatformError: The service cannot be reached, or refuses.
    """
    job_id = _find_job(run)
    if job_id is None:
        raise RunError(f"{run.folder}: has no job yet", hint="`finetune run RECIPE` goes on")
    pause = 2.0
    with connect(run.recipe, run, key=key) as client:
        while True:
            job = client.get_job(job_id)
            yield job
            if job.ended:
                return
            client.sleep(pause)
            pause = min(60.0, pause * 1.5)


def _end(run: Run) -> None:
    with run.lock():
        run.event("cancel")
        run.set_state("cancelled", error="cancelled")


def check_egress(recipe: Recipe, dataset: Dataset, address: Address) -> None:
    """Refuse data that may not leave this machine.

    Raises:
        RecipeError: They may not.
    """
    if address.local:
        return
    if not allows_host(recipe.egress.hosts, address.host):
        raise RecipeError(
            f"egress.hosts: records would go to `{address.host}`, which is not one of them",
            hint="add it there, or name another host",
        )
    egress = judge_egress(recipe.egress.personal_data, dataset.manifest.get("privacy"))
    if not egress.allowed:
        raise RecipeError(
            f"egress.personal_data: {recipe.egress.personal_data}: {egress.fact}, and records"
            f" would go to `{address.host}`",
            hint="set `data.privacy`, or `egress.personal_data: any` where they may leave",
        )


def _find_job(run: Run) -> str | None:
    jobs = [event["job_id"] for event in run.events() if event["event"] == "created"]
    return jobs[-1] if jobs else None
