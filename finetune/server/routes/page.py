"""`/health` and the page at `/`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from finetune import __version__
from finetune.server.routes.shared import Here

router = APIRouter(tags=["server"])


@router.get("/health")
async def check_health(service: Here) -> dict[str, Any]:
    """Tell that the server is up, and reads its database."""
    service.store.read("SELECT 1")
    return {"status": "ok", "version": __version__}
