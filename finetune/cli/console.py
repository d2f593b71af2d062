"""What commands say: data on stdout, words on stderr, one JSON document where asked for."""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from finetune.files import to_json
from finetune.progress import Progress, silent
from finetune.text import duration, safe

EVERY_SECONDS = 10.0  # between two lines of progress where there is no terminal


class Console:
    """Human, JSON or quiet output, decided once a command.

    Args:
        json: Data go to stdout as JSON, words to nowhere but errors.
        quiet: Only ids go to stdout.
    """

    def __init__(self, *, json: bool = False, quiet: bool = False) -> None:
        self.json = json
        self.quiet = quiet

    def say(self, text: str = "", *, style: str | None = None) -> None:
        """Write words to stderr (nothing with `--json` or `-q`), whatever names are in them."""
        if not (self.json or self.quiet):
            words = safe(text, sys.maxsize)
            click.echo(self.style(words, style, stream=sys.stderr), err=True)

    def show(self, text: str = "", *, style: str | None = None) -> None:
        """Write data for people to stdout (nothing with `--json` or `-q`)."""
        if not (self.json or self.quiet):
            click.echo(self.style(text, style, stream=sys.stdout))

    def emit(self, value: Any) -> None:
        """Write one JSON document (a line) to stdout, with `--json` only."""
        if self.json:
            click.echo(to_json(value).decode())

    def name(self, identifier: object) -> None:
        """Write an id to stdout, with `-q` only."""
        if self.quiet and not self.json:
            click.echo(str(identifier))

    def next(self, command: str) -> None:
        """Name the next command: the last line of every command."""
        self.say(f"next: {command}")

    def style(self, text: str, style: str | None, *, stream: Any = None) -> str:
        """Return `text` in a colour such as `green` or `bold`, where `stream` shows colours."""
        if style is None or not has_colour(stream or sys.stdout):
            return text
        return click.style(text, bold=True) if style == "bold" else click.style(text, fg=style)

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """Give a `Progress`: a bar on a terminal, a line every 10 s elsewhere."""
        if self.json or self.quiet:
            yield silent
        elif sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            yield from _bars()
        else:
            yield _Lines()


def has_colour(stream: Any) -> bool:
    """Tell whether a stream shows colours: a terminal, and nobody said no."""
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def output_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add `--json` and `-q` to a command, which gets them as the argument `console`."""

    @click.option("--json", "as_json", is_flag=True, help="Print JSON to stdout.")
    @click.option("-q", "--quiet", is_flag=True, help="Print ids only.")
    @functools.wraps(command)
    def with_console(*arguments: Any, as_json: bool, quiet: bool, **options: Any) -> None:
        command(*arguments, console=Console(json=as_json, quiet=quiet), **options)

    return with_console


class _Lines:
    """Progress without a terminal."""

    def __init__(self) -> None:
        self._stage = ""
        self._last = 0.0
        self._began: dict[str, tuple[float, int]] = {}  # when each stage was first seen, and where

    def __call__(
        self, stage: str, done: int, total: int | None = None, **facts: float | str
    ) -> None:
        now = time.monotonic()
        if done <= self._began.get(stage, (now, done))[1]:
            self._began[stage] = now, done
        if stage != self._stage:
            self._stage = stage
        elif done != total and now - self._last < EVERY_SECONDS:
            return
        self._last = now
        share = f"{done:,}/{total:,}" if total else f"{done:,}"
        notes = [share, *(describe(name, value) for name, value in facts.items())]
        started, before = self._began[stage]
        if total and before < done < total:
            left = (now - started) * (total - done) / (done - before)
            notes.append(f"{duration(left)} left")
        click.echo(f"{stage}: {', '.join(notes)}", err=True)


def describe(name: str, value: float | str) -> str:
    """Return a figure for people, such as `loss 0.412` or `182 tokens/s`."""
    if name == "tokens_per_second":
        return f"{float(value):,.0f} tokens/s"
    if isinstance(value, float):
        return f"{name.replace('_', ' ')} {value:.4g}"
    return f"{name.replace('_', ' ')} {safe(str(value), 80)}"


def _bars() -> Iterator[Progress]:
    from rich.console import Console as RichConsole
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    with Bars(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[facts]}", markup=False),
        console=RichConsole(stderr=True),
        transient=False,
    ) as bars:
        tasks: dict[str, Any] = {}

        def draw(stage: str, done: int, total: int | None = None, **facts: float | str) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(escape(stage), total=total, facts="")
            notes = "  ".join(describe(name, value) for name, value in facts.items())
            bars.update(tasks[stage], completed=done, total=total, facts=notes)

        yield draw
