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
from typing import TYPE_CHECKING, Any, NamedTuple

from finetune.checks.report import Fault
from finetune.checks.targets import Target, find_target
from finetune.converters.code.screening import is_licence
from finetune.corpus.account import Account, Loss
from finetune.corpus.chain import Made, Steps, Task, finding_at
from finetune.corpus.chunks import Cutter
from finetune.corpus.clean import Warned, settle
from finetune.corpus.conversion import Across, Conversion, Reading
from finetune.corpus.dataset import MANIFEST, Dataset, profile_files
from finetune.corpus.inputs import Input, describe, find_inputs
from finetune.corpus.parts import Parts
from finetune.corpus.privacy import describe as describe_privacy
from finetune.corpus.privacy import find_folder, load_exclusions, provide_key
from finetune.corpus.privacy.subjects import EXCLUDED
from finetune.corpus.split import Side, Split
from finetune.corpus.workers import Workers, count_workers
from finetune.corpus.written import Written, find_equal
from finetune.errors import DataError, RunLocked, UsageError
from finetune.files import AtomicFile, Lock, slug, sync_folder, to_json
from finetune.methods import METHODS
from finetune.progress import Progress, silent
from finetune.recipe import Recipe
from finetune.text import plural

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PLACES = 3  # places shown for each rule
_SHORT = 12  # characters of the digest in a folder's name
# What is decided when all records are known: rule → step of the waterfall.
_STEPS = {
    "duplicate": "duplicate",
    "held-out": "duplicate",
    "near-duplicate": "near-duplicate",
    "near-duplicate-of-validation": "near-duplicate",
    "max-records": "limit",
    "balance": "balance",
}


def prepare(
    recipe: Recipe,
    *,
    folder: Path,
    workers: int | None = None,
    home: Path | None = None,
    progress: Progress = silent,
) -> Dataset:
    """Make the dataset of a recipe, or find it where nothing has changed since.

    Args:
        recipe: What to prepare.
        folder: Where dataset folders lie.
        workers: How many processes convert; chosen by the size of the sources where absent.
        home: Where the key of pseudonyms and the exclusion list lie; the user's data directory
            where absent.
        progress: Told about the rows read.

    Raises:
        DataError: More rows were rejected than `data.max_rejected` allows, nothing is left to
            train on, or a source changed while it was read.
        UsageError: A source is not there or has no format that is known.
        RunError: A worker process died.
        OSError: The disk is full; nothing is left behind.
    """
    inputs = find_inputs(recipe)
    steps = _find_steps(recipe, home or find_folder())
    facts = describe(recipe, inputs, steps)
    identity = hashlib.sha256(to_json(facts)).hexdigest()
    target = folder / f"{slug(recipe.name)}-{identity[:_SHORT]}"
    _remove_left_overs(folder)
    if _is_ready(target, identity):
        return Dataset.load(target)
    size = sum(file.size() for one in inputs for file in one.files)
    count = count_workers(size, workers)
    with _workspace(folder, target.name) as workspace:
        manifest = {"digest": identity, **facts}
        manifest |= _Preparation(recipe, inputs, workspace, steps, count, progress).run()
        with AtomicFile(workspace / MANIFEST) as file:
            file.write(to_json(manifest, indent=True))
        if target.exists():  # damaged: somebody changed a file in it
            target.rename(workspace / ".damaged")
        _publish(workspace, target)
    return Dataset.load(target)


