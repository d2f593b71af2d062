"""Sources: what a path in a recipe or on the command line stands for."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import NamedTuple

from finetune.corpus.configs import read_config
from finetune.corpus.containers import is_data_file, is_text_file
from finetune.corpus.trees import find_tree
from finetune.errors import UsageError
from finetune.text import did_you_mean, plural


class SourceFile(NamedTuple):
    """One file of a source.

    Attributes:
        path: Where it lies.
        name: What manifests and messages call it: its name, or its path inside the folder.
    """

    path: Path
    name: str


def find_files(path: Path, *, tree: bool = False) -> tuple[list[SourceFile], list[str]]:
    """Return the files of a source in a fixed order, and the names of those left out.

    Args:
        path: A file, a folder (all data files in it, by suffix) or a glob. Texts in a folder are
            data where it holds nothing else.
        tree: A folder is a source tree, of which all files count.

    Raises:
        UsageError: Nothing is there.
    """
    if path.is_dir() and tree:
        found, left_out = find_tree(path)
        return [SourceFile(p, p.relative_to(path).as_posix()) for p in found], left_out
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*") if p.is_file() and not _hidden(p, path))
        data = [p for p in inside if is_data_file(p) and not read_config(p)]
        data = [p for p in data if not is_text_file(p)] or data
        files = [SourceFile(p, p.relative_to(path).as_posix()) for p in data]
        if not files:
            raise UsageError(
                f"{path}: no data file in this folder ({plural(len(inside), 'other file')})",
                hint="data files end in .jsonl, .json, .csv, .tsv, .txt or .md, also compressed;"
                " for a source tree say `format: code` (`--from code`)",
            )
        return files, [p.relative_to(path).as_posix() for p in inside if p not in set(data)]
    if path.exists():
        if config := read_config(path):
            raise config.refusal(path)
        return [SourceFile(path, path.name)], []
    if glob.has_magic(str(path)):
        found = [Path(p) for p in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207
        base = _fixed_part(path)
        files = [SourceFile(p, p.relative_to(base).as_posix()) for p in found if p.is_file()]
        if files:
            return files, []
        raise UsageError(f"{path}: no file fits this pattern")
    there = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    raise UsageError(f"{path}: no such file or folder", hint=did_you_mean(path.name, there))


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _fixed_part(path: Path) -> Path:
    """Return the folder above the first part with a wildcard."""
    parts = path.parts
    first = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:first]) if first else Path()
