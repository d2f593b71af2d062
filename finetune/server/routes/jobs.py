"""`/v1/fine_tuning/jobs`."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from pydantic import BeforeValidator, Field

from finetune.server.contract import (
    ClassifierDetails,
    ClassifierJob,
    CompletionDetails,
    CompletionJob,
    JobList,
    JobRequest,
    OldMetadata,
    Status,
)
from finetune.server.refusal import Refused
from finetune.server.routes.files import Page, PageSize
from finetune.server.routes.shared import Caller, Here, admit, find_service, refusals

UNAVAILABLE = "Model not available for this type of fine-tuning (completion)."


def _require_date(value: Any) -> Any:
    if isinstance(value, str) and "-" not in value[1:]:
        raise ValueError("a date and time is expected (RFC 3339)")
    return value


Moment = Annotated[dt.datetime, BeforeValidator(_require_date)]
Job = Annotated[CompletionJob | ClassifierJob, Field(discriminator="job_type")]
JobDetails = Annotated[CompletionDetails | ClassifierDetails, Field(discriminator="job_type")]


async def _require_offered(service: Annotated[Any, Depends(find_service)]) -> None:
    refuse = service.settings.refuse
    if refuse == "gone":
        raise Refused(410, "Fine-tuning jobs are not offered any more.")
    if refuse == "missing":
        raise Refused(404, "Not Found")


router = APIRouter(
    prefix="/v1/fine_tuning/jobs",
    tags=["fine-tuning"],
    dependencies=[Depends(admit), Depends(_require_offered)],
)


@router.get("", response_model=JobList, responses=refusals(404, 410))
async def list_jobs(
    key: Caller,
    service: Here,
    page: Page = 0,
    page_size: PageSize = 100,
    model: str | None = None,
    created_after: Moment | None = None,
    created_before: Moment | None = None,
    created_by_me: bool = False,
    status: Status | None = None,
    wandb_project: str | None = None,
    wandb_name: str | None = None,
    suffix: str | None = None,
) -> Response:
    """List jobs, newest first."""
    if wandb_project is not None or wandb_name is not None:  # no job here has a tracker
        return _json(JobList(data=[], total=0).model_dump_json())
    found = service.jobs.page(
        page=page,
        page_size=page_size,
        model=model,
        status=status,
        suffix=suffix,
        key=key.name if created_by_me else None,
        after=_seconds(created_after),
        before=_seconds(created_before),
    )
    return _json(found)


@router.post("", response_model=Job | OldMetadata, responses=refusals(404, 409, 410, 503))
async def create_job(
    request: JobRequest, key: Caller, service: Here, dry_run: bool | None = None
) -> Response:
    """Make a job, or with `dry_run` only its bill."""
    if service.settings.refuse in ("create", "cards"):
        raise Refused(422, UNAVAILABLE)
    if dry_run:
        bill = await run_in_threadpool(service.dry_run, request, key)
        return _json(bill.model_dump_json())
    job = await run_in_threadpool(service.jobs.create, request, key)
    service.supervisor.wake()
    return _json(job.model_dump_json(exclude={"events", "checkpoints", "classifier_targets"}))


@router.get("/{job_id}", response_model=JobDetails, responses=refusals(404, 410))
async def get_job(job_id: UUID, service: Here) -> Response:
    """Return a job with its events and checkpoints."""
    return _json(service.jobs.document(str(job_id)))


@router.post("/{job_id}/cancel", response_model=JobDetails, responses=refusals(404, 410))
def cancel_job(job_id: UUID, service: Here) -> Response:
    """Stop a job at any moment; one that has ended stays as it is."""
    job = service.jobs.cancel(str(job_id))
    service.supervisor.wake()
    return _json(job.model_dump_json())


@router.post("/{job_id}/start", response_model=JobDetails, responses=refusals(404, 410))
def start_job(job_id: UUID, service: Here) -> Response:
    """Train a job that is validated."""
    job = service.jobs.start(str(job_id))
    service.supervisor.wake()
    return _json(job.model_dump_json())


def _seconds(moment: dt.datetime | None) -> float | None:
    if moment is None:
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    return aware.timestamp()


def _json(text: str | bytes) -> Response:
    return Response(text, media_type="application/json")
