"""The platform backend: jobs on La Plateforme, or on a server that speaks its API."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from finetune.corpus.privacy.egress import judge_egress
from finetune.errors import Interrupted, RecipeError
from finetune.progress import Progress, silent

if TYPE_CHECKING:
    from finetune.backends.platform.access import Key
    from finetune.backends.platform.api import Client
    from finetune.backends.platform.reconcile import Confirm
    from finetune.corpus import Dataset
    from finetune.recipe import Recipe
    from finetune.runs import Run


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
        PlatformError: The service cannot be reached, refuses the key, or does not offer this.
        ConfirmationNeeded: It would spend money and nobody said yes.
        TrainingError: The job failed.
        Interrupted: A signal came; the job goes on.
    """
    from finetune.backends.platform.reconcile import Submission

    with connect(recipe, run, key=key) as client:
        check_egress(recipe, dataset, client)
        submission = Submission(run, recipe, dataset, client, confirm=confirm, progress=progress)
        try:
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
    from finetune.backends.platform.access import (
        EMBEDDED,
        VARIABLE,
        Key,
        read_address,
        require_key,
    )
    from finetune.backends.platform.api import Client

    with contextlib.ExitStack() as stack:
        host = recipe.platform.host
        if host == EMBEDDED:
            from finetune.backends.platform.embedded import serve

            if run is None:
                raise RecipeError("platform.host: `embedded` serves a run, and there is none here")
            url, key = stack.enter_context(serve(run))
            address = read_address(url)
        else:
            address = read_address(host)
            if key is None and os.environ.get(VARIABLE):
                key = Key(os.environ[VARIABLE])
        client = Client(address, require_key(key, address))
        stack.callback(client.close)
        yield client


def check_egress(recipe: Recipe, dataset: Dataset, client: Client) -> None:
    """Refuse data that may not leave this machine.

    Raises:
        RecipeError: They may not.
    """
    address = client.address
    if address.local:
        return
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
