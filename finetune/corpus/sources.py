"""Sources: what a path in a recipe or on the command line stands for."""

from __future__ import annotations

import glob
import io
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from finetune.corpus import hub
from finetune.corpus.archives import Archive, Member, is_archive
from finetune.corpus.configs import read_config
from finetune.corpus.containers import is_data_file, is_text_file
from finetune.corpus.trees import find_tree
from finetune.errors import DataError, UsageError
from finetune.files import digest, read_json
from finetune.text import did_you_mean, plural, safe

_SAVED, _SPLITS = "state.json", "dataset_dict.json"  # of a folder that `save_to_disk` wrote


class SourceFile(NamedTuple):
    """One file of a source.

    Attributes:
        path: Where it lies.
        name: What manifests and messages call it: its name, or its path inside the folder.
        member: What it is in the archive at `path`.
        split: The part that is wanted of a dataset of the hub.
    """

    path: Path
    name: str
    member: tuple[Archive, Member] | None = None
    split: str | None = None

    def open(self) -> io.BufferedReader:
        """Open it for reading.

        Raises:
            DataError: It is a member of an archive that cannot be read.
            PlatformError: It is on the hub, which cannot be reached.
        """
        if self.member:
            return self.member[0].open(self.member[1])
        if hub.is_on_hub(self.path):
            return hub.open_dataset(self.path, self.split)
        return open(self.path, "rb")

    def digest(self) -> str | None:
        """Return what identifies its content: SHA-256 as hex, None where it is gone."""
        if hub.is_on_hub(self.path):
            return hub.digest_of(self.path, self.split)
        if not self.path.is_file():
            return None
        return self.member[0].digest() if self.member else digest(self.path)

    def size(self) -> int:
        """Return its bytes, or those of the archive it is in; 0 where they are not known."""
        return self.path.stat().st_size if self.path.is_file() else 0


