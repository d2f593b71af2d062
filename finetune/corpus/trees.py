"""Source trees: the files of a folder or checkout that people wrote, in a fixed order."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from finetune.errors import UsageError


def find_tree(folder: Path) -> tuple[list[Path], list[str]]:
    """Return the files of a source tree, and the names of those that are no plain files.

    Of a git checkout they are the files that git knows or would add: what its ignore files name is
    no part of it. Of any other folder they are all files. Symbolic links are not followed.

    Raises:
        UsageError: There are none.
    """
    names = _ask_git(folder) if (folder / ".git").exists() else None
    if names is None:
        names = list(_walk(folder))
    files, left_out = [], []
    for name in sorted(names):
        path = folder / name
        if path.is_file() and not path.is_symlink():
            files.append(path)
        elif path.is_symlink() or path.exists():  # a link, a submodule, a socket
            left_out.append(name)
    if not files:
        raise UsageError(f"{folder}: no files in this folder")
    return files, left_out


def _ask_git(folder: Path) -> list[str] | None:
    """Return what git lists, None where it is not there or does not want to."""
    command = ["git", "-c", "core.fsmonitor=false", "ls-files", "-z", "--cached", "--others"]
    # A checkout's own settings may name programs; none is run, and nothing is written.
    own = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        done = subprocess.run(
            [*command, "--exclude-standard"],
            cwd=folder,
            env={**own, "GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return [os.fsdecode(name) for name in set(done.stdout.split(b"\0")) if name]


def _walk(folder: Path) -> Iterator[str]:
    for place, folders, names in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]  # noqa: PTH114, PTH118
        folders[:] = [name for name in folders if name != ".git" and name not in links]
        for name in (*names, *links):
            if name != ".git":
                yield (Path(place) / name).relative_to(folder).as_posix()
