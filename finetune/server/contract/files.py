"""Files that were uploaded."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from finetune.server.contract.base import Reply

Purpose = Literal["fine-tune", "batch", "ocr"]
SampleType = Literal["pretrain", "instruct", "batch_request", "batch_result", "batch_error"]
FileSource = Literal["upload", "repository", "mistral"]
Visibility = Literal["workspace", "user"]


class File(Reply):
    """A file on this server."""

    id: UUID
    """Its number."""
    object: Literal["file"] = "file"
    """Always `file`."""
    bytes: int
    """Its size."""
    created_at: int
    """When it came, in seconds since 1970."""
    filename: str
    """Its name, as it was uploaded."""
    purpose: Purpose
    """What it is for."""
    sample_type: SampleType
    """What its first line is: a document, or a conversation (classifier data too)."""
    source: FileSource
    """Where it came from: here always `upload`."""
    num_lines: int | None = None
    """How many lines it has."""
    mimetype: str | None = None
    """Its type."""
    signature: str | None = None
    """The first 16 hex digits of its SHA-256."""
    expires_at: int | None = None
    """When it is deleted by itself."""
    visibility: Visibility | None = None
    """Who sees it: every key, or only the one that uploaded it."""


class FileWithState(File):
    """A file, and whether it is gone."""

    deleted: bool
    """Always false: a deleted file is not found."""


class FileList(Reply):
    """A page of files."""

    data: list[File]
    """The files, newest first."""
    object: Literal["list"] = "list"
    """Always `list`."""
    total: int | None = None
    """How many there are on all pages."""


class FileDeleted(Reply):
    """A file that was deleted."""

    id: UUID
    """Its number."""
    object: Literal["file"] = "file"
    """Always `file`."""
    deleted: bool = True
    """Always true."""


class FileUrl(Reply):
    """An address that gives the content without a key, for some hours."""

    url: str
    """The address."""
