"""`finetune chat`: talk with a run's model."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click
import msgspec

from finetune.cli.console import Console, output_options
from finetune.cli.options import RUNS
from finetune.errors import UsageError
from finetune.files import to_json
from finetune.records import AssistantMessage, text_of
from finetune.text import safe


@click.command("chat")
@click.argument("run")
@click.option("--prompt", metavar="TEXT", help="Answer this and end.")
@click.option("--system", metavar="TEXT", help="System prompt of the conversation.")
@click.option("--max-new-tokens", type=click.IntRange(1), default=512, show_default=True)
@output_options
def command(
    run: str, prompt: str | None, system: str | None, max_new_tokens: int, console: Console
) -> None:
    """Talk with a run's model; without a terminal, standard input is the one question.

    RUN is a path, a name, a unique prefix, or `last`.
    """
    from finetune.runs import find_run

    found = find_run(run, RUNS)
    if not found.adapter.is_dir():
        raise UsageError(
            f"{found.folder}: has no adapter yet: its state is `{found.state['state']}`",
            hint="`finetune run` on the same recipe goes on",
        )
    talk = prompt is None and sys.stdin.isatty()
    question = prompt if talk or prompt is not None else sys.stdin.read().strip()
    if not talk and not question:
        raise UsageError("chat: nothing was asked", hint="give `--prompt TEXT`, or pipe a text in")
    from finetune.backends.local.chat import Chat

    with console.progress() as progress:
        chat = Chat(
            found.recipe,
            found.adapter,
            system=system,
            max_new_tokens=max_new_tokens,
            progress=progress,
        )
    for text in _ask_person(console) if talk else [question or ""]:
        answer = chat.ask(text)
        console.emit({"run": found.folder.name, "message": msgspec.to_builtins(answer)})
        console.show(safe(_show(answer), 100_000))
    console.next(f"finetune export {found.folder.name} --to merged -o DIR")


def _ask_person(console: Console) -> Iterator[str]:
    console.say("an empty line ends the conversation")
    while text := click.prompt(">", prompt_suffix=" ", default="", show_default=False, err=True):
        yield text


def _show(answer: AssistantMessage) -> str:
    parts = [text_of(answer.content)]
    if not isinstance(answer.tool_calls, msgspec.UnsetType):
        parts += [to_json(call.function).decode() for call in answer.tool_calls]
    return "\n".join(part for part in parts if part)
