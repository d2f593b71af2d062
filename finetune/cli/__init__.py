"""The command line: the only place that prints or exits; one file a command.

COMMANDS is the whole list. A command's module is imported when the command is called, so that
`finetune --help` loads none of them.

Exit codes: 0 done · 1 failure · 2 usage or recipe · 3 data invalid · 4 key missing or refused ·
5 service unreachable · 6 job or training failed · 7 confirmation needed · 8 not offered by the
service · 9 run locked · 130/143 interrupted, state saved.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from typing import NoReturn

import click

from finetune import __version__
from finetune.errors import FinetuneError, UsageError
from finetune.text import did_you_mean, redact, safe

COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("finetune.cli.init", "Look at data and write a commented recipe."),
    "run": ("finetune.cli.run", "Prepare, check, train, evaluate and report."),
    "plan": ("finetune.cli.plan", "Show the bill: records, tokens, steps, memory, cost."),
    "launch": ("finetune.cli.launch", "Write a task file for a cluster."),
    "prepare": ("finetune.cli.prepare", "Only make the dataset."),
    "convert": ("finetune.cli.convert", "Turn raw files into La Plateforme JSONL."),
    "validate": ("finetune.cli.validate", "Name every fault of data files, with the fix."),
    "inspect": ("finetune.cli.inspect", "Show a record's exact tokens, trained ones marked."),
    "runs": ("finetune.cli.runs", "List the runs of this folder."),
    "show": ("finetune.cli.show", "Show one run."),
    "watch": ("finetune.cli.watch", "Follow a run from another terminal."),
    "cancel": ("finetune.cli.cancel", "Stop a run; its state is saved."),
    "report": ("finetune.cli.report", "Write the HTML report of a run, or compare two."),
    "evaluate": ("finetune.cli.evaluate", "Measure a run's model on held-out records."),
    "chat": ("finetune.cli.chat", "Talk with a run's model."),
    "classify": ("finetune.cli.classify", "Label texts with a run's classifier."),
    "export": ("finetune.cli.export", "Write a run's model in another form."),
    "platform": ("finetune.cli.platform", "Jobs, files and models on La Plateforme."),
    "serve": ("finetune.cli.serve", "Serve La Plateforme's API on this machine."),
    "models": ("finetune.cli.models", "List the models of the catalog."),
    "recipes": ("finetune.cli.recipes", "List the shipped recipes, or copy one."),
    "explain": ("finetune.cli.explain", "Explain a recipe key, a rule or an exit code."),
    "privacy": ("finetune.cli.privacy", "Find or erase a person's data."),
    "doctor": ("finetune.cli.doctor", "Check this machine, with a fix for each fault."),
}


class Commands(click.Group):
    """A group that imports a command when it is called.

    The module of a command `name` holds a click command in `command`.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of COMMANDS."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import the command."""
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[name][0]).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which one was probably meant."""
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            hint = did_you_mean(args[0], COMMANDS) or "`finetune --help` lists the commands"
            raise UsageError(f"{args[0]}: no such command", hint=hint)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List names and summaries without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="finetune")
@click.option("--traceback", is_flag=True, help="Show where an unexpected error came from.")
def finetune(*, traceback: bool) -> None:
    """Prepare data and fine-tune Mistral models.

    `finetune init DATA` writes a recipe, `finetune run RECIPE` does the rest.
    """


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    try:
        code = finetune.main(standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as error:
        code = error.exit_code
    except click.exceptions.Abort:
        code = _fail("interrupted", None, 130)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except FinetuneError as error:
        code = _fail(error.message, error.hint, error.exit_code)
    except BrokenPipeError:
        # Whoever read our output went away: nothing is wrong, and nothing can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except KeyboardInterrupt:
        code = _fail("interrupted", None, 130)
    except OSError as error:
        code = _fail(*_explain_os_error(error), 1)
    except Exception as error:
        if "--traceback" in sys.argv:
            raise
        code = _fail(_place(error), "`finetune --traceback …` shows where it came from", 1)
    sys.exit(code or 0)


def _fail(message: str, hint: str | None, code: int) -> int:
    click.echo(f"error: {safe(redact(message), 2000)}", err=True)
    if hint:
        click.echo(f"hint: {safe(redact(hint), 2000)}", err=True)
    return code


def _explain_os_error(error: OSError) -> tuple[str, str | None]:
    place = f"{error.filename}: " if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return (
            f"{place}disk full: nothing half-written was kept",
            "free some space and run the same command again",
        )
    return f"{place}{(error.strerror or type(error).__name__).lower()}", None


def _place(error: Exception) -> str:
    # The error's text may quote data, so only its type and place are shown.
    trace, place = error.__traceback__, "unknown place"
    while trace:
        code = trace.tb_frame.f_code
        if "finetune" in code.co_filename:
            place = f"{os.path.basename(code.co_filename)}:{trace.tb_lineno}"  # noqa: PTH119
        trace = trace.tb_next
    return f"unexpected {type(error).__name__} at {place}: this is a fault of finetune"
