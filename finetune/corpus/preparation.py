"""`prepare`: the sources of a recipe → a dataset folder, named by what went into it.

The same inputs give the same bytes, whenever and however often. Everything is written into a
hidden folder beside, which gets its name when all of it is whole and synced.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune.checks import Checker, Finding
from finetune.checks.report import Fault
from finetune.checks.targets import Target, find_target
from finetune.corpus.conversion import PROGRESS_ROWS, Account, Conversion, Reading, finding_at
from finetune.corpus.dataset import MANIFEST, Dataset, profile_files
from finetune.corpus.inputs import Input, describe, find_inputs
from finetune.corpus.parts import Parts
from finetune.corpus.split import Side, Split
from finetune.errors import DataError, RunLocked, UsageError
from finetune.files import AtomicFile, Lock, slug, sync_folder, to_json
from finetune.methods import METHODS
from finetune.progress import Progress, silent
from finetune.recipe import Recipe
from finetune.records import encode
from finetune.text import plural

_PLACES = 3  # places shown for each rule
_SHORT = 12  # characters of the digest in a folder's name


def prepare(recipe: Recipe, *, folder: Path, progress: Progress = silent) -> Dataset:
    """Make the dataset of a recipe, or find it where nothing has changed since.

    Args:
        recipe: What to prepare.
        folder: Where dataset folders lie.
        progress: Told about the rows read.

    Raises:
        DataError: More rows were rejected than `data.max_rejected` allows, nothing is left to
            train on, or a source changed while it was read.
        UsageError: A source is not there or has no format that is known.
        OSError: The disk is full; nothing is left behind.
    """
    inputs = find_inputs(recipe)
    aim = _find_target(recipe)
    facts = describe(recipe, inputs, aim.name)
    identity = hashlib.sha256(to_json(facts)).hexdigest()
    target = folder / f"{slug(recipe.name)}-{identity[:_SHORT]}"
    _remove_left_overs(folder)
    if _is_ready(target, identity):
        return Dataset.load(target)
    with _workspace(folder, target.name) as workspace:
        manifest = {"digest": identity, **facts}
        manifest |= _Preparation(recipe, inputs, workspace, aim, progress).run()
        with AtomicFile(workspace / MANIFEST) as file:
            file.write(to_json(manifest, indent=True))
        if target.exists():  # damaged: somebody changed a file in it
            target.rename(workspace / ".damaged")
        _publish(workspace, target)
    return Dataset.load(target)


def _find_target(recipe: Recipe) -> Target:
    ignore = frozenset(recipe.data.ignore)
    if recipe.backend == "platform":
        return find_target("platform", ignore)
    try:
        return find_target(recipe.model, ignore)
    except UsageError:
        # A model that nobody knows yet is looked for when it is trained; until then the rules
        # that hold for any chat template are enough.
        return find_target("hf", ignore)


def _is_ready(target: Path, identity: str) -> bool:
    try:
        dataset = Dataset.load(target)
    except UsageError:  # not there, or not whole
        return False
    return dataset.digest == identity and dataset.is_whole()


def _remove_left_overs(folder: Path) -> None:
    """Remove the workspaces of dead processes: the kernel freed their locks."""
    for left_over in folder.glob(".*.tmp-*"):
        with contextlib.suppress(RunLocked), Lock(left_over / ".lock"):
            shutil.rmtree(left_over, ignore_errors=True)


@contextlib.contextmanager
def _workspace(folder: Path, name: str) -> Iterator[Path]:
    """Give a hidden folder that is locked, and gone afterwards."""
    workspace = folder / f".{name}.tmp-{os.getpid()}"
    try:
        with Lock(workspace / ".lock"):
            yield workspace
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


def _publish(workspace: Path, target: Path) -> None:
    """Move the finished files out of the workspace, under the final name, in one step."""
    finished = workspace / ".finished"
    finished.mkdir()
    for path in sorted(workspace.iterdir()):
        if not path.name.startswith("."):
            path.rename(finished / path.name)
    sync_folder(finished)
    try:
        finished.rename(target)
    except OSError:
        # Another process was faster with the same bytes.
        if not (target / MANIFEST).is_file():
            raise
    sync_folder(target.parent)


class _Preparation:
    """One pass over all sources, writing into a workspace."""

    def __init__(
        self,
        recipe: Recipe,
        inputs: list[Input],
        folder: Path,
        aim: Target,
        progress: Progress,
    ) -> None:
        self._recipe = recipe
        self._inputs = inputs
        self._folder = folder
        self._check = Checker(METHODS[recipe.method].record, aim)
        self._progress = progress
        self._account = Account()
        self._places: dict[str, list[str]] = {}

    def run(self) -> dict[str, Any]:
        """Write everything but the manifest, and return what it says."""
        names = [_train_file(one) for one in self._inputs if one.side is Side.TRAIN]
        keep = self._recipe.data.clean.deduplicate == "off"
        parts = Parts(self._folder, names, duplicates=keep)
        with AtomicFile(self._folder / "rejected.jsonl") as rejected:
            self._rejected = rejected
            with parts:
                sources = [self._read(one, parts) for one in self._inputs]
            self._stop_if_too_many()
            files = parts.finish(self._drop)
        if not any(files[name]["records"] for name in names):
            raise DataError("no record is left to train on")
        files["rejected.jsonl"] = {"bytes": rejected.size, "sha256": rejected.sha256}
        self._account.close()
        kind = METHODS[self._recipe.method].record
        profile = profile_files([self._folder / name for name in names], kind)
        return {**self._account.to_dict(), "profile": profile, "sources": sources, "files": files}

    def _read(self, one: Input, parts: Parts) -> dict[str, Any]:
        """Write the records of a source, and return what the manifest says about it."""
        data, source = self._recipe.data, one.source
        shared = data.validation if isinstance(data.validation, float) else 0.0
        split = Split(
            validation=shared, evaluation=self._recipe.evaluation.data, group=source.group
        )
        reading = Reading(
            source.format,
            METHODS[self._recipe.method].record,
            source.columns,
            source.system,
            source.roles,
        )
        files = []
        for number, file in enumerate(one.files):
            with open(file.path, "rb") as stream:
                conversion = Conversion(
                    stream,
                    file.name,
                    reading,
                    account=self._account,
                    make_check=lambda _: self._check.check_record,
                    reject=lambda finding: self._note(one, finding),
                    group=source.group,
                )
                files.append({"name": file.name, **conversion.facts()})
                self._write(conversion, one, split, parts)
            one.check_unchanged(number)
        train = _train_file(one) if one.side is Side.TRAIN else None
        return {
            "name": one.name,
            "train": train,
            "weight": source.weight,
            "files": files,
            "left_out": one.left_out,
        }

    def _write(self, conversion: Conversion, one: Input, split: Split, parts: Parts) -> None:
        train, account = _train_file(one), self._account
        start = f'"source":"{one.name}","file":{to_json(conversion.name).decode()},"row":'
        for row, records in conversion:
            side = max(split.side(row.value), one.side)
            for record in records:
                reason = parts.add(encode(record), side, train, f"{start}{row.line}}}")
                if reason is None:
                    account.records["written"] += 1
                else:
                    account.records["removed"] += 1
                    account.by_rule[reason] += 1
                    self._note(one, finding_at(conversion.name, row.line, Fault(reason, "", "")))
            if account.rows["read"] % PROGRESS_ROWS == 0:
                self._progress("prepare", account.rows["read"])

    def _note(self, one: Input, finding: Finding) -> None:
        line = {"source": one.name, "file": finding.file, "line": finding.line}
        line |= {"path": finding.path} if finding.path else {}
        self._rejected.write(to_json(line | {"rule": finding.rule}) + b"\n")
        places = self._places.setdefault(finding.rule, [])
        if len(places) < _PLACES:
            places.append(f"{finding.file}:{finding.line}")

    def _drop(self, origin: dict[str, Any]) -> None:
        """Account for a record that was written before its held-out twin was met."""
        self._account.records["written"] -= 1
        self._account.records["removed"] += 1
        self._account.by_rule["held-out"] += 1
        line = {"source": origin["source"], "file": origin["file"], "line": origin["row"]}
        self._rejected.write(to_json(line | {"rule": "held-out"}) + b"\n")

    def _stop_if_too_many(self) -> None:
        lost, read = self._account.lost_rows, self._account.rows["read"]
        allowed = self._recipe.data.max_rejected
        if lost <= allowed * read:
            return
        # Rounded up, so that the value in the hint is enough.
        needed = -(-lost * 1000 // read) / 1000
        rules = "".join(
            f"\n  {rule} ×{self._account.by_rule[rule]:,}: {', '.join(places)}"
            for rule, places in sorted(self._places.items())
            if rule not in ("duplicate", "held-out")
        )
        raise DataError(
            f"{plural(lost, 'row')} of {read:,} rejected, `data.max_rejected` allows {allowed:.1%}",
            hint=f"mend them, or allow it with `-s data.max_rejected={needed}`{rules}",
        )


def _train_file(one: Input) -> str:
    return f"train-{one.name}.jsonl"
