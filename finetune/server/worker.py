"""Workers: processes that outlive the server, and are never started twice.

A worker inherits a locked file from the server. The lock is held exactly as long as the worker
lives, also when the server is killed; whoever wants to start another one has to take it first.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from finetune.files import Lock, write_atomic

_CHILDREN: dict[Path, subprocess.Popen[bytes]] = {}  # to be reaped by this process


class Worker:
    """The process that does one kind of work for one job.

    Args:
        folder: The job's folder.
        name: What it does; names its lock and its log.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._lock = folder / f"{name}.lock"
        self._deaths = folder / f"{name}.deaths"
        self.log = folder / f"{name}.log"

    def start(self, command: Sequence[str], *, cwd: Path) -> bool:
        """Start a process in a group of its own.

        Returns:
            False where one is at work already.
        """
        with open(self._lock, "a+b") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            with open(self.log, "ab") as log:
                process = subprocess.Popen(
                    command,
                    cwd=cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                    start_new_session=True,
                    pass_fds=[lock.fileno()],
                )
            lock.truncate(0)
            lock.write(str(process.pid).encode())
        _CHILDREN[self._lock] = process
        return True

    def alive(self) -> bool:
        """Tell whether it is at work."""
        child = _CHILDREN.get(self._lock)
        if child is not None and child.poll() is not None:
            _CHILDREN.pop(self._lock)
        return Lock(self._lock).held()

    def wait(self) -> None:
        """Return when it has ended; for the process that started it."""
        child = _CHILDREN.get(self._lock)
        if child is not None:
            child.wait()
            _CHILDREN.pop(self._lock, None)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Send a signal to its group, if it is at work."""
        # The number can't be another process's: the lock is held.
        text = self._lock.read_bytes() if self.alive() else b""
        if text.isdigit():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(text), number)

    def count_deaths(self, progress: int) -> int:
        """Return how many processes have ended since there was progress, the last one included.

        Each is counted once, by its number: a server that is killed before it starts the next one
        looks again and counts nothing.

        Args:
            progress: How far the work is.
        """
        number = self._lock.read_text() if self._lock.exists() else ""
        known = self._deaths.read_text().split() if self._deaths.exists() else []
        deaths, last = (int(known[0]), known[2:]) if known[1:2] == [str(progress)] else (0, [])
        if number and last != [number]:
            deaths += 1
            write_atomic(self._deaths, f"{deaths} {progress} {number}".encode())
        return deaths

    def forgive_deaths(self) -> None:
        """Begin to count anew."""
        self._deaths.unlink(missing_ok=True)

    def last_error(self) -> str | None:
        """Return the last line of its log that says what went wrong, None where none does."""
        with contextlib.suppress(OSError):
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
            errors = [line for line in lines if line.startswith("error: ")]
            return errors[-1].removeprefix("error: ") if errors else None
        return None
