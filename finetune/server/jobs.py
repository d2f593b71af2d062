"""Jobs: made, listed, started and cancelled. What moves them on is the supervisor."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sqlite3
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from finetune.files import read_json, sync_folder, to_json, write_atomic
from finetune.records import kind_of
from finetune.server.contract import (
    LIVE,
    ClassifierDetails,
    CompletionDetails,
    Details,
    Event,
    JobRequest,
    Metadata,
    Status,
)
from finetune.server.files import NO_FILE, Files
from finetune.server.keys import Key
from finetune.server.refusal import Refused
from finetune.server.store import Store
from finetune.server.validation import Order
from finetune.server.weights import Names

MAX_STEPS = 1_000_000
MAX_EPOCHS = 10_000
_SUFFIX = re.compile(r"[a-zA-Z0-9_-]{1,18}")
NOT_FOUND = "No fine tuning job matches the given query."


class Jobs:
    """The jobs of a server.

    Args:
        store: The server's memory.
        files: What they are trained on.
        names: What the names of models mean.
    """

    def __init__(self, store: Store, files: Files, names: Names) -> None:
        self._store, self._files, self._names = store, files, names
        self._folder = store.folder / "jobs"

    def folder(self, job_id: str) -> Path:
        """Return a job's folder."""
        return self._folder / job_id

    def run_folder(self, job_id: str) -> Path:
        """Return the folder of a job's run."""
        return self._store.folder / "runs" / job_id

    def create(self, request: JobRequest, key: Key) -> Details:
        """Make a job; it is validated next, and trained when it is told to.

        Raises:
            Refused: 409: there is one like it that has not ended; 422: it can't be done here;
                404: a file is not there.
        """
        job_id = str(uuid.uuid4())
        digest = _digest(request)
        try:
            order = self.order(request, key, job_id)
            job = _describe(request, job_id, classifier=order.job_type == "classifier")
            with self._store.write() as database:
                _require_new(database, digest)
                write_atomic(self.folder(job_id) / "request.json", to_json(order))
                sync_folder(self._folder)
                database.execute(
                    "INSERT INTO job VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        job_id, key.name, job.created_at, job.model, job.suffix, job.status,
                        digest, job.model_dump_json(),
                    ),
                )  # fmt: skip
        except BaseException:
            self.discard(job_id)
            raise
        return job

    def order(self, request: JobRequest, key: Key, job_id: str) -> Order:
        """Return what a request means here; its files are held in the job's folder.

        Raises:
            Refused: 422 or 404, see `create`.
        """
        _require_served(request)
        weights = self._names.find(request.model, request.job_type or "completion")
        inputs = self.folder(job_id) / "inputs"
        inputs.mkdir(parents=True)
        train, held = [], []
        for number, file in enumerate(request.training_files, 1):
            train.append(self._hold(str(file.file_id), inputs / f"train-{number}.jsonl", key))
            train[-1]["weight"] = file.weight
        for number, file_id in enumerate(request.validation_files or [], 1):
            held.append(self._hold(str(file_id), inputs / f"validation-{number}.jsonl", key))
        targets = request.classifier_targets
        return msgspec.convert(
            {
                "name": _name(job_id),
                "model": weights.model,
                "local": weights.local.model_dump(mode="json", exclude_unset=True),
                "seed": weights.seed,
                "job_type": request.job_type or _find_type(train[0]["path"]),
                "hyperparameters": request.hyperparameters.model_dump(mode="json"),
                "skip": request.invalid_sample_skip_percentage,
                "train": train,
                "validation": held,
                "targets": [target.model_dump(mode="json") for target in targets or []] or None,
            },
            Order,
        )

    def _hold(self, file_id: str, path: Path, key: Key) -> dict[str, Any]:
        """Link a file's content into the job, so that deleting the file does not take it away."""
        file = self._files.find(file_id, key)
        if file.purpose != "fine-tune":
            raise Refused(422, f"File {file_id} was uploaded for `{file.purpose}`.")
        try:
            os.link(self._files.path(file_id), path)
        except FileNotFoundError:  # deleted in this moment
            raise Refused(404, NO_FILE) from None
        return {"path": str(path.resolve()), "file_id": file_id, "filename": file.filename}

    def discard(self, job_id: str) -> None:
        """Remove the folder and the data of a job that was not made after all."""
        shutil.rmtree(self.folder(job_id), ignore_errors=True)
        for path in (self._store.folder / "datasets").glob(f"{_name(job_id)}-*"):
            shutil.rmtree(path, ignore_errors=True)

    def sweep(self) -> None:
        """Remove folders of jobs that were never acknowledged; to be called before any request."""
        known = {row["id"] for row in self._store.read("SELECT id FROM job")}
        for path in self._folder.iterdir():
            if path.name not in known:
                shutil.rmtree(path)

    def document(self, job_id: str) -> bytes:
        """Return a job with all details, as JSON.

        Raises:
            Refused: 404: there is none.
        """
        row = self._store.find("SELECT document FROM job WHERE id = ?", job_id)
        if row is None:
            raise Refused(404, NOT_FOUND)
        return bytes(row["document"], "utf-8")

    def find(self, job_id: str) -> Details:
        """Return a job with all details.

        Raises:
            Refused: 404: there is none.
        """
        return parse(self.document(job_id))

    def page(self, *, page: int, page_size: int, **filters: Any) -> bytes:
        """Return a page of jobs without their details, newest first, as JSON.

        Args:
            page: From 0.
            page_size: Jobs a page.
            filters: `model`, `status`, `suffix`, `key`: equal; `after`, `before`: seconds.
        """
        where, values = "1", []
        for name, value in filters.items():
            if value is not None:
                column = "created" if name in ("after", "before") else name
                sign = {"after": ">=", "before": "<="}.get(name, "=")
                where += f" AND {column} {sign} ?"
                values.append(value)
        rows = self._store.read(
            f"SELECT document FROM job WHERE {where}"  # noqa: S608 (columns are ours)
            " ORDER BY created DESC, rowid DESC LIMIT ? OFFSET ?",
            *values, page_size, page * page_size,
        )  # fmt: skip
        count = self._store.find(f"SELECT count(*) FROM job WHERE {where}", *values)  # noqa: S608
        data = [_without_details(row["document"]) for row in rows]
        return to_json({"data": data, "object": "list", "total": count[0] if count else 0})

    def start(self, job_id: str) -> Details:
        """Let a validated job be trained.

        Raises:
            Refused: 422: it is not validated, or was started before.
        """
        job = self.move(job_id, "QUEUED", of=("VALIDATED",))
        if job is None:
            status = self.find(job_id).status
            raise Refused(422, f"Job is {status}: only a validated job can be started.")
        return job

    def cancel(self, job_id: str) -> Details:
        """Stop a job at any moment; one that has ended stays as it is."""
        waiting = self.move(job_id, "CANCELLED", of=("VALIDATED",))
        asked: tuple[Status, ...] = ("QUEUED", "VALIDATING", "STARTED", "RUNNING")
        return waiting or self.move(job_id, "CANCELLATION_REQUESTED", of=asked) or self.find(job_id)

    def move(
        self,
        job_id: str,
        status: Status,
        *,
        of: tuple[Status, ...],
        why: dict[str, Any] | None = None,
        note: Callable[[sqlite3.Connection], None] | None = None,
        **changes: Any,
    ) -> Details | None:
        """Give a job a new status, in one transaction with its event.

        Args:
            job_id: Which.
            status: The new status; the same again writes no event.
            of: Statuses that it may have now.
            why: More for the event.
            note: Writes more in the same transaction.
            changes: New values of its fields.

        Returns:
            The job as it is now; None where it has another status.

        Raises:
            Refused: 404: there is none.
        """
        now = int(time.time())
        with self._store.write() as database:
            row = database.execute("SELECT document FROM job WHERE id = ?", (job_id,)).fetchone()
            if row is None:
                raise Refused(404, NOT_FOUND)
            job = parse(row["document"])
            if job.status not in of:
                return None
            events = job.events
            if status != job.status:
                data = {"status": status, **(why or {})}
                events = [*events, Event(name="status-updated", data=data, created_at=now)]
            facts = {"status": status, "modified_at": now, "events": events}
            job = job.model_copy(update=changes | facts)
            document = job.model_dump_json()
            database.execute(
                "UPDATE job SET status = ?, document = ? WHERE id = ?", (status, document, job_id)
            )
            if note is not None:
                note(database)
        if status not in LIVE:  # its dataset is kept with the run
            shutil.rmtree(self.folder(job_id) / "inputs", ignore_errors=True)
        return job

    def live(self) -> list[Details]:
        """Return the jobs that have not ended, oldest first."""
        rows = self._store.read(
            f"SELECT document FROM job WHERE status IN {LIVE} ORDER BY rowid"  # noqa: S608
        )
        return [parse(row["document"]) for row in rows]

    def request(self, job_id: str) -> Order:
        """Return what a job is to do."""
        return msgspec.convert(read_json(self.folder(job_id) / "request.json"), Order)


