"""What all paths share: the service, and who asks."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from finetune.server.contract import Refusal
from finetune.server.keys import Key
from finetune.server.refusal import Refused

_BEARER = HTTPBearer(auto_error=False, description="A key of `finetune serve keys create`.")


async def find_service(request: Request) -> Any:
    """Return the service behind a request; async, as all else would cost a thread each time."""
    return request.app.state.service


async def admit(
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)],
    service: Annotated[Any, Depends(find_service)],
) -> Key:
    """Return the key of a request.

    Raises:
        Refused: 401 without one that holds, 429 over its limit.
    """
    if credentials is None:
        raise Refused(401, "Unauthorized", headers={"WWW-Authenticate": "Bearer"})
    key: Key = service.gate.admit(credentials.credentials)
    return key


Caller = Annotated[Key, Depends(admit)]
Here = Annotated[Any, Depends(find_service)]


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the description of what a path may say no with."""
    words = {
        400: "It can't be done as asked.",
        401: "No key, or one that does not hold.",
        403: "Not for this object.",
        404: "There is none.",
        409: "There is one like it.",
        410: "Not offered any more.",
        413: "Too large.",
        422: "The request breaks the contract, or asks for what is not here.",
        429: "Over a limit of the key.",
        502: "The vLLM behind the model fails.",
        503: "Not now: come back after `Retry-After` seconds.",
    }
    return {
        status: {"model": Refusal, "description": words[status]}
        for status in sorted({400, 401, 413, 422, 429, *statuses})
    }
