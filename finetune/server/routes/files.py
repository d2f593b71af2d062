"""`/v1/files`."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, Response

from finetune.server.contract import File, FileDeleted, FileList, FileUrl, FileWithState
from finetune.server.contract.files import FileSource, Purpose, SampleType
from finetune.server.files import NO_FILE
from finetune.server.refusal import Refused
from finetune.server.routes.shared import Caller, Here, refusals
from finetune.server.uploads import receive

router = APIRouter(prefix="/v1/files", tags=["files"])
Page = Annotated[int, Query(ge=0, le=2**31, description="Which page, from 0.")]
PageSize = Annotated[int, Query(ge=1, le=1000, description="Items a page.")]

_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": "JSON Lines, at most 512 MB.",
                        },
                        "purpose": {
                            "type": "string",
                            "enum": ["fine-tune", "batch", "ocr"],
                            "default": "fine-tune",
                            "description": "What it is for.",
                        },
                        "visibility": {
                            "type": "string",
                            "enum": ["workspace", "user"],
                            "default": "workspace",
                            "description": "Who sees it: every key, or this one.",
                        },
                        "expiry": {
                            "type": ["integer", "null"],
                            "minimum": 1,
                            "maximum": 8784,
                            "description": "Hours until it is deleted by itself.",
                        },
                    },
                }
            }
        },
    }
}


@router.post("", response_model=File, responses=refusals(413), openapi_extra=_FORM)
async def upload_file(request: Request, key: Caller, service: Here) -> Response:
    """Upload a file; one of the same name and content is returned instead of kept twice."""
    upload = await receive(request.headers, request.stream(), service.files.incoming())
    file = await run_in_threadpool(service.files.add, upload, key)
    return _json(file)


@router.get("", response_model=FileList, responses=refusals())
async def list_files(
    key: Caller,
    service: Here,
    page: Page = 0,
    page_size: PageSize = 100,
    include_total: bool = True,
    sample_type: Annotated[list[SampleType] | None, Query()] = None,
    source: Annotated[list[FileSource] | None, Query()] = None,
    search: Annotated[str | None, Query(description="Part of the name.")] = None,
    purpose: Annotated[Purpose | None, Query()] = None,
    mimetypes: Annotated[list[str] | None, Query()] = None,
) -> Response:
    """List files, newest first."""
    filters: dict[str, list[Any]] = {
        "sample_type": list(sample_type or []),
        "purpose": [purpose] if purpose else [],
        "mimetype": mimetypes or [],
    }
    if source and "upload" not in source:
        return _json(FileList(data=[], total=0 if include_total else None))
    found = service.files.page(
        key,
        page=page,
        page_size=page_size,
        include_total=include_total,
        search=search,
        filters={column: wanted for column, wanted in filters.items() if wanted},
    )
    return _json(found)


@router.get("/{file_id}", response_model=FileWithState, responses=refusals(404))
async def get_file(file_id: UUID, key: Caller, service: Here) -> Response:
    """Return one file."""
    file = service.files.find(str(file_id), key)
    return _json(FileWithState(**file.model_dump(), deleted=False))


@router.delete("/{file_id}", response_model=FileDeleted, responses=refusals(404))
def delete_file(file_id: UUID, key: Caller, service: Here) -> Response:
    """Delete a file; jobs made of it keep what they need."""
    service.files.delete(str(file_id), key)
    return _json(FileDeleted(id=file_id))


@router.get(
    "/{file_id}/content",
    response_class=Response,
    responses={
        200: {"content": {"application/octet-stream": {"schema": {"type": "string"}}}},
        **refusals(403, 404),
    },
)
async def get_content(
    request: Request,
    file_id: UUID,
    service: Here,
    expires: Annotated[int | None, Query(description="Of a signed address.")] = None,
    signature: Annotated[str | None, Query(description="Of a signed address.")] = None,
) -> Response:
    """Return a file's content, for a key or a signed address."""
    name, key = str(file_id), None
    if expires is not None and signature is not None:
        if not service.files.is_signed(name, expires, signature):
            raise Refused(403, "The address has expired, or was changed.")
    else:
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        key = service.gate.admit(secret if scheme.lower() == "bearer" else "")
    file = service.files.find(name, key)
    path = service.files.path(name)
    if not path.is_file():
        raise Refused(404, NO_FILE)
    return FileResponse(path, media_type="application/octet-stream", filename=file.filename)


@router.get("/{file_id}/url", response_model=FileUrl, responses=refusals(404))
async def get_url(
    request: Request,
    file_id: UUID,
    key: Caller,
    service: Here,
    expiry: Annotated[int, Query(ge=1, le=168, description="Hours that it holds.")] = 24,
) -> Response:
    """Return an address that gives the content without a key."""
    service.files.find(str(file_id), key)
    query = service.files.sign(str(file_id), expiry)
    base = str(request.base_url).rstrip("/")
    return _json(FileUrl(url=f"{base}/v1/files/{file_id}/content?{query}"))


def _json(value: Any) -> Response:
    return Response(value.model_dump_json(), media_type="application/json")