def _name(job_id: str) -> str:
    return f"job-{job_id[:8]}"


def _find_type(path: str) -> str:
    """Return what is trained on a file, by its first line."""
    with open(path, "rb") as file:
        value = msgspec.json.decode(file.readline())
    return "classifier" if kind_of(value) == "classifier" else "completion"


def _require_new(database: sqlite3.Connection, digest: str) -> None:
    similar = database.execute(
        f"SELECT id, status FROM job WHERE digest = ? AND status IN {LIVE}",  # noqa: S608
        (digest,),
    ).fetchone()
    if similar:
        raise Refused(409, f"A similar job is {similar['status']} already: {similar['id']}.")


def parse(document: str | bytes) -> Details:
    """Return the job of its JSON."""
    classifier = msgspec.json.decode(document)["job_type"] == "classifier"
    kind: type[Details] = ClassifierDetails if classifier else CompletionDetails
    return kind.model_validate_json(document)


def _without_details(document: str) -> dict[str, Any]:
    job: dict[str, Any] = msgspec.json.decode(document)
    for name in ("events", "checkpoints", "classifier_targets"):
        job.pop(name, None)
    return job


def _digest(request: JobRequest) -> str:
    """Return what two jobs that would do the same have in common."""
    facts = request.model_dump(mode="json", exclude={"auto_start"})
    text = msgspec.json.encode(facts, order="deterministic")
    return hashlib.sha256(text).hexdigest()