def _find_steps(recipe: Recipe, home: Path) -> Steps:
    mode = recipe.data.privacy
    excluded = (home / EXCLUDED).exists()
    key = provide_key(home) if excluded or mode == "pseudonymize" else b""
    return Steps(
        _find_target(recipe),
        clean=recipe.data.clean,
        privacy=None if mode == "off" else (mode, key),
        exclusions=load_exclusions(key, home) if excluded else None,
    )


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
    """One pass over all sources, then what only all records together decide."""

    def __init__(
        self,
        recipe: Recipe,
        inputs: list[Input],
        folder: Path,
        steps: Steps,
        workers: int,
        progress: Progress,
    ) -> None:
        self._recipe = recipe
        self._inputs = inputs
        self._folder = folder
        self._steps = steps
        assert steps.target  # noqa: S101 (records of a dataset are always checked)
        self._across = Across(steps.target)
        self._workers = workers
        self._progress = progress
        self._kind = METHODS[recipe.method].record
        self._account = Account()
        self._written = Written()
        self._files: list[_File] = []
        self._train = [_train_file(one) for one in inputs if one.side is Side.TRAIN]
        self._parts = Parts(folder, self._train)
        self._places: dict[str, list[str]] = {}

    def run(self) -> dict[str, Any]:
        """Write everything but the manifest, and return what it says."""
        with AtomicFile(self._folder / "rejected.jsonl") as rejected:
            self._rejected = rejected
            with self._parts, Workers(self._steps, self._workers) as workers:
                self._read(workers)
            self._stop_if_too_many()
            keep, warned = self._settle()
            warned += [Warned(fault.rule, fault.message) for fault in self._across.finish()]
        files = {path.name: facts for path, facts in self._finish(keep)}
        if not any(files[name]["records"] for name in self._train):
            raise DataError("no record is left to train on")
        files["rejected.jsonl"] = {"bytes": rejected.size, "sha256": rejected.sha256}
        self._account.close()
        return {
            **self._account.to_dict(),
            **self._describe_privacy(),
            "waterfall": self._account.waterfall(),
            "notes": [one._asdict() for one in warned],
            "profile": profile_files([self._folder / name for name in self._train], self._kind),
            "sources": [self._describe(one) for one in self._inputs],
            "files": files,
        }

    def _read(self, workers: Workers) -> None:
        """Write the records of all sources."""
        account = self._account
        for number, outcome in workers.run(self._tasks()):
            file = self._files[number]
            done, records, losses = self._across.check(outcome, file.name)
            done.records["written"] += len(records)
            account.add(done)
            for loss in losses:
                self._note(file.source, loss)
            self._write(records, number, file.source)
            self._progress("prepare", account.rows["read"])

    def _tasks(self) -> Iterator[tuple[int, Task]]:
        """Yield the rows of all files, each with the number of its file."""
        data = self._recipe.data
        shared = data.validation if isinstance(data.validation, float) else 0.0
        for one in self._inputs:
            source = one.source
            split = Split(
                validation=shared,
                evaluation=self._recipe.evaluation.data,
                group=source.group,
                least=one.side,
            )
            reading = Reading(
                source.format,
                self._kind,
                source.columns,
                source.system,
                source.roles,
                Cutter(source.chunks, self._recipe.model),
                source.known,
            )
            for number, file in enumerate(one.files):
                with file.open() as stream:
                    conversion = Conversion(
                        stream, file.name, reading, split=split, folder=self._folder
                    )
                    self._files.append(_File(one, file.name, conversion.facts()))
                    for task in conversion.tasks():
                        yield len(self._files) - 1, task
                one.check_unchanged(number)

    def _write(self, records: list[Made], file: int, one: Input) -> None:
        train = self._train.index(_train_file(one)) if one.side is Side.TRAIN else -1
        source = self._inputs.index(one)
        lines: dict[int, list[bytes]] = {}
        for made in records:
            part = self._parts.number(made.side, train)
            lines.setdefault(part, []).append(made.line)
            self._written.add(made, part=part, file=file, source=source)
        for part, some in lines.items():
            self._parts.all[part].write(some)

    def _settle(self) -> tuple[NDArray[Any], list[Warned]]:
        """Decide on all records together; return which of them stay, and what is odd."""
        import numpy as np

        clean = self._recipe.data.clean
        keep = np.ones(len(self._written), dtype=bool)
        equal = list(find_equal(self._written, duplicates=clean.deduplicate == "off"))
        caps = {
            number: one.source.max_records
            for number, one in enumerate(self._inputs)
            if one.source.max_records is not None
        }
        gone = [removal.record for removal in equal]
        removals, warned = settle(self._written.facts, clean, caps, gone)
        for removal in [*equal, *removals]:
            keep[removal.record] = False
            self._account.records["written"] -= 1
            file, row = self._written.place(removal.record)
            finding = finding_at(self._files[file].name, row, Fault(removal.rule, "", ""))
            kept = None if removal.kept is None else self._place(removal.kept)
            step = _STEPS[removal.rule]
            self._note(self._files[file].source, self._account.lose(finding, step, kept))
        return keep, warned

    def _place(self, number: int) -> tuple[str, str, int]:
        file, row = self._written.place(number)
        return self._files[file].source.name, self._files[file].name, row

    def _finish(self, keep: NDArray[Any]) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Take out what does not stay, write origins.jsonl, and yield the facts of each file."""
        written, parts = self._written, self._written.column("part")
        ends = [
            f'"source":{to_json(file.source.name).decode()},"file":{to_json(file.name).decode()}'
            for file in self._files
        ]
        with AtomicFile(self._folder / "origins.jsonl") as origins:
            for number, part in enumerate(self._parts.all):
                own = parts == number
                stays = keep[own]
                if not stays.all():
                    part.drop(written.column("size")[own], stays)
                start = f'{{"output":{to_json(part.path.name).decode()},"line":'
                places = zip(
                    *(written.column(name)[own & keep].tolist() for name in ("file", "row")),
                    strict=True,
                )
                for line, (file, row) in enumerate(places, 1):
                    origins.write(f'{start}{line},{ends[file]},"row":{row}}}\n'.encode())
                if part.records or self._parts.is_train(number):
                    yield part.path, part.facts()
                else:
                    part.path.unlink()
        yield origins.path, {"bytes": origins.size, "sha256": origins.sha256}

    def _describe(self, one: Input) -> dict[str, Any]:
        """Return what the manifest says about a source."""
        return {
            "name": one.name,
            "train": _train_file(one) if one.side is Side.TRAIN else None,
            "weight": one.source.weight,
            "files": [
                {"name": file.name, **file.facts} for file in self._files if file.source is one
            ],
            "left_out": one.left_out,
            **_licences(one),
        }

    def _describe_privacy(self) -> dict[str, Any]:
        if self._steps.privacy is None:
            return {}
        mode, key = self._steps.privacy
        return {"privacy": describe_privacy(mode, self._account.privacy, key)}

    def _note(self, one: Input, loss: Loss) -> None:
        finding = loss.finding
        line: dict[str, Any] = {"source": one.name, "file": finding.file, "line": finding.line}
        line |= {"path": finding.path} if finding.path else {}
        line["rule"] = finding.rule
        if loss.evaluation:
            line["evaluation"] = loss.evaluation
        if loss.kept:
            line["kept"] = dict(zip(("source", "file", "line"), loss.kept, strict=True))
        self._rejected.write(to_json(line) + b"\n")
        if loss.step in ("row", "check"):
            places = self._places.setdefault(finding.rule, [])
            if len(places) < _PLACES:
                places.append(f"{finding.file}:{finding.line}")

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
        )
        raise DataError(
            f"{plural(lost, 'row')} of {read:,} rejected, `data.max_rejected` allows {allowed:.1%}",
            hint=f"mend them, or allow it with `-s data.max_rejected={needed}`{rules}",
        )


class _File(NamedTuple):
    """A file that was opened, and how it is read."""

    source: Input
    name: str
    facts: dict[str, Any]


def _licences(one: Input) -> dict[str, list[str]]:
    """Return the files of a source tree that state a licence."""
    if one.source.format != "code":
        return {}
    return {"licences": [file.name for file in one.files if is_licence(file.name)]}


def _train_file(one: Input) -> str:
    return f"train-{one.name}.jsonl"
