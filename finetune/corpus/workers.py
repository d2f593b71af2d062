"""Workers: processes that run the chain, with outcomes in the order of the tasks.

Each is a fresh interpreter that reads tasks from a pipe and ends when the pipe does: nothing is
forked while threads run, nobody's `__main__` is imported again, and none of them outlives a
parent that was killed.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import IO, Any, Self, TypeVar

from finetune.corpus.chain import Chain, Made, Outcome, Steps, Task
from finetune.corpus.containers import Raw
from finetune.errors import FinetuneError, RunError

_LARGE = 32 * 2**20  # bytes from which starting processes pays
_PIPE = 2**20  # bytes that a pipe holds: a task, so that nobody waits for half of one
_AHEAD = 2  # tasks given to a worker before its first outcome is taken
_PROGRAM = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer);"
    "from finetune.corpus.workers import serve; serve()"
)
Context = TypeVar("Context")


def count_workers(size: int | None, wanted: int | None = None) -> int:
    """Return how many processes convert input of a size.

    Args:
        size: Bytes of the input, None where nobody knows.
        wanted: What was asked for.
    """
    if wanted is not None:
        return wanted
    return len(os.sched_getaffinity(0)) if size is not None and size > _LARGE else 1


class Workers(contextlib.ExitStack):
    """Runs tasks, in this process or in several others.

    Args:
        steps: What is done with each record.
        count: How many processes; one means this one.
    """

    def __init__(self, steps: Steps, count: int = 1) -> None:
        super().__init__()
        self._steps = steps
        self._count = count

    def run(self, tasks: Iterable[tuple[Context, Task]]) -> Iterator[tuple[Context, Outcome]]:
        """Yield the outcome of each task, in order; what stands beside a task is handed on.

        Raises:
            RunError: A worker died.
        """
        if self._count == 1:
            chain = Chain(self._steps)
            yield from ((context, chain.run(task)) for context, task in tasks)
            return
        workers = [self.enter_context(_Worker(self._steps)) for _ in range(self._count)]
        waiting: deque[tuple[Context, _Worker]] = deque()
        for number, (context, task) in enumerate(tasks):
            if len(waiting) == _AHEAD * self._count:
                first, worker = waiting.popleft()
                yield first, worker.receive()
            workers[number % self._count].send(task)
            waiting.append((context, workers[number % self._count]))
        for context, worker in waiting:
            yield context, worker.receive()


class _Worker:
    """One process, and the thread that writes tasks to it while nobody waits."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pipesize=_PIPE,
        )
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()
        return self

    def send(self, task: Task) -> None:
        """Hand over a task; returns at once."""
        self._tasks.put(task)

    def receive(self) -> Outcome:
        """Wait for the outcome of the oldest task.

        Raises:
            RunError: The process died.
        """
        assert self._process.stdout  # noqa: S101 (for the type checker)
        try:
            outcome = _load(self._process.stdout)
        except (EOFError, pickle.UnpicklingError):
            code = self._process.wait()
            ended = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise RunError(
                f"a worker process ended: {ended}",
                hint="was the machine short of memory? `--workers 1` needs the least",
            ) from None
        if isinstance(outcome, BaseException):
            raise outcome
        account, columns, losses = outcome
        return Outcome(account, list(map(Made._make, zip(*columns, strict=True))), losses)

    def _write(self) -> None:
        assert self._process.stdin  # noqa: S101 (for the type checker)
        with contextlib.suppress(BrokenPipeError), self._process.stdin as pipe:
            _dump(sys.path, pipe)
            _dump(self._steps, pipe)
            while task := self._tasks.get():
                raw = all(type(item) is Raw for item in task.items)
                _dump(
                    (task.reader, raw, list(zip(*task.items, strict=True)) if raw else task.items),
                    pipe,
                )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._tasks.put(None)
        if kind is not None:
            self._process.kill()
        self._thread.join()
        self._process.wait()
        assert self._process.stdout  # noqa: S101 (for the type checker)
        self._process.stdout.close()


# Many small tuples are slow to pickle: rows and records travel as columns of plain values.


def _dump(value: Any, pipe: IO[bytes]) -> None:
    pipe.write(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))
    pipe.flush()


def _load(pipe: IO[bytes]) -> Any:
    return pickle.load(pipe)  # noqa: S301 (between our own processes)


def serve() -> None:
    """Run tasks from stdin until it ends: what a worker does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and ends the pipe
    tasks, outcomes = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing else may write among the outcomes
    with contextlib.suppress(EOFError, BrokenPipeError, pickle.UnpicklingError):
        steps = _load(tasks)
        chain: Chain | None = None
        while True:
            reader, raw, items = _load(tasks)
            rows = list(map(Raw._make, zip(*items, strict=True))) if raw else items
            answer: Any
            try:
                chain = chain or Chain(steps)
                account, records, losses = chain.run(Task(reader, rows))
                answer = account, list(zip(*records, strict=True)), losses
            except (FinetuneError, OSError) as error:
                answer = error
            _dump(answer, outcomes)