def _describe(request: JobRequest, job_id: str, *, classifier: bool) -> Details:
    now = int(time.time())
    hyperparameters = request.hyperparameters.model_dump(
        exclude={"fim_ratio"} if classifier else set()
    )
    facts = {
        "id": job_id,
        "auto_start": request.auto_start,
        "model": request.model,
        "status": "QUEUED",
        "created_at": now,
        "modified_at": now,
        "training_files": [file.file_id for file in request.training_files],
        "validation_files": request.validation_files or [],
        "suffix": request.suffix,
        "metadata": Metadata(cost=0.0),  # not null, as La Plateforme
        "hyperparameters": hyperparameters,
        "events": [Event(name="status-updated", data={"status": "QUEUED"}, created_at=now)],
    }
    if not classifier:
        return CompletionDetails.model_validate(facts)
    targets = [
        {**target.model_dump(), "loss_function": target.loss_function or "single_class"}
        for target in request.classifier_targets or []
    ]
    return ClassifierDetails.model_validate(facts | {"classifier_targets": targets})


def _require_served(request: JobRequest) -> None:
    """Refuse what is in the contract and can't be done here."""
    asked = request.hyperparameters
    facts = {
        "integrations": request.integrations and "this server sends nothing to trackers",
        "repositories": request.repositories and "this server fetches no repositories",
        "hyperparameters": asked.epochs
        and asked.training_steps
        and "give `epochs` or `training_steps`, not both",
    }
    if (asked.training_steps or 0) > MAX_STEPS or (asked.epochs or 0) > MAX_EPOCHS:
        facts["hyperparameters"] = f"at most {MAX_STEPS:,} steps or {MAX_EPOCHS:,} epochs"
    if request.suffix is not None and not _SUFFIX.fullmatch(request.suffix):
        facts["suffix"] = "letters, digits, `_` and `-` are expected"
    faults = [
        {"loc": ["body", name], "msg": fact, "type": "value_error"}
        for name, fact in facts.items()
        if fact
    ]
    if faults:
        raise Refused(422, faults)
