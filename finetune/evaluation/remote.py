"""Remote: the exam for models that are served elsewhere; they give answers, and no losses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import NamedTuple

from finetune.backends.platform import check_egress
from finetune.backends.platform.access import read_endpoint
from finetune.backends.platform.answers import Speaker
from finetune.backends.platform.api import Client
from finetune.backends.platform.jobs import name_model
from finetune.backends.platform.retry import Refused
from finetune.catalog import STAND_INS, find_model
from finetune.corpus import Dataset
from finetune.errors import RecipeError, UsageError
from finetune.evaluation.answers import Answer, read_answer
from finetune.evaluation.cases import Case, Gap
from finetune.evaluation.exam import Exam, Outcome
from finetune.progress import Progress
from finetune.recipe import Recipe
from finetune.runs import Run
from finetune.text import safe
from finetune.tokens import Tokenizer, load_tokenizer

NO_LOSSES = "the service tells no losses"
_AT_ONCE = 4
_ANY = "v3-tekken"  # counts where nothing else can: only the lengths of records are looked at


class Elsewhere(NamedTuple):
    """A model behind an address, written `MODEL@URL`.

    Attributes:
        model: Its name there.
        url: Such as `http://127.0.0.1:8000/v1`.
    """

    model: str
    url: str


def read_elsewhere(name: str | None) -> Elsewhere | None:
    """Return the model behind an address that a name means, None where it means another thing.

    Example:
        >>> read_elsewhere("mistral-small-latest@https://api.mistral.ai/v1").model
        'mistral-small-latest'
        >>> read_elsewhere("mistral-nemo")
    """
    model, at, url = (name or "").rpartition("@")
    return Elsewhere(model, url) if at and model and "://" in url else None


@contextmanager
def open_elsewhere(
    elsewhere: Elsewhere,
    recipe: Recipe,
    dataset: Dataset,
    key: str | None,
    service: Client | None = None,
) -> Iterator[Speaker]:
    """Give a model behind an address; where that is the run's own service, with its key.

    Raises:
        RecipeError: The held-out records may not go there.
    """
    address, sent = read_endpoint(elsewhere.url, key, os.environ, place="--against")
    limit = recipe.evaluation.max_new_tokens
    if service is not None and service.address == address:
        yield Speaker(service, elsewhere.model, max_new_tokens=limit)
        return
    with closing(Client(address, sent)) as client:
        check_egress(recipe, dataset, address)
        yield Speaker(client, elsewhere.model, max_new_tokens=limit)


def hear_both(run: Run, exam: Exam, client: Client, progress: Progress) -> dict[str, Outcome]:
    """Return what base and tuned model of a run on the platform make of the exam.

    A service may not serve the base: then there is the tuned model alone.
    """
    limit = run.recipe.evaluation.max_new_tokens
    outcomes = {}
    try:
        base = Speaker(client, name_model(run.recipe), max_new_tokens=limit)
        outcomes["base"] = hear(exam, base, "base", progress)
    except (Refused, RecipeError) as error:
        run.event("unmeasured", model="base", reason=error.message)
    tuned = Speaker(client, str(run.model), max_new_tokens=limit)
    outcomes["tuned"] = hear(exam, tuned, "tuned", progress)
    return outcomes


def hear(exam: Exam, speaker: Speaker, name: str, progress: Progress) -> Outcome:
    """Return what a model elsewhere makes of the exam; several questions are on their way at once.

    Raises:
        PlatformError: It does not answer.
    """

    def ask(case: Case) -> Answer:
        if isinstance(case.question, Gap):
            return Answer(speaker.fill(case.question.prefix, case.question.suffix))
        assert case.question is not None  # noqa: S101 (only such cases are asked)
        return read_answer(speaker.answer(case.question.messages, case.question.tools))

    answers: list[Answer] = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        try:
            for answer in pool.map(ask, exam.asked):
                answers.append(answer)
                progress(f"ask {name}", len(answers), len(exam.asked))
        except BaseException:
            pool.shutdown(cancel_futures=True)  # so that one failure is not met fifty times
            raise
    return Outcome(losses=[], worse=[], general=[], answers=answers)


def find_tokenizer(ref: str) -> Tokenizer:
    """Return a tokenizer that tells how long a record is: the model's own, or one like it."""
    try:
        return load_tokenizer(ref)
    except UsageError:
        model = find_model(ref)
        return load_tokenizer(STAND_INS.get((model and model.tokenizer) or "", _ANY))


def describe(speaker: Speaker) -> str:
    """Return a model elsewhere for people."""
    return f"{safe(speaker.model)} at {safe(speaker.client.address.host)}"
