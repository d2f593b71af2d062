"""The app: every path of the API, and what they share."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import re
import sqlite3
import threading
import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from finetune import __version__
from finetune.files import read_json, to_json, write_atomic
from finetune.server.answering import Inference
from finetune.server.bounds import Bounds
from finetune.server.contract import JobRequest, OldMetadata
from finetune.server.files import Files
from finetune.server.inference import Question
from finetune.server.jobs import Jobs
from finetune.server.keys import Gate, Key
from finetune.server.models import Answerer, Models
from finetune.server.refusal import Refused
from finetune.server.store import Store
from finetune.server.supervisor import TRAINER, VALIDATOR, Supervisor, make_bill
from finetune.server.validation import Verdict
from finetune.server.vllm import VARIABLE, Vllm
from finetune.server.weights import Names, read_names
from finetune.server.worker import Worker

_LOG = logging.getLogger("uvicorn.error")


class Settings(NamedTuple):
    """How a server was started.

    Attributes:
        folder: Where everything of it lies.
        models: The file that says which weights a name means.
        aliases: Ids that mean a run's adapter.
        workers: How many jobs train at once.
        exclusive: Training has the device to itself: nobody answers meanwhile.
        trainer: The command that trains, instead of `finetune run`.
        validator: The command that validates, instead of the server's own.
        refuse: A no that clients have to stand, for their tests: `cards` that can't be tuned, a
            refused `create`, jobs that are `gone` (410) or `missing` (404).
    """

    folder: Path
    models: Path | None = None
    aliases: Mapping[str, Path] = {}
    workers: int = 1
    exclusive: bool = False
    trainer: tuple[str, ...] = TRAINER
    validator: tuple[str, ...] = VALIDATOR
    refuse: str | None = None


class Service:
    """All parts of a server.

    Args:
        settings: How it was started.

    Raises:
        UsageError: A file of `settings` is wrong.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = Store(settings.folder.resolve())
        self.gate = Gate(self.store)
        self.names = Names(read_names(settings.models))
        self.files = Files(self.store)
        self.jobs = Jobs(self.store, self.files, self.names)
        tunable = settings.refuse != "cards"
        self.models = Models(self.store, self.names, settings.aliases, tunable=tunable)
        self.supervisor = Supervisor(
            self.store,
            self.jobs,
            self.models,
            self.names,
            workers=settings.workers,
            trainer=settings.trainer,
            validator=settings.validator,
        )
        self.inference = Inference(self.store.folder, self._is_shut)
        self.vllm = Vllm(os.environ.get(VARIABLE))
        self._dry_run = threading.Lock()
        self.files.sweep()
        self.jobs.sweep()

    def dry_run(self, request: JobRequest, key: Key) -> OldMetadata:
        """Return the bill of a job that is not made.

        Raises:
            Refused: 422 or 404: the job could not be made, or its data can't be used; 503: another
                one is being made.
        """
        if not self._dry_run.acquire(blocking=False):  # each is a process with data of its own
            raise Refused(503, "Another dry run is under way.", headers={"Retry-After": "10"})
        try:
            return self._dry_run_alone(request, key)
        finally:
            self._dry_run.release()

    def _dry_run_alone(self, request: JobRequest, key: Key) -> OldMetadata:
        job_id = str(uuid.uuid4())
        folder = self.jobs.folder(job_id)
        try:
            order = self.jobs.order(request, key, job_id)
            write_atomic(folder / "request.json", to_json(order))
            worker = Worker(folder, "validate")
            worker.start([*self.settings.validator, str(folder)], cwd=self.store.folder)
            worker.wait()
            path = folder / "validation.json"
            verdict = msgspec.convert(read_json(path), Verdict) if path.is_file() else Verdict()
        finally:
            self.jobs.discard(job_id)
        if verdict.faults or not verdict.steps:
            raise Refused(422, verdict.message or "validation ended without a word")
        metadata, epochs = make_bill(verdict, self.names.find(request.model))
        return OldMetadata(
            **metadata.model_dump(),
            details="What the job would take: nothing was made, nothing is trained.",
            epochs=epochs,
            training_steps=verdict.steps,
        )

    def ask(self, question: Question, who: Answerer) -> AsyncIterator[dict[str, Any]]:
        """Return the lines of an answer, from the inference process or from the model's vLLM."""
        return self.vllm.ask(question, who) if who.vllm else self.inference.ask(question)

    async def delete_model(self, model_id: str) -> None:
        """Delete a tuned model, also from the memory of its vLLM.

        Raises:
            Refused: 403: it is a base; 404: there is no such model.
        """
        model = await asyncio.to_thread(self.models.delete, model_id)
        if url := self.models.vllm(model):
            await self.vllm.unload(url, model.id)

    def _is_shut(self) -> bool:
        return self.settings.exclusive and self.supervisor.training()

    @contextlib.asynccontextmanager
    async def life(self, _: FastAPI) -> AsyncIterator[None]:
        """Run the supervisor and the bookkeeping while the app is up."""
        thread = threading.Thread(target=self.supervisor.run, daemon=True)
        thread.start()
        books = asyncio.create_task(self._keep_books())
        try:
            yield
        finally:
            books.cancel()
            await self.inference.close()
            await self.vllm.close()
            await asyncio.to_thread(self.supervisor.stop)
            await asyncio.to_thread(thread.join)
            await asyncio.to_thread(self.gate.flush)

    async def _keep_books(self) -> None:
        told = False
        while True:
            await asyncio.sleep(1)
            try:
                await asyncio.to_thread(self.gate.flush)
                await asyncio.to_thread(self.files.expire)
                if await asyncio.to_thread(self._is_shut):
                    await self.inference.close()
            except Exception as error:  # noqa: BLE001 (such as a full disk: the next second tries again)
                if not told:
                    _LOG.exception("the use of keys is not written: %s", type(error).__name__)
                told = True
            else:
                told = False


