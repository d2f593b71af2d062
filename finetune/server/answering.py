"""Answering: questions go to the inference process, its lines come back to those who asked."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec

from finetune.files import to_json
from finetune.server.inference import Question
from finetune.server.refusal import Refused

MAX_WAITING = 32  # questions; more are sent away
_LINE_BYTES = 64 * 2**20


class Inference:
    """The inference process of a server: started when somebody asks, started again if it dies.

    Args:
        folder: The server's folder; its words go to `inference.log` there.
        shut: Tells whether training has the device to itself now.
    """

    def __init__(self, folder: Path, shut: Callable[[], bool]) -> None:
        self._folder, self._shut = folder, shut
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._waiting: dict[str, asyncio.Queue[dict[str, Any]]] = {}
        self._start_lock = asyncio.Lock()

    async def ask(self, question: Question) -> AsyncIterator[dict[str, Any]]:
        """Yield the lines of an answer, `text` pieces and `done` ones.

        Raises:
            Refused: 503: training has the device, or too many wait; else what the model said.
        """
        if self._shut():
            raise Refused(503, "A job is training on this device.", headers={"Retry-After": "60"})
        if len(self._waiting) >= MAX_WAITING:
            raise Refused(503, "Too many requests are waiting.", headers={"Retry-After": "5"})
        question.id = uuid.uuid4().hex
        lines: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._waiting[question.id] = lines
        ended = False
        try:
            await self._send(question)
            while not ended:
                line = await lines.get()
                ended = "end" in line or "refused" in line
                if "refused" in line:
                    refused = line["refused"]
                    headers = {"Retry-After": "10"} if refused["status"] == 503 else None
                    raise Refused(refused["status"], refused["detail"], headers=headers)
                if not ended:
                    yield line
        finally:
            self._waiting.pop(question.id, None)
            if not ended and self._process is not None:
                with contextlib.suppress(ConnectionError, RuntimeError):
                    self._write(Question(id=question.id, kind="cancel"))

    async def close(self) -> None:
        """End the process; it frees the device."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()
        if self._reader is not None:
            await self._reader
            self._reader = None

    async def _send(self, question: Question) -> None:
        async with self._start_lock:
            if self._process is None or self._process.returncode is not None:
                await self.close()
                await self._start()
        self._write(question)

    def _write(self, question: Question) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(to_json(question) + b"\n")

    async def _start(self) -> None:
        log = await asyncio.to_thread(open, self._folder / "inference.log", "ab")
        with log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "finetune.server.inference",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=_LINE_BYTES,
                start_new_session=True,  # Ctrl-C is for the server, which ends it
            )
        self._reader = asyncio.create_task(self._read(self._process))

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        try:
            while process.stdout is not None and (line := await process.stdout.readline()):
                value = msgspec.json.decode(line)
                if value["id"] in self._waiting:
                    self._waiting[value["id"]].put_nowait(value)
        except (ValueError, msgspec.MsgspecError):  # nobody would read what comes behind
            process.kill()
        await process.wait()
        gone = {"refused": {"status": 503, "detail": "The model's process ended."}}
        for lines in self._waiting.values():
            lines.put_nowait(gone)
