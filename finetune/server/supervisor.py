"""The supervisor: looks at every job that has not ended, and moves it on by one step.

It never relies on having seen anything before: a job's status in the database, the lock of its
worker and its run folder say all. So a server that was killed goes on where it was, attached to
the workers that went on without it.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from finetune.files import read_json
from finetune.runs import Run
from finetune.server.contract import (
    Checkpoint,
    ClassifierTarget,
    Details,
    Metadata,
    Metrics,
    Status,
)
from finetune.server.jobs import Jobs
from finetune.server.models import Models
from finetune.server.store import Store
from finetune.server.validation import Verdict, spacing
from finetune.server.weights import Names, Weights
from finetune.server.worker import Worker

ENDED: tuple[Status, ...] = ("SUCCESS", "FAILED", "FAILED_VALIDATION", "CANCELLED")
TRAINER = (sys.executable, "-m", "finetune", "run", "--json")
VALIDATOR = (sys.executable, "-m", "finetune.server.validation")
_LOG = logging.getLogger("uvicorn.error")
_TRIES = 3  # starts of a worker that ends without a word and without progress
_PATIENCE = 60.0  # seconds between asking a worker to stop and making it


class Supervisor:
    """Moves jobs on.

    Args:
        store: The server's memory.
        jobs: Its jobs.
        models: What they make.
        names: What the names of models mean.
        workers: How many jobs train at once.
        trainer: The command that trains; the recipe and `--run FOLDER` are put behind it.
        validator: The command that validates; the job's folder is put behind it.
    """

    def __init__(
        self,
        store: Store,
        jobs: Jobs,
        models: Models,
        names: Names,
        *,
        workers: int = 1,
        trainer: Sequence[str] = TRAINER,
        validator: Sequence[str] = VALIDATOR,
    ) -> None:
        self._store, self._jobs, self._models, self._names = store, jobs, models, names
        self._workers, self._trainer, self._validator = workers, trainer, validator
        self._asked: dict[str, float] = {}
        self._told: set[tuple[str, str]] = set()
        self._stopping = False
        self._wake = threading.Event()

    def run(self, every: float = 0.5) -> None:
        """Step until `stop` is called; what goes wrong is told once, and tried again."""
        while not self._stopping:
            with self._survive("the jobs"):
                self.step()
            self._wake.wait(every)
            self._wake.clear()

    def wake(self) -> None:
        """Step now: something has changed."""
        self._wake.set()

    def stop(self) -> None:
        """Ask all workers to save and end; jobs go on when the server starts again."""
        self._stopping = True
        self._wake.set()
        live = self._jobs.live()
        workers = [self._worker(job, name) for job in live for name in _KINDS]
        for worker in workers:
            worker.stop()
        for job in live:  # stopped by us, which is no try of theirs
            for name in _KINDS:
                self._worker(job, name).forgive_deaths()
        end = time.monotonic() + _PATIENCE
        while any(worker.alive() for worker in workers) and time.monotonic() < end:
            time.sleep(0.05)

    def training(self) -> bool:
        """Tell whether a job trains now."""
        return any(self._worker(job, "train").alive() for job in self._jobs.live())

    def step(self) -> None:
        """Move every job on by one step, oldest first."""
        live = self._jobs.live()
        busy = {kind: sum(self._worker(job, kind).alive() for job in live) for kind in _KINDS}
        for job in live:
            with self._survive(f"job {job.id}"):  # which keeps no other job from going on
                self._advance(job, busy)

    def _advance(self, job: Details, busy: dict[str, int]) -> None:
        if job.status == "QUEUED":
            kind = "train" if self._verdict(job) else "validate"
            if not self._stopping and busy[kind] < (self._workers if kind == "train" else 1):
                busy[kind] += self._begin(job, kind)
        elif job.status == "VALIDATING":
            self._follow_validation(job)
        elif job.status == "VALIDATED" and job.auto_start:
            self._jobs.move(str(job.id), "QUEUED", of=("VALIDATED",))
            self._wake.set()
        elif job.status in ("RUNNING", "STARTED"):
            self._follow_training(job)
        elif job.status == "CANCELLATION_REQUESTED":
            self._cancel(job)

    @contextlib.contextmanager
    def _survive(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 (whatever it is, the next step tries again)
            name = type(error).__name__
            if (what, name) not in self._told:
                self._told.add((what, name))
                _LOG.exception("%s: not moved on: %s", what, name)

    def _worker(self, job: Details, kind: str) -> Worker:
        return Worker(self._jobs.folder(str(job.id)), kind)

    def _run(self, job: Details) -> Run | None:
        folder = self._jobs.run_folder(str(job.id))
        return Run(folder) if (folder / "run.json").is_file() else None

    def _verdict(self, job: Details) -> Verdict | None:
        path = self._jobs.folder(str(job.id)) / "validation.json"
        return msgspec.convert(read_json(path), Verdict) if path.is_file() else None

    def _begin(self, job: Details, kind: str) -> bool:
        """Start a worker; its lock makes sure that there is one."""
        job_id, folder = str(job.id), self._jobs.folder(str(job.id))
        status: Status = "RUNNING" if kind == "train" else "VALIDATING"
        if self._jobs.move(job_id, status, of=("QUEUED",)) is None:
            return False  # cancelled in this moment
        return self._start(job_id, folder, kind)

    def _start(self, job_id: str, folder: Path, kind: str) -> bool:
        """Start a worker; a job whose worker can't be started has failed."""
        command = (
            (*self._trainer, folder / "recipe.yaml", "--run", self._jobs.run_folder(job_id))
            if kind == "train"
            else (*self._validator, folder)
        )
        try:
            return Worker(folder, kind).start(list(map(str, command)), cwd=self._store.folder)
        except OSError as error:
            fact = (error.strerror or type(error).__name__).lower()
            why = {"message": f"the worker can't be started: {command[0]}: {fact}"}
            status: Status = "FAILED" if kind == "train" else "FAILED_VALIDATION"
            self._jobs.move(job_id, status, of=("RUNNING", "STARTED", "VALIDATING"), why=why)
            return False

    def _follow_validation(self, job: Details) -> None:
        if self._worker(job, "validate").alive():
            return
        job_id, verdict = str(job.id), self._verdict(job)
        if verdict is None:
            self._retry(job, "validate", "validation ended without a word")
        elif verdict.faults:
            why = {
                "message": verdict.message,
                "errors": [msgspec.to_builtins(fault) for fault in verdict.faults],
            }
            self._jobs.move(job_id, "FAILED_VALIDATION", of=("VALIDATING",), why=why)
        else:
            skipped = {"skipped_samples": verdict.skipped} if verdict.skipped else None
            changes = self._bill(job, verdict)
            self._jobs.move(job_id, "VALIDATED", of=("VALIDATING",), why=skipped, **changes)
            self._wake.set()

    def _bill(self, job: Details, verdict: Verdict) -> dict[str, Any]:
        """Return what validation fills in; steps × tokens a step ÷ data tokens = epochs."""
        metadata, epochs = make_bill(verdict, self._names.all().get(job.model))
        filled = {
            "training_steps": verdict.steps,
            "epochs": epochs,
            "seq_len": verdict.seq_len,
        }
        changes: dict[str, Any] = {
            "metadata": metadata,
            "hyperparameters": job.hyperparameters.model_copy(update=filled),
        }
        if job.job_type == "classifier":
            targets = [ClassifierTarget.model_validate(target) for target in verdict.targets]
            changes["classifier_targets"] = targets
        return changes

    def _follow_training(self, job: Details) -> None:
        run = self._run(job)
        alive = self._worker(job, "train").alive() or (run is not None and run.lock().held())
        state = run.state if run is not None else {"state": None}
        if run is not None:
            job = self._measure(job, run) or job
        if alive:
            return
        job_id = str(job.id)
        if state["state"] == "done" and run is not None:
            self._succeed(job, run)
        elif state["state"] == "failed":
            self._jobs.move(
                job_id, "FAILED", of=("RUNNING", "STARTED"), why={"message": state["error"]}
            )
        elif state["state"] == "cancelled":
            self._jobs.move(job_id, "CANCELLED", of=("RUNNING", "STARTED"))
        elif run is None and (error := self._worker(job, "train").last_error()):
            self._jobs.move(job_id, "FAILED", of=("RUNNING", "STARTED"), why={"message": error})
        else:  # killed, or stopped with the machine: go on from the last checkpoint
            stopped = state["state"] == "interrupted"
            fact = "was stopped" if stopped else "ended without a word"
            self._retry(job, "train", f"the worker {fact}, three times without progress")

    def _retry(self, job: Details, kind: str, message: str) -> None:
        """Start a worker again that was killed; give up where it gets nowhere."""
        if self._stopping:
            return
        if self._worker(job, kind).count_deaths(job.trained_tokens or 0) >= _TRIES:
            status: Status = "FAILED" if kind == "train" else "FAILED_VALIDATION"
            said = self._worker(job, kind).last_error()
            why = {"message": f"{message}; it said: {said}" if said else message}
            self._jobs.move(str(job.id), status, of=(job.status,), why=why)
            return
        self._start(str(job.id), self._jobs.folder(str(job.id)), kind)

    def _measure(self, job: Details, run: Run) -> Details | None:
        """Take over what the run has measured."""
        metrics = run.metrics()
        if not metrics or job.hyperparameters.training_steps is None:
            return None
        tokens = int(metrics[-1]["tokens"])
        if tokens == job.trained_tokens:
            return None
        known = {checkpoint.step_number: checkpoint.created_at for checkpoint in job.checkpoints}
        checkpoints = list_checkpoints(metrics, job.hyperparameters.training_steps, known)
        return self._jobs.move(
            str(job.id),
            job.status,
            of=(job.status,),
            trained_tokens=tokens,
            checkpoints=checkpoints,
        )

    def _succeed(self, job: Details, run: Run) -> None:
        verdict = self._verdict(job)
        method = verdict.method if verdict else "sft"
        model = self._models.describe(job, run, method)

        def note(database: Any) -> None:
            self._models.add(database, job, model)
            database.execute(
                "UPDATE key SET trained_tokens = trained_tokens + ?"
                " WHERE name = (SELECT key FROM job WHERE id = ?)",
                (job.trained_tokens or 0, str(job.id)),
            )

        of: tuple[Status, ...] = ("RUNNING", "STARTED", "CANCELLATION_REQUESTED")
        self._jobs.move(str(job.id), "SUCCESS", of=of, note=note, fine_tuned_model=model.id)

    def _cancel(self, job: Details) -> None:
        """Stop whatever works for a job; the run folder says whether it was done before."""
        run, job_id = self._run(job), str(job.id)
        workers = [self._worker(job, kind) for kind in _KINDS]
        alive = [worker for worker in workers if worker.alive()]
        if not alive:
            self._asked.pop(job_id, None)
            if run is not None:
                job = self._measure(job, run) or job
            if run is not None and run.state["state"] == "done":
                self._succeed(job, run)
            else:
                self._jobs.move(job_id, "CANCELLED", of=("CANCELLATION_REQUESTED",))
            return
        now = time.monotonic()
        if job_id not in self._asked:
            self._asked[job_id] = now
            if run is None or not run.cancel():
                for worker in alive:
                    worker.stop()
        elif now - self._asked[job_id] > _PATIENCE:
            for worker in alive:
                worker.stop(signal.SIGKILL)


