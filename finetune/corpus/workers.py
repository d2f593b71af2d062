"""Workers: processes that run the chain, with outcomes in the order of the tasks.

The process that hands out the tasks is one of them: it works on what no other has room for, so
that it neither waits while they start nor stands idle beside them. Each of the others is a fresh
interpreter that reads tasks from a pipe and ends when the pipe does: nothing is forked while
threads run, nobody's `__main__` is imported again, and none of them outlives a parent that was
killed.
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
_AHEAD = 4  # tasks that a process has at most
_MOST_WAITING = 32  # outcomes held because an earlier one is not there yet
_PREFIX = 8  # bytes of a message's length
_PROGRAM = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer);"
    "from finetune.corpus.workers import serve; serve()"
)
Context = TypeVar("Context")
Answer = Outcome | FinetuneError | OSError


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
        count: How many processes, this one included.
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
        chain = Chain(self._steps)
        workers = [self.enter_context(_Worker(self._steps)) for _ in range(self._count - 1)]
        waiting: deque[tuple[Context, _Worker | Answer]] = deque()
        for context, task in tasks:
            free = next((worker for worker in workers if worker.has_room()), None)
            if free:
                free.send(task)
            waiting.append((context, free or _run(chain, task)))
            while waiting and (len(waiting) > _MOST_WAITING or _is_there(waiting[0][1])):
                first, source = waiting.popleft()
                yield first, _take(source)
        yield from ((first, _take(source)) for first, source in waiting)


def _run(chain: Chain, task: Task) -> Answer:
    try:
        return chain.run(task)
    except (FinetuneError, OSError) as error:
        return error  # raised in its turn: an earlier task may have failed too


def _is_there(source: _Worker | Answer) -> bool:
    return source.has_answer() if isinstance(source, _Worker) else True


def _take(source: _Worker | Answer) -> Outcome:
    answer = source.receive() if isinstance(source, _Worker) else source
    if isinstance(answer, Exception):
        raise answer
    return answer


class _Worker:
    """One process, with a thread that writes its tasks and one that reads its answers."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._sent = self._answered = 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pipesize=_PIPE,
        )
        self._threads = [
            threading.Thread(target=target, daemon=True) for target in (self._write, self._read)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def has_room(self) -> bool:
        """Tell whether it could take one more task."""
        return self._sent - self._answered < _AHEAD

    def has_answer(self) -> bool:
        """Tell whether the oldest task is answered."""
        return not self._answers.empty()

    def send(self, task: Task) -> None:
        """Hand over a task; returns at once."""
        self._sent += 1
        self._tasks.put(task)

    def receive(self) -> Answer:
        """Wait for the answer to the oldest task."""
        return self._answers.get()

    def _read(self) -> None:
        assert self._process.stdout  # noqa: S101 (for the type checker)
        try:
            while True:
                answer = _load(self._process.stdout)
                if isinstance(answer, tuple):
                    account, columns, losses = answer
                    made = list(map(Made._make, zip(*columns, strict=True)))
                    answer = Outcome(account, made, losses)
                self._answers.put(answer)
                self._answered += 1
        except (EOFError, OSError, pickle.UnpicklingError):
            self._answers.put(self._death(self._process.wait()))

    @staticmethod
    def _death(code: int) -> RunError:
        ended = f"signal {-code}" if code < 0 else f"exit code {code}"
        return RunError(
            f"a worker process ended: {ended}",
            hint="was the machine short of memory? `--workers 1` needs the least",
        )

    def _write(self) -> None:
        assert self._process.stdin  # noqa: S101 (for the type checker)
        with contextlib.suppress(BrokenPipeError), self._process.stdin as pipe:
            pipe.write(pickle.dumps(sys.path))
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
        for thread in self._threads:
            thread.join()
        code = self._process.wait()
        assert self._process.stdout  # noqa: S101 (for the type checker)
        self._process.stdout.close()
        if kind is None and code:
            raise self._death(code)


# Many small tuples are slow to pickle: rows and records travel as columns of plain values.


# Each message says its length first, so that it is read in few calls: after each of them a thread
# waits for the interpreter, which the main thread holds while it converts.


def _dump(value: Any, pipe: IO[bytes]) -> None:
    data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    pipe.write(len(data).to_bytes(_PREFIX, "little") + data)
    pipe.flush()


def _load(pipe: IO[bytes]) -> Any:
    size = int.from_bytes(pipe.read(_PREFIX), "little")
    data = pipe.read(size) if size else b""
    if len(data) < size or not size:
        raise EOFError
    return pickle.loads(data)  # noqa: S301 (between our own processes)


def serve() -> None:
    """Run tasks from stdin until it ends: what a worker does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and ends the pipe
    tasks, outcomes = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing else may write among the outcomes
    with contextlib.suppress(EOFError, BrokenPipeError, pickle.UnpicklingError):
        chain = Chain(_load(tasks))  # what may be wrong with it was told by the parent's own
        while True:
            reader, raw, items = _load(tasks)
            rows = list(map(Raw._make, zip(*items, strict=True))) if raw else items
            answer: Any = _run(chain, Task(reader, rows))
            if isinstance(answer, Outcome):
                account, records, losses = answer
                answer = account, list(zip(*records, strict=True)), losses
            _dump(answer, outcomes)