def create_app(service: Service) -> FastAPI:
    """Return the API of a service."""
    app = _build(service.life)
    app.state.service = service
    return app


def describe_api() -> dict[str, Any]:
    """Return the OpenAPI description of the API."""
    return _build(None).openapi()


def _build(life: Any) -> FastAPI:
    from finetune.server.routes import completions as answers
    from finetune.server.routes import files, jobs, models, page

    app = FastAPI(
        title="finetune serve",
        version=__version__,
        summary="La Plateforme's fine-tuning API, on your own machine",
        lifespan=life,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.add_middleware(Bounds)
    for module in (files, jobs, models, answers, page):
        app.include_router(module.router)
    app.add_exception_handler(Refused, _refuse)
    app.add_exception_handler(RequestValidationError, _explain)
    app.add_exception_handler(HTTPException, _plain)
    app.add_exception_handler(ClientDisconnect, _end)
    app.add_exception_handler(OSError, _lack)
    app.add_exception_handler(sqlite3.OperationalError, _lack)
    app.add_exception_handler(Exception, _fail)
    return app


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)  # noqa: S101 (registered for it)
    return JSONResponse(error.body, error.status, error.headers)


async def _end(_: Request, _error: Exception) -> Response:
    """Let go of a client that left in the middle of its upload; nobody reads this."""
    return Response(status_code=400)


async def _lack(_: Request, error: Exception) -> Response:
    """Answer where the disk is full; whatever else the system refuses is a fault of the server."""
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    full = isinstance(error, OSError) and error.errno in codes
    if not full and "disk is full" not in str(error):
        raise error
    return JSONResponse({"detail": "The server's disk is full."}, 507)


async def _fail(_request: Request, _error: Exception) -> Response:
    """Answer where the server is at fault; its log says what happened."""
    return JSONResponse({"detail": "Internal Server Error"}, 500)


async def _explain(_: Request, error: Exception) -> Response:
    """Answer to a request that breaks the contract; what was sent is not repeated."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 (registered for it)
    faults: list[dict[str, Any]] = []
    for fault in error.errors():
        kept = {"loc": list(fault["loc"]), "msg": fault["msg"], "type": fault["type"]}
        limits = {
            name: value
            for name, value in fault.get("ctx", {}).items()
            if isinstance(value, int | float)
        }
        faults.append(kept | ({"ctx": limits} if limits else {}))
    return JSONResponse({"detail": faults}, 422)


async def _plain(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 (registered for it)
    headers = dict(error.headers or {})
    if error.status_code == 405:  # each method is a route of its own, which knows no other
        headers["Allow"] = ", ".join(_methods(request))
    return JSONResponse({"detail": error.detail}, error.status_code, headers)


def _methods(request: Request) -> list[str]:
    """Return the methods of a path."""
    path, found = request.url.path, set()
    for template, methods in request.app.openapi()["paths"].items():
        pattern = re.sub(r"\\{[^/]*\\}", "[^/]+", re.escape(template))
        if re.fullmatch(pattern, path):
            found |= {method.upper() for method in methods}
    return sorted(found) or ["GET"]  # what is not described are pages
