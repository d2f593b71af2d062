"""`/health`, and the pages for people."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends
from fastapi.responses import HTMLResponse
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from finetune import __version__
from finetune.server.pages import show_job, show_overview
from finetune.server.refusal import Refused
from finetune.server.routes.shared import Here

router = APIRouter(tags=["server"], include_in_schema=False)
_BASIC = HTTPBasic(auto_error=False)


def _admit(
    credentials: Annotated[HTTPBasicCredentials | None, Depends(_BASIC)], service: Here
) -> None:
    """Let a browser in: any user name, a key as the password."""
    try:
        service.gate.admit(credentials.password if credentials else "")
    except Refused as error:
        if error.status == 401:
            error.headers["WWW-Authenticate"] = 'Basic realm="finetune serve: a key as password"'
        raise


@router.api_route("/health", methods=["GET", "HEAD"])
async def check_health(service: Here) -> dict[str, Any]:
    """Tell that the server is up, and reads its database."""
    service.store.read("SELECT 1")
    return {"status": "ok", "version": __version__}


@router.get("/", dependencies=[Depends(_admit)])
def see_overview(service: Here) -> HTMLResponse:
    """Show all jobs, models, files and keys."""
    return HTMLResponse(show_overview(service))


@router.get("/jobs/{job_id}", dependencies=[Depends(_admit)])
def see_job(job_id: UUID, service: Here) -> HTMLResponse:
    """Show one job."""
    return HTMLResponse(show_job(service, str(job_id)))
