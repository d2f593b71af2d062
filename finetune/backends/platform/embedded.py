"""Embedded: a server of our own beside a run, on a free port, that ends with it."""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from finetune.backends.platform.access import Key
from finetune.backends.platform.jobs import name_model
from finetune.errors import PlatformError
from finetune.files import to_json, write_atomic
from finetune.runs import Run

_READY = 60.0  # seconds until it must have said where it is
_END = 30.0  # seconds until it must have ended


@contextlib.contextmanager
def serve(
    run: Run, command: Sequence[str] = ("-m", "finetune", "serve")
) -> Iterator[tuple[str, Key]]:
    """Start a server for a run; give its address and a key, and end it afterwards.

    It trains as the recipe's `local` section and its seed say. Its folder is `server/` in the run's
    own: it goes on with its jobs when it is started again.

    Raises:
        PlatformError: It does not start.
    """
    folder, names = run.folder / "server", run.folder / "server.yaml"
    python = [sys.executable, *command]
    recipe = run.recipe
    weights = {"model": recipe.model, "local": recipe.settings["local"], "seed": recipe.seed}
    write_atomic(names, to_json({name_model(recipe): weights}, indent=True))  # JSON is YAML
    with open(run.folder / "server.log", "ab") as log:
        process = subprocess.Popen(
            [*python, "--port", "0", "--folder", str(folder), "--models", str(names), "--json"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the run, which ends it in order
        )
        try:
            url = _read_url(process, run)
            yield url, _make_key(python, folder, run)
        finally:
            _end(process)


def _read_url(process: subprocess.Popen[bytes], run: Run) -> str:
    assert process.stdout is not None  # noqa: S101 (it is a pipe)
    overdue = threading.Timer(_READY, process.kill)
    overdue.start()
    try:
        return str(json.loads(process.stdout.readline())["url"])
    except (ValueError, KeyError, TypeError):
        raise _fail(run) from None
    finally:
        overdue.cancel()


def _make_key(python: Sequence[str], folder: Path, run: Run) -> Key:
    name = f"run-{secrets.token_hex(4)}"
    with open(run.folder / "server.log", "ab") as log:
        done = subprocess.run(
            [*python, "keys", "create", name, "--folder", str(folder), "--json"],
            stdout=subprocess.PIPE,
            stderr=log,
            check=False,
            timeout=_READY,
        )
    try:
        return Key(str(json.loads(done.stdout)["key"]), "the embedded server")
    except (ValueError, KeyError, TypeError):
        raise _fail(run) from None


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _fail(run: Run) -> PlatformError:
    return PlatformError(
        f"{run.folder}: the embedded server did not start",
        hint=f"{run.folder / 'server.log'} says why; it needs the extra `server`",
    )
