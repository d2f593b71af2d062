"""Reconcile: look at the service, compare with the journal, take the next step.

    probe → upload → create (not started) → validated: cost → confirmed → start → … → SUCCESS

A run only ever moves so, from whatever was reached before: every outside action is written into
the run's journal before it is taken, and its result after. What may have been done is looked for
before it is done again, so that a job is started once however often the command is repeated.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any

from finetune.backends.platform.api import Client
from finetune.backends.platform.failures import describe_failure
from finetune.backends.platform.jobs import is_same, make_body, make_suffix
from finetune.backends.platform.probe import is_no_access, probe, refuse
from finetune.backends.platform.replies import Card, Job, read_checkpoint
from finetune.backends.platform.retry import Refused, Unclear, back_off
from finetune.backends.platform.uploads import MOST_BYTES, Part, Uploads, list_parts
from finetune.corpus import Dataset
from finetune.errors import ConfirmationNeeded, PlatformError, TrainingError
from finetune.files import to_json, write_atomic
from finetune.progress import Progress, silent
from finetune.recipe import Recipe
from finetune.runs import Run
from finetune.text import safe

Confirm = Callable[[str], bool]

_LOOKS = (0.0, 5.0, 15.0)  # seconds before each look for what a lost reply may have made
_GONE = (20.0, 40.0)  # seconds between the looks after which a job is believed to be gone
_WIDER = 600.0  # seconds by which `created_after` goes back before the intent
_POLLS = (2.0, 60.0)  # shortest and longest seconds between two polls
_POLLS_HERE = (0.3, 3.0)  # the same of a server on this machine


def _pass(_: str) -> None:
    """Reach a step."""


class Submission:
    """A run's way over the service.

    Args:
        run: Its journal is read and written.
        recipe: What is asked for.
        dataset: What is uploaded.
        client: The service.
        confirm: Asked before money is spent; None where nobody can be asked.
        progress: Told of every state.
        reach: Called with the name of each step, so that a test can stop there.
        most: Bytes of a training file.
    """

    def __init__(
        self,
        run: Run,
        recipe: Recipe,
        dataset: Dataset,
        client: Client,
        *,
        confirm: Confirm | None = None,
        progress: Progress = silent,
        reach: Callable[[str], None] = _pass,
        most: int = MOST_BYTES,
    ) -> None:
        self._run, self._recipe, self._dataset, self._client = run, recipe, dataset, client
        self._confirm, self._progress, self._reach = confirm, progress, reach
        self._most = most
        self._uploads = Uploads(run, client, reach)

    def carry_on(self) -> Job:
        """Take every step that is left and return the job, which has succeeded.

        Raises:
            PlatformError: The service cannot be reached, or does not offer this.
            ConfirmationNeeded: It would spend money and nobody said yes.
            TrainingError: The job failed, was cancelled, or is gone.
        """
        job = self._follow(self._find() or self._make())
        if job.status == "SUCCESS":
            return self._finish(job)
        if job.status == "CANCELLED":
            self._run.event("cancel", job_id=job.id)
        raise describe_failure(job, self._run, self._parts(), self._file_ids())

    # The job.

    def _find(self) -> Job | None:
        """Return the job that the journal names."""
        known = self._last("created")
        return None if known is None else self._look(str(known["job_id"]))

    def _make(self) -> Job:
        """Upload and create."""
        if self._last("create") is None:
            self._progress("probe", 0, 1)
            probe(self._client, self._recipe)
            self._progress("probe", 1, 1)
        parts = self._parts()
        file_ids = []
        for number, part in enumerate(parts):
            self._progress("upload", number, len(parts), file=part.path.name)
            file_ids.append(self._uploads.send(part))
        self._progress("upload", len(parts), len(parts))
        body = make_body(self._recipe, parts, file_ids, self._suffix())
        try:
            job = self._create(body)
        except Refused as error:
            self._uploads.delete("the job was refused")
            if error.status == 404 and self._is_offered():  # so it is a file that is not there
                raise TrainingError(
                    f"{error.message}: a file of the job has gone since it was uploaded",
                    hint="the same command uploads it again",
                ) from None
            if is_no_access(error):
                raise refuse(self._recipe, error.message) from None
            raise
        self._run.event("created", job_id=job.id)
        self._reach("create: noted")
        return job

    def _is_offered(self) -> bool:
        try:
            self._client.probe_jobs()
        except Refused:
            return False
        return True

    def _create(self, body: dict[str, Any]) -> Job:
        """Create the job; whenever one may have been made before, look for it first."""
        client, intent = self._client, self._last("create")
        fault: PlatformError | None = None
        if intent is None:
            since = client.wall() + client.skew  # by the service's clock
            self._run.event("create", suffix=body["suffix"], model=body["model"], since=since)
            self._reach("create: intended")
        else:
            since = float(intent["since"])
            found = self._adopt(body, since)
            if found is not None:
                return found
        for attempt in range(1, client.pace.tries + 1):
            try:
                job = client.create_job(body)
            except Unclear as error:
                fault = error
            else:
                self._reach("create: sent")
                return job
            client.sleep(back_off(attempt, client.dice) if fault.wait is None else fault.wait)
            found = self._adopt(body, since)
            if found is not None:
                return found
            if fault.status == 409:
                raise self._explain_conflict(body, fault)
        raise fault or TrainingError("the job could not be made")

    def _adopt(self, body: dict[str, Any], since: float) -> Job | None:
        """Return the job that an earlier try has made, the oldest if there are several."""
        after = dt.datetime.fromtimestamp(since - _WIDER, dt.UTC)
        filters = {"suffix": body["suffix"], "created_after": after.isoformat()}
        for pause in _LOOKS:
            if pause:
                self._client.sleep(pause)
            jobs = [job for job in self._client.list_jobs(**filters) if is_same(job, body)]
            if jobs:
                jobs.sort(key=lambda job: (job.created_at or 0, job.id))
                others = [job.id for job in jobs[1:]]
                self._run.event("adopted", job_id=jobs[0].id, others=others)
                if others:
                    self._progress("adopted", 1, 1, job=jobs[0].id, unused=", ".join(others))
                return self._client.get_job(jobs[0].id)
        return None

    def _explain_conflict(self, body: dict[str, Any], fault: Unclear) -> TrainingError:
        """Return why the service holds another job to be the same."""
        files = {one["file_id"] for one in body["training_files"]}
        live = [job for job in self._client.list_jobs() if not job.ended]
        similar = [job for job in live if files & set(job.files)]
        if not similar:
            return TrainingError(f"{fault.message}: no such job is shown to this key")
        job = similar[0]
        return TrainingError(
            f"{fault.message}: job {safe(job.id)} on the same files is {safe(job.status)}",
            hint="wait for it, or `finetune platform jobs cancel"
            f" {safe(job.id)}{self._client.address.option}`",
        )

    # Its way.

    def _follow(self, job: Job) -> Job:
        """Start the job once it is validated, and return it when it has ended."""
        shortest, longest = _POLLS_HERE if self._client.address.local else _POLLS
        status, pause = "", shortest
        while not job.ended:
            if job.status != status:
                status, pause = job.status, shortest
                self._run.event("status", job_id=job.id, status=safe(status, 80))
            self._report(job)
            if status == "VALIDATED":
                job = self._start(job)
                if job.status != "VALIDATED":
                    continue
            self._client.sleep(pause * self._client.dice.uniform(0.8, 1.0))
            pause = min(longest, pause * 1.5)
            job = self._look(job.id)
        self._run.event("status", job_id=job.id, status=job.status)
        self._report(job)
        return job

    def _start(self, job: Job) -> Job:
        """Start a validated job, which spends money: once somebody has said yes."""
        self._agree(job)
        self._run.event("start", job_id=job.id)
        self._reach("start: intended")
        try:
            started = self._client.start_job(job.id)
        except Unclear as error:
            self._client.sleep(error.wait or _POLLS[0])
            return self._look(job.id)
        except Refused as error:
            now = self._look(job.id)
            if now.status == "VALIDATED":
                if is_no_access(error):
                    raise refuse(self._recipe, error.message) from None
                raise
            return now
        self._reach("start: sent")
        self._run.event("started", job_id=job.id)
        self._run.set_state("training", spent=self._cost(job))
        self._reach("start: noted")
        return started

    def _agree(self, job: Job) -> None:
        """Note the cost, and return if it may be spent."""
        told, address = self._last("cost"), self._client.address
        facts = self._cost(job)
        cost = None if facts["amount"] is None else (facts["amount"], facts["currency"])
        words = (
            f"{cost[0]:g} {cost[1]}".strip() if cost else "a cost that the service does not tell"
        )
        if told is None or told.get("words") != words:
            self._run.event("cost", words=words, **facts)
            self._run.set_state("training", job=job.id, host=address.host, cost=facts)
        self._progress("cost", 1, 1, cost=words)
        self._hold_to_limit(cost, words)
        if cost is not None and cost[0] <= 0:
            return
        agreed = self._last("confirmed")
        if agreed is not None and agreed["words"] == words:
            return
        question = f"{address.host}: job {safe(job.id)} costs {safe(words)}: start it?"
        if self._confirm is None:
            raise ConfirmationNeeded(question, hint="add `--yes`, or run it on a terminal")
        if not self._confirm(question):
            raise ConfirmationNeeded(
                f"{address.host}: job {safe(job.id)} was not started",
                hint=f"the same command asks again; `finetune cancel {self._run.folder.name}`"
                " gives it up",
            )
        self._run.event("confirmed", words=words)

    def _cost(self, job: Job) -> dict[str, Any]:
        """Return what the job costs; La Plateforme shows 0.0 where it has no figure yet."""
        cost = job.cost
        if cost is None or (cost[0] <= 0 and self._client.address.own):
            return {"amount": None, "currency": None}
        return {"amount": cost[0], "currency": cost[1]}

    def _hold_to_limit(self, cost: tuple[float, str] | None, words: str) -> None:
        limit = self._recipe.platform.max_cost
        if limit is None or cost is None or cost[0] <= 0:
            return
        amount, currency = limit.split()
        if currency != cost[1]:
            raise ConfirmationNeeded(
                f"platform.max_cost: {limit}, but the cost is {safe(words)}",
                hint=f"write `platform.max_cost` in {safe(cost[1]) or 'its currency'}",
            )
        if cost[0] > float(amount):
            raise ConfirmationNeeded(
                f"platform.max_cost: {limit}, but the job costs {safe(words)}: it is not started",
                hint="raise `platform.max_cost`, or train less (`training.epochs`)",
            )

    def _look(self, job_id: str) -> Job:
        """Return the job as it is now, however long the service is away."""
        looks, away = iter(_GONE), None
        attempt = 0
        while True:
            try:
                return self._client.get_job(job_id)
            except Refused as error:
                if error.status != 404:
                    raise
                pause = next(looks, None)
                if pause is None:
                    raise self._explain_gone(job_id) from None
            except PlatformError as error:
                if error.exit_code != 5:
                    raise
                away = away or dt.datetime.now(dt.UTC)
                attempt += 1
                pause = min(_POLLS[1], 2.0 ** min(attempt, 6))
                since = f"{away:%H:%M} UTC"
                self._progress("job", 0, None, status=f"{error.message}, since {since}")
            self._client.sleep(pause)

    def _explain_gone(self, job_id: str) -> PlatformError | TrainingError:
        """Return why a job is not there: the endpoint is not, or the job is not."""
        try:
            jobs = self._client.list_jobs()
        except Refused as error:
            if error.status in (403, 404):
                return refuse(self._recipe, f"{error.message}: jobs are not offered any more")
            raise
        there = any(job.id == job_id for job in jobs)
        fact = "is listed, but not shown" if there else "is gone"
        last = self._last("status") or {}
        return TrainingError(
            f"{self._client.address.host}: job {safe(job_id)} {fact}; it was"
            f" {last.get('status', 'just made')}",
            hint="`finetune run RECIPE --fresh` makes a new one",
        )

    # What it leaves.

    def _report(self, job: Job) -> None:
        """Write the metrics of new checkpoints, and tell where the job is."""
        known = {line["step"] for line in self._run.metrics()}
        steps = 0
        for checkpoint in job.checkpoints or []:
            line = read_checkpoint(checkpoint)
            steps = max(steps, line.get("step", 0))
            if "step" in line and line["step"] not in known:
                self._run.metric(**line)
        total = (job.hyperparameters or {}).get("training_steps")
        total = total if isinstance(total, int) else None
        self._progress("job", steps, total, status=job.status.lower())

    def _finish(self, job: Job) -> Job:
        """Note the tuned model and take the files back."""
        for _ in range(3):
            if job.fine_tuned_model:
                break
            self._client.sleep(_POLLS[0])
            job = self._look(job.id)
        if not job.fine_tuned_model:
            job.fine_tuned_model = self._find_model(job)
        cost = self._cost(job)
        facts: dict[str, Any] = {"job": job.id, "host": self._client.address.host}
        if cost["amount"] is not None:
            facts |= {"cost": cost, "spent": cost}
        if job.trained_tokens is not None:
            facts["trained_tokens"] = job.trained_tokens
        if not self._recipe.platform.keep_files:
            receipts = self._uploads.delete("the job has ended and `platform.keep_files` is false")
            write_atomic(self._run.folder / "receipts.json", to_json(receipts, indent=True))
        # The last of it: a run that knows its model is not carried on any more.
        self._reach("finish: cleaned")
        self._run.set_state("training", tuned_model=job.fine_tuned_model, **facts)
        return job

    def _find_model(self, job: Job) -> str:
        cards: Sequence[Card] = self._client.list_models()
        for card in cards:
            if card.job == job.id:
                return card.id
        raise TrainingError(
            f"{self._client.address.host}: job {safe(job.id)} succeeded without naming its model",
            hint=f"`finetune platform models list{self._client.address.option}` shows the tuned",
        )

    # The journal.

    def _last(self, name: str) -> dict[str, Any] | None:
        events = [event for event in self._run.events() if event["event"] == name]
        return events[-1] if events else None

    def _suffix(self) -> str:
        known = self._last("suffix")
        if known is not None:
            return str(known["suffix"])
        suffix = make_suffix(self._recipe, self._run.folder.name)
        self._run.event("suffix", suffix=suffix)
        return suffix

    def _parts(self) -> list[Part]:
        return list_parts(self._dataset, self._most)

    def _file_ids(self) -> dict[str, str]:
        """Return the ids of the run's files at the service by their names."""
        rows = [event for event in self._run.events() if event["event"] == "uploaded"]
        return {event["file"]: event["file_id"] for event in rows}
