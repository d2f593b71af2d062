"""What all requests and replies share."""

from __future__ import annotations

from typing import Any

import msgspec
from pydantic import BaseModel, ConfigDict, model_validator


class Body(BaseModel):
    """The body of a request: what it says can be written down again."""

    @model_validator(mode="before")
    @classmethod
    def _can_be_kept(cls, value: Any) -> Any:
        try:
            msgspec.json.encode(value if isinstance(value, dict) else None)
        except (UnicodeEncodeError, RecursionError):
            raise ValueError("holds half of a surrogate pair (\\ud800 …), or is too deep") from None
        return value


class Request(BaseModel):
    """A request: unknown keys are passed over, as the API does for jobs."""

    model_config = ConfigDict(
        allow_inf_nan=False, hide_input_in_errors=True, use_attribute_docstrings=True
    )


class StrictRequest(BaseModel):
    """A request whose unknown keys are refused, as the API does for answers."""

    model_config = ConfigDict(
        extra="forbid",
        allow_inf_nan=False,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )


class Reply(BaseModel):
    """A reply: every field is written, null where there is no value."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Fault(Reply):
    """One thing that is wrong with a request."""

    loc: list[str | int]
    """Where it stands, from `body`, `query` or `path` on."""
    msg: str
    """What is wrong."""
    type: str
    """Its kind, such as `missing` or `extra_forbidden`."""
    ctx: dict[str, Any] | None = None
    """Limits that were broken."""


class Refusal(Reply):
    """Why a request was refused: a sentence, or a list of faults."""

    detail: str | list[Fault]
    """A sentence, or each fault with its place."""
    message: str | None = None
    """More about it, for files."""
