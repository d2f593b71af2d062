"""The error tree. Everything raised on purpose is a `FinetuneError`.

FinetuneError                      has .hint and .exit_code                          exit 1
├── UsageError(ValueError)         a path, model, column or option that is not there exit 2
│   └── RecipeError                a recipe that cannot be used                      exit 2
├── MissingExtra(ImportError)      names the install line                            exit 2
├── DataError(ValueError)          file, line, path inside the record                exit 3
├── RunError(RuntimeError)         a run folder in the wrong state                   exit 1
│   ├── RunLocked                  another process holds it                          exit 9
│   └── ConfirmationNeeded         it would spend or delete, nobody said yes      exit 7
├── BackendError(RuntimeError)
│   ├── PlatformError              the service said no                               exit 4, 5 or 8
│   └── TrainingError              local training or the remote job failed           exit 6
└── Interrupted                    a signal; the state is saved                      exit 130, 143

A message is one line: place, fact, value. `hint` is the next step.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping


class FinetuneError(Exception):
    """Anything this package raises on purpose.

    Args:
        message: One line: place, then fact, then value.
        hint: What to do next, when there is something to do.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        return (rebuild, (type(self), self.__dict__.copy()))


def rebuild(cls: type[FinetuneError], state: Mapping[str, object]) -> FinetuneError:
    """Return an error of another process, given its `__dict__`."""
    error = cls.__new__(cls)
    Exception.__init__(error, state["message"])
    error.__dict__.update(state)
    return error


class UsageError(FinetuneError, ValueError):
    """The user named something that is not there or does not fit."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe that cannot be used: the file, the dotted path, what was expected."""


class MissingExtra(FinetuneError, ImportError):
    """A library of an optional extra is missing.

    Args:
        extra: The extra's name, as in `pip install "mistral-finetune-kit[local]"`.
        library: What could not be imported.
    """

    exit_code = 2

    def __init__(self, extra: str, library: str) -> None:
        python = shlex.quote(sys.executable)
        super().__init__(
            f"{library} is not installed: this needs the extra `{extra}`",
            hint=f'{python} -m pip install "mistral-finetune-kit[{extra}]"',
        )
        self.extra = extra
        self.library = library


class DataError(FinetuneError, ValueError):
    """Data that break a rule.

    Args:
        message: The fact, without the place.
        file: Where it was read.
        line: Line in that file, from 1 (or the record's number in formats without lines).
        path: Path inside the record, such as `messages[3].role`.
        rule: The rule's short name, such as `turn-order`.
        hint: What to do next.
    """

    exit_code = 3

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        line: int | None = None,
        path: str | None = None,
        rule: str | None = None,
        hint: str | None = None,
    ) -> None:
        place = ":".join(str(part) for part in (file, line) if part is not None)
        text = ": ".join(part for part in (place, path, message) if part)
        super().__init__(f"{text}  [{rule}]" if rule else text, hint=hint)
        self.fact = message
        self.file = file
        self.line = line
        self.path = path
        self.rule = rule

    def at(self, file: str, line: int) -> DataError:
        """Return the same error with its place."""
        return DataError(
            self.fact, file=file, line=line, path=self.path, rule=self.rule, hint=self.hint
        )


class RunError(FinetuneError, RuntimeError):
    """A run folder is not in the state that a command needs."""


class RunLocked(RunError):
    """Another process works in this run folder; the message names the holder."""

    exit_code = 9


class ConfirmationNeeded(RunError):
    """Going on would spend money or delete data, and nobody confirmed it."""

    exit_code = 7


class BackendError(FinetuneError, RuntimeError):
    """A backend could not do what was asked."""


class PlatformError(BackendError):
    """La Plateforme, or a server that speaks its API, said no.

    Args:
        message: What it said, cleaned and bounded.
        exit_code: 4 key missing or refused, 5 unreachable, 8 not offered any more.
        hint: What to do next.
    """

    def __init__(self, message: str, *, exit_code: int = 5, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class TrainingError(BackendError):
    """Training ended without a usable model."""

    exit_code = 6


class Interrupted(FinetuneError):
    """A signal ended the work after its state was saved.

    Args:
        signal_number: 2 for SIGINT, 15 for SIGTERM.
        message: What was saved and where.
        hint: How to go on.
    """

    def __init__(self, signal_number: int, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = 128 + signal_number
