"""`finetune chat`: talk with a run's model."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from finetune.cli.console import Console, output_options
from finetune.cli.options import RUNS, call_run, key_option, read_key, suggest_use
from finetune.errors import DataError, UsageError
from finetune.files import to_json
from finetune.records import AssistantMessage, text_of
from finetune.text import safe

if TYPE_CHECKING:
    from finetune.runs import Run


@click.command("chat")
@click.argument("run")
@click.option("--prompt", metavar="TEXT", help="Answer this and end.")
@click.option(
    "--image",
    "images",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="Show this with the first question; more than once for several.",
)
@click.option("--system", metavar="TEXT", help="System prompt of the conversation.")
@click.option("--max-new-tokens", type=click.IntRange(1), default=512, show_default=True)
@key_option
@output_options
def command(
    run: str,
    prompt: str | None,
    images: tuple[Path, ...],
    system: str | None,
    max_new_tokens: int,
    key_file: Path | None,
    console: Console,
) -> None:
    """Talk with a run's model; without a terminal, standard input is the one question.

    RUN is a path, a name, a unique prefix, or `last`.
    """
    from finetune.runs import find_run

    found = find_run(run, RUNS)
    if found.model is None:
        raise UsageError(
            f"{found.folder}: has no tuned model: its state is `{found.state['state']}`",
            hint=found.find_remedy(),
        )
    if found.recipe.method == "classifier":
        raise UsageError(
            f"{found.folder}: its model is a classifier and gives no answers",
            hint=f"`{suggest_use(found)}`",
        )
    talk = prompt is None and sys.stdin.isatty()
    question = prompt if talk or prompt is not None else sys.stdin.read().strip()
    if not talk and not question:
        raise UsageError("chat: nothing was asked", hint="give `--prompt TEXT`, or pipe a text in")
    shown = [_read_image(path) for path in images]
    with contextlib.ExitStack() as stack:
        ask = _open(found, stack, key_file, system, max_new_tokens, console)
        for text in _ask_person(console) if talk else [question or ""]:
            answer = ask(text, shown)
            shown = []
            console.emit({"run": found.folder.name, "message": msgspec.to_builtins(answer)})
            console.show(safe(_show(answer), 100_000))
    local = found.tuned.is_dir()
    following = f"export {call_run(found)} --to merged -o DIR" if local else "runs"
    console.next(f"finetune {following}")


def _open(
    found: Run,
    stack: contextlib.ExitStack,
    key_file: Path | None,
    system: str | None,
    limit: int,
    console: Console,
) -> Callable[[str, Sequence[str]], AssistantMessage]:
    """Return what asks a run's model: on this machine, or on the platform."""
    if not found.tuned.is_dir():
        from finetune.backends import platform
        from finetune.backends.platform.answers import Chat as Remote
        from finetune.backends.platform.answers import Speaker

        service = platform.connect(found.recipe, found, key=read_key(key_file))
        speaker = Speaker(stack.enter_context(service), str(found.model), max_new_tokens=limit)
        return Remote(speaker, system=system).ask
    from finetune.backends.local.chat import Chat

    with console.progress() as progress:
        return Chat(
            found.recipe, found.tuned, system=system, max_new_tokens=limit, progress=progress
        ).ask


def _read_image(path: Path) -> str:
    """Return an image file as a data URL."""
    from finetune.converters.images import data_url

    try:
        return data_url(path.read_bytes(), str(path))
    except DataError as error:
        raise UsageError(f"{path}: {error.fact}") from None


def _ask_person(console: Console) -> Iterator[str]:
    console.say("an empty line ends the conversation")
    while text := click.prompt(">", prompt_suffix=" ", default="", show_default=False, err=True):
        yield text


def _show(answer: AssistantMessage) -> str:
    parts = [text_of(answer.content)]
    if not isinstance(answer.tool_calls, msgspec.UnsetType):
        parts += [to_json(call.function).decode() for call in answer.tool_calls]
    return "\n".join(part for part in parts if part)
