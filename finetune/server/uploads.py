"""Uploads: a multipart body straight onto the disk, in constant memory."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from finetune.records import kind_of
from finetune.server.refusal import Refused

MAX_BYTES = 512 * 2**20  # of one file, as La Plateforme
_MAX_FIELD = 1024
_MAX_FIRST_LINE = 4 * 2**20
_BATCH = 2**20  # bytes written at once


class Upload:
    """A file that is coming in.

    Attributes:
        path: Where its content lies; nobody's until it is taken over.
        filename: Its name.
        fields: The other fields of the form.
        bytes: Its size.
        sha256: Digest of its content.
        lines: How many lines it has.
        first: Its first line, as far as it is kept.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.filename: str | None = None
        self.fields: dict[str, str] = {}
        self.bytes = self.lines = 0
        self.first = b""
        self._open_line = False
        self._digest = hashlib.sha256()
        self._pending: list[bytes] = []
        self._waiting = 0

    @property
    def sha256(self) -> str:
        """Digest of what came so far."""
        return self._digest.hexdigest()

    def add(self, data: bytes) -> None:
        """Take the next piece of the content."""
        self.bytes += len(data)
        if self.bytes > MAX_BYTES:
            raise too_large()
        if self.lines == 0 and len(self.first) < _MAX_FIRST_LINE:
            self.first += data.partition(b"\n")[0]
        self.lines += data.count(b"\n")
        if data:
            self._open_line = not data.endswith(b"\n")
        self._pending.append(data)
        self._waiting += len(data)

    async def drain(self, file: Any, *, all_of_it: bool = False) -> None:
        """Write what is waiting, once there is enough of it."""
        if self._waiting >= _BATCH or (all_of_it and self._waiting):
            data = b"".join(self._pending)
            self._pending, self._waiting = [], 0
            await asyncio.to_thread(self._write, file, data)

    def _write(self, file: Any, data: bytes) -> None:
        self._digest.update(data)
        file.write(data)

    def close(self) -> None:
        """Count a last line without an end."""
        self.lines += self._open_line


async def receive(headers: Any, body: AsyncIterator[bytes], path: Path) -> Upload:
    """Read a multipart form with one file into `path`.

    Args:
        headers: Those of the request.
        body: The request's body.
        path: Where the content goes; removed again where anything is wrong.

    Raises:
        Refused: 413 over the limit, 422 for anything else that is no such form.
    """
    length = headers.get("content-length", "")
    if length.isdigit() and int(length) > MAX_BYTES + 2**20:
        raise too_large()
    upload = Upload(path)
    form = _Form(headers.get("content-type", ""), upload)
    file = await asyncio.to_thread(open, path, "wb")
    try:
        async for chunk in body:
            form.write(chunk)
            await upload.drain(file)
        await upload.drain(file, all_of_it=True)
        form.close()
        upload.close()
        await asyncio.to_thread(_sync, file)
    except BaseException:
        await asyncio.to_thread(path.unlink, missing_ok=True)
        raise
    finally:
        await asyncio.to_thread(file.close)
    return upload


def too_large() -> Refused:
    """Return the reply to a file over the limit."""
    return Refused(413, f"File too large: at most {MAX_BYTES // 2**20} MB.")


def describe(upload: Upload) -> str:
    """Return the sample type of a file that can be trained on.

    Raises:
        Refused: 422: it is no JSON Lines.
    """

    def refuse(fact: str) -> Refused:
        return Refused(422, "Invalid file format.", message=fact)

    if not (upload.filename or "").endswith(".jsonl"):
        raise refuse("line 0: only files named .jsonl can be trained on")
    if upload.bytes == 0:
        raise refuse("line 1: the file is empty")
    if len(upload.first) >= _MAX_FIRST_LINE:
        raise refuse(f"line 1: longer than {_MAX_FIRST_LINE // 2**20} MB")
    try:
        value = json.loads(upload.first)
    except (ValueError, RecursionError):
        raise refuse("line 1: not JSON") from None
    if not isinstance(value, dict):
        raise refuse("line 1: not a JSON object")
    return "pretrain" if kind_of(value) == "text" else "instruct"


class _Form:
    """Feeds the parts of a form to an upload."""

    def __init__(self, content_type: str, upload: Upload) -> None:
        from python_multipart.exceptions import FormParserError
        from python_multipart.multipart import MultipartParser, parse_options_header

        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise _fault("a form (multipart/form-data) with a file is expected")
        self._upload = upload
        self._parse_header = parse_options_header
        self._name = self._field = b""
        self._value: bytearray | None = None
        self._ended = False
        callbacks: Any = {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }
        try:
            self._parser = MultipartParser(boundary, callbacks)
        except FormParserError:  # a boundary without end
            raise _fault("the form is damaged") from None

    def write(self, chunk: bytes) -> None:
        from python_multipart.exceptions import FormParserError

        try:
            self._parser.write(chunk)
        except FormParserError:
            raise _fault("the form is damaged") from None

    def close(self) -> None:
        if not self._ended:
            raise _fault("the form ends in the middle")
        if self._upload.filename is None:
            raise _fault("Field required", kind="missing")

    def _begin(self) -> None:
        self._headers_read: dict[bytes, bytes] = {}
        self._field = b""
        self._header_text = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_text += data[start:end]
        if len(self._header_text) > _MAX_FIELD * 4:
            raise _fault("a header of the form is too long")

    def _header_end(self) -> None:
        self._headers_read[self._field.lower()] = self._header_text
        self._field = self._header_text = b""

    def _headers(self) -> None:
        _, options = self._parse_header(self._headers_read.get(b"content-disposition"))
        self._name = options.get(b"name", b"")
        self._value = None
        if self._name == b"file":
            if self._upload.filename is not None:
                raise _fault("one file at a time")
            name = options.get(b"filename")
            if name is None:
                raise _fault("a file with a name is expected")
            self._upload.filename = _name(name)
        else:
            self._value = bytearray()

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._value is None:
            self._upload.add(data[start:end])
            return
        self._value += data[start:end]
        if len(self._value) > _MAX_FIELD:
            raise _fault("a field of the form is too long")

    def _end(self) -> None:
        if self._value is not None:
            with contextlib.suppress(UnicodeDecodeError):
                self._upload.fields[self._name.decode()] = self._value.decode()

    def _finish(self) -> None:
        self._ended = True


def _name(raw: bytes) -> str:
    """Return a file's name: its last part, without control characters."""
    text = raw.decode("utf-8", "replace").replace("\\", "/").rpartition("/")[2]
    name = "".join(char for char in text if char.isprintable())[:255]
    if not name:
        raise _fault("a file with a name is expected")
    return name


def _fault(fact: str, *, kind: str = "value_error") -> Refused:
    return Refused(422, [{"loc": ["body", "file"], "msg": fact, "type": kind}])


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