def find_files(
    path: Path, *, split: str | None = None, tree: bool = False
) -> tuple[list[SourceFile], list[str]]:
    """Return the files of a source in a fixed order, and the names of those left out.

    Args:
        path: A file, a folder (all data files in it, by suffix), a glob, an archive, a folder that
            the Hugging Face libraries saved, or `hub:ID`. Texts in a folder are data where it
            holds nothing else.
        split: The part of a dataset that is wanted.
        tree: A folder or archive is a source tree, of which all files count.

    Raises:
        UsageError: Nothing is there, or a link leads out of the folder.
        DataError: An archive cannot be read.
    """
    if hub.is_on_hub(path):
        return [SourceFile(path, str(path).removeprefix("hub:"), split=split)], []
    if path.is_dir() and tree:
        found, left_out = find_tree(path)
        return [SourceFile(p, p.relative_to(path).as_posix()) for p in found], left_out
    if path.is_dir():
        saved = _find_saved(path, split)
        files, left_out = (saved, []) if saved else _find_inside(path)
        return saved or _choose(path, files, split), left_out
    if path.exists():
        if config := read_config(path):
            raise config.refusal(path)
        files, left_out = _unpack([SourceFile(path, path.name)], tree=tree)
        return _choose(path, files, split), left_out
    if glob.has_magic(str(path)):
        found = [Path(p) for p in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207
        base = _fixed_part(path)
        files = [SourceFile(p, p.relative_to(base).as_posix()) for p in found if p.is_file()]
        if files:
            files, left_out = _unpack(files, tree=tree)
            return _choose(path, files, split), left_out
        raise UsageError(f"{path}: no file fits this pattern")
    there = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    raise UsageError(f"{path}: no such file or folder", hint=did_you_mean(path.name, there))


def _find_inside(folder: Path) -> tuple[list[SourceFile], list[str]]:
    inside = sorted(p for p in folder.rglob("*") if p.is_file() and not _hidden(p, folder))
    data = [p for p in inside if (is_data_file(p) and not read_config(p)) or is_archive(p)]
    data = [p for p in data if not is_text_file(p)] or data
    if not data:
        raise UsageError(
            f"{folder}: no data file in this folder ({plural(len(inside), 'other file')})",
            hint="data files end in .jsonl, .json, .csv, .tsv, .parquet, .arrow, .xlsx, .txt or"
            " .md, also compressed or in a .zip or .tar; for a source tree say `format: code`"
            " (`--from code`)",
        )
    for file in data:
        if not file.resolve().is_relative_to(folder.resolve()):
            name = file.relative_to(folder).as_posix()
            raise UsageError(
                f"{folder}: `{safe(name, 200)}` is a link that leads out of this folder",
                hint="name what it leads to as a source of its own",
            )
    files, left_out = _unpack(SourceFile(p, p.relative_to(folder).as_posix()) for p in data)
    kept = set(data)
    return files, left_out + [p.relative_to(folder).as_posix() for p in inside if p not in kept]


def _unpack(
    files: Iterable[SourceFile], *, tree: bool = False
) -> tuple[list[SourceFile], list[str]]:
    """Put the data files of archives in their place; of source trees, all files."""
    whole: list[SourceFile] = []
    left_out = []
    for file in files:
        if not is_archive(file.path):
            whole.append(file)
            continue
        archive = Archive(file.path)
        before = len(whole)
        for member in archive.list_members():
            place = PurePosixPath(member.name)
            name = str(place) if tree else f"{file.name}/{place}"
            hidden = any(part.startswith(".") for part in place.parts)
            wanted = is_data_file(place) and not hidden
            if member.fault and (wanted or is_archive(place)) and not tree:
                archive.open(member)  # refuses it, before anything is read
            if (wanted or tree) and not member.fault:
                whole.append(SourceFile(file.path, name, (archive, member)))
            else:
                left_out.append(name)
        if len(whole) == before:
            raise DataError("no data file in this archive", file=file.name, rule="empty-file")
    return whole, left_out


def _choose(path: Path, files: list[SourceFile], split: str | None) -> list[SourceFile]:
    """Return the files that belong to a split, by the word in their names."""
    if split is None:
        return files
    word = re.compile(rf"(?:^|[-._ /0-9]){re.escape(split)}(?:[-._ /0-9]|$)")
    found = [file for file in files if word.search(file.name)]
    if not found:
        raise UsageError(f"{path}: split: no file has `{safe(split, 80)}` in its name")
    return found


def _find_saved(folder: Path, split: str | None) -> list[SourceFile]:
    """Return the files of a folder that `save_to_disk` wrote; none where it is no such folder."""
    if (folder / _SPLITS).is_file():
        listed: Any = read_json(folder / _SPLITS)
        splits = listed.get("splits") if isinstance(listed, dict) else None
        if not isinstance(splits, list) or not all(map(_is_name, splits)):
            raise DataError("is damaged", file=f"{folder.name}/{_SPLITS}", rule="json")
        if split is not None and split not in splits:
            there = ", ".join(f"`{name}`" for name in splits)
            raise UsageError(f"{folder}: no split `{safe(split, 80)}`", hint=f"there are {there}")
        wanted = splits if split is None else [split]
        return [
            file._replace(name=f"{name}/{file.name}")
            for name in wanted
            for file in _find_saved(folder / name, None)
        ]
    if not (folder / _SAVED).is_file() or not list(folder.glob("*.arrow")):
        return []
    state: Any = read_json(folder / _SAVED)
    try:
        names = [one["filename"] for one in state["_data_files"]]
    except (KeyError, TypeError):
        names = [None]
    missing = [name for name in names if not (_is_name(name) and (folder / name).is_file())]
    if missing or state.get("_indices_data_files"):
        raise DataError("is damaged", file=f"{folder.name}/{_SAVED}", rule="json")
    return [SourceFile(folder / name, name) for name in names]


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\w[\w.-]*", value) is not None


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _fixed_part(path: Path) -> Path:
    """Return the folder above the first part with a wildcard."""
    parts = path.parts
    first = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:first]) if first else Path()
