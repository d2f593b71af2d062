"""Submissions that crash and lose replies, each until it has succeeded: in no time, by chance.

A submission is stopped at a step (of those that it really takes), the service loses, garbles or
refuses calls or is killed itself, and the same submission is made again until it ends.
"""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

from finetune.backends.platform.reconcile import Submission
from finetune.corpus import Dataset, prepare
from finetune.errors import FinetuneError
from finetune.recipe import load_recipe
from finetune.runs import Run
from tests.backends.platform.service import Service, Site

RECIPE = """
model: mistral-nemo
backend: platform
data:
  train:
    - {path: a.jsonl}
    - {path: b.jsonl, weight: 2}
  validation: 0.3
platform: {suffix: triage, max_cost: 20 EUR}
egress: {personal_data: any}
"""
FATES = (
    "lose",
    "kill",
    "drop",
    "half",
    500,
    503,
    429,
    409,
    ("after", 500),
    ("after", 409),
    "crash",
)
LINE = '{{"messages":[{{"role":"user","content":"{0} {1}"}},{{"role":"assistant","content":"{1}"}}]}}\n'
MOST_RERUNS = 12


class Crash(BaseException):
    """The process is gone."""


class Time:
    """A clock that only waiting moves on."""

    def __init__(self):
        self.now = 0.0

    def sleep(self, seconds):
        assert 0 <= seconds <= 120, seconds
        self.now += seconds

    def clock(self):
        return self.now

    def wall(self):
        return 1_760_000_000.0 + self.now


def write_sources(folder: Path) -> None:
    """Write a recipe and its two sources."""
    for name in "ab":
        lines = [LINE.format(f"{name}{number}", "x" * (number % 7 + 1)) for number in range(60)]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    (folder / "r.yaml").write_text(RECIPE)


def make_dataset(folder: Path) -> tuple[object, Dataset]:
    """A recipe with two sources, and its dataset."""
    write_sources(folder)
    recipe = load_recipe(folder / "r.yaml")
    return recipe, prepare(recipe, folder=folder / "datasets")


def make_run(folder: Path, recipe, dataset: Dataset) -> Run:
    return Run.create(
        folder, recipe, identity="0" * 16, dataset=dataset.folder, dataset_digest=dataset.digest
    )


def submit(run, recipe, dataset, service, *, time=None, reach=lambda _: None, **options):
    """Carry a submission on; the server works while it waits."""
    time = time or Time()

    def sleep(seconds):
        time.sleep(seconds)
        service.step()

    client = service.client(clock=time.clock, sleep=sleep, wall=time.wall, dice=random.Random(0))
    options = {"confirm": lambda _: True, "reach": reach, **options}
    with contextlib.closing(client):
        return Submission(run, recipe, dataset, client, **options).carry_on()


def list_steps(folder: Path, recipe, dataset: Dataset, site: Site) -> list[str]:
    """The steps that an unbroken submission takes, in order."""
    steps: list[str] = []
    run = make_run(folder / "run", recipe, dataset)
    submit(run, recipe, dataset, Service(site, folder / "server"), reach=steps.append)
    return steps


class Trouble:
    """What goes wrong in one submission, by its number."""

    def __init__(self, number: int, steps: int):
        dice = random.Random(number)
        self.step = number % (steps + 1)  # where it crashes; the last: nowhere
        self.share = (0.0, 0.05, 0.2, 0.4)[dice.randrange(4)]
        self.reached, self.dice, self.last = 0, dice, 0

    def reach(self, _: str) -> None:
        self.reached += 1
        if self.reached == self.step + 1:
            raise Crash

    def fate(self, method: str, path: str, count: int):
        # A service that never answers cannot be used: trouble ends in the end.
        self.last += 1
        if self.last > 60 or self.dice.random() >= self.share:
            return None
        fate = self.dice.choice(FATES)
        if fate == "crash":
            raise Crash
        return fate if method != "GET" or fate not in (409, ("after", 409)) else 500


def simulate(number: int, folder: Path, recipe, dataset: Dataset, site: Site, steps: int):
    """Make one submission until it ends; return its service and its last status.

    Args:
        number: Where it crashes, and where chance begins.
        folder: A place for it.
        recipe: The recipe.
        dataset: Its dataset.
        site: What it shares with others.
        steps: How many steps an unbroken submission takes.
    """
    trouble, time = Trouble(number, steps), Time()
    service = Service(site, folder / "server", trouble.fate)
    run = make_run(folder / "run", recipe, dataset)
    for _ in range(MOST_RERUNS):
        with contextlib.suppress(Crash, FinetuneError):
            job = submit(run, recipe, dataset, service, time=time, reach=trouble.reach)
            return service, job.status
    return service, "nothing"