_KINDS = ("validate", "train")


def make_bill(verdict: Verdict, base: Weights | None) -> tuple[Metadata, float]:
    """Return the bill and the epochs: steps × tokens a step ÷ data tokens.

    Args:
        verdict: What validation found.
        base: The base, whose entry may name a price.
    """
    per_step = max(1, round(verdict.tokens_seen / verdict.steps))
    seen = verdict.steps * per_step
    metadata = Metadata(
        expected_duration_seconds=None if verdict.seconds is None else round(verdict.seconds),
        cost=round(base.price * seen / 1e6, 6) if base else 0.0,
        cost_currency=base.currency if base else "EUR",
        train_tokens_per_step=per_step,
        train_tokens=seen,
        data_tokens=verdict.data_tokens,
    )
    return metadata, seen / verdict.data_tokens


def list_checkpoints(
    metrics: Sequence[dict[str, Any]], steps: int, known: dict[int, int]
) -> list[Checkpoint]:
    """Return one checkpoint each tenth of a run, at least 10 steps apart, and the last.

    Args:
        metrics: The run's metrics, by step.
        steps: Steps of the run.
        known: When checkpoints were first seen, by step.
    """
    every, now = spacing(steps), int(time.time())
    checkpoints = []
    for line in metrics:
        step = line["step"]
        if step % every and step != steps:
            continue
        loss = line.get("validation_loss")
        power = None
        with contextlib.suppress(OverflowError):
            power = None if loss is None else 2.0**loss
        measured = Metrics(
            train_loss=line.get("loss"), valid_loss=loss, valid_mean_token_accuracy=power
        )
        created = known.get(step, now)
        checkpoints.append(Checkpoint(metrics=measured, step_number=step, created_at=created))
    return checkpoints
