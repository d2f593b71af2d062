"""Submissions that crash and lose replies, each until it has succeeded: in no time, by chance.

    python -m tests.backends.platform.simulation 1000

A submission is stopped at a step (of those that it really takes), the service loses, garbles or
refuses calls, and the same submission is made again until it ends. What is counted: jobs that were
started, and submissions that did not end in SUCCESS.
"""

from __future__ import annotations

import contextlib
import random
import sys
import tempfile
import time
from pathlib import Path

from finetune.backends.platform.access import Key, read_address
from finetune.backends.platform.api import Client
from finetune.backends.platform.reconcile import Submission
from finetune.corpus import Dataset, prepare
from finetune.errors import FinetuneError
from finetune.recipe import load_recipe
from finetune.runs import Run
from tests.backends.platform.service import Service

KEY = "CANARY-key-0123456789"
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
FATES = ("lose", "drop", "half", 500, 503, 429, 409, ("after", 500), ("after", 409), "crash")
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


def make_dataset(folder: Path) -> tuple[object, Dataset]:
    """A recipe with two sources, and its dataset."""
    for name in "ab":
        lines = [LINE.format(f"{name}{number}", "x" * (number % 7 + 1)) for number in range(60)]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    (folder / "r.yaml").write_text(RECIPE)
    recipe = load_recipe(folder / "r.yaml")
    return recipe, prepare(recipe, folder=folder / "datasets")


def make_run(folder: Path, recipe, dataset: Dataset) -> Run:
    return Run.create(
        folder, recipe, identity="0" * 16, dataset=dataset.folder, dataset_digest=dataset.digest
    )


def submit(run, recipe, dataset, service, *, time=None, reach=lambda _: None, **options):
    """Carry a submission on against a service of the simulation."""
    time = time or Time()
    client = Client(
        read_address("api.mistral.ai"), Key(KEY), transport=service.transport, clock=time.clock,
        sleep=time.sleep, wall=time.wall, dice=random.Random(0),
    )  # fmt: skip
    options = {"confirm": lambda _: True, "reach": reach, **options}
    try:
        return Submission(run, recipe, dataset, client, **options).carry_on()
    finally:
        client.close()


def list_steps(folder: Path, recipe, dataset: Dataset) -> list[str]:
    """The steps that an unbroken submission takes, in order."""
    steps: list[str] = []
    submit(make_run(folder, recipe, dataset), recipe, dataset, Service(), reach=steps.append)
    return steps


class Trouble:
    """What goes wrong in one submission, by its number."""

    def __init__(self, number: int, steps: list[str]):
        dice = random.Random(number)
        self.step = number % (len(steps) + 1)  # where it crashes; the last: nowhere
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


def simulate(number: int, folder: Path, recipe, dataset: Dataset, steps: list[str]):
    """Make one submission until it ends; return (times a job was started, its last status)."""
    trouble = Trouble(number, steps)
    service, time = Service(trouble.fate), Time()
    service.wall = time.wall
    run = make_run(folder / str(number), recipe, dataset)
    status = "nothing"
    for _ in range(MOST_RERUNS):
        with contextlib.suppress(Crash, FinetuneError):
            status = submit(run, recipe, dataset, service, time=time, reach=trouble.reach).status
            break
    return service, status


def main(count: int) -> None:
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        recipe, dataset = make_dataset(folder)
        steps = list_steps(folder / "unbroken", recipe, dataset)
        twice = failed = left = 0
        for number in range(count):
            service, status = simulate(number, folder, recipe, dataset, steps)
            twice += sum(service.starts.values()) > 1
            failed += status != "SUCCESS"
            left += bool(service.files)
    print(f"submissions {count}, crash points {len(steps)}, replies of {len(FATES)} kinds")
    print(f"jobs started more than once: {twice}")
    print(f"not ended in SUCCESS: {failed}")
    print(f"files left at the service: {left}")
    print(f"{time.monotonic() - started:.0f} s")
    sys.exit(bool(twice or failed or left))


if __name__ == "__main__":
    main(int(sys.argv[1]))
