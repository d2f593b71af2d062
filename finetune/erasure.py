"""Erasure: where a person's data lie, and how they are taken out.

A dataset is searched for the person's values as they are, and for their pseudonyms where it was
pseudonymized with this machine's key. What was masked cannot be found again. No value is written
anywhere: the exclusion list that keeps the person out of later datasets holds keyed hashes.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from finetune.corpus.dataset import MANIFEST
from finetune.corpus.privacy import Traces, find_folder, load_exclusions, provide_key
from finetune.corpus.privacy import fingerprint as fingerprint_of
from finetune.corpus.privacy.subjects import stand_ins
from finetune.errors import RunLocked, UsageError
from finetune.files import read_journal, read_json
from finetune.runs import Run, list_runs

PREDICTIONS = "predictions.jsonl"


class Place(NamedTuple):
    """A record that holds a person's data.

    Attributes:
        file: Of the dataset.
        line: In that file, from 1.
        source: The source of its row.
        source_file: The file of its row.
        row: Line or number of the row.
        certain: Whether nobody else can have the pseudonym that was found.
    """

    file: str
    line: int
    source: str
    source_file: str
    row: int
    certain: bool


class FoundDataset(NamedTuple):
    """A dataset, and the person's records in it.

    Attributes:
        folder: Its folder.
        searched: `values`, `values and pseudonyms`, `values only: made with another key` or
            `values only: masked`.
        places: The records.
    """

    folder: Path
    searched: str
    places: list[Place]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "folder": str(self.folder),
            "searched": self.searched,
            "records": [place._asdict() for place in self.places],
        }


class FoundRun(NamedTuple):
    """A run that was trained on the person's data, or quotes them.

    Attributes:
        run: The run.
        adapter: Its adapter or checkpoints, None where there are none.
        tuned_model: The model that it made, where it is known.
        remote_files: Ids of files that it uploaded.
        predictions: Lines of its predictions that hold the person's data.
    """

    run: Run
    adapter: Path | None
    tuned_model: str | None
    remote_files: list[str]
    predictions: list[int]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "run": str(self.run.folder),
            "state": self.run.state["state"],
            "adapter": str(self.adapter) if self.adapter else None,
            "tuned_model": self.tuned_model,
            "remote_files": self.remote_files,
            "predictions": self.predictions,
        }


class Found(NamedTuple):
    """What `find_subject` found: every dataset that was searched, and the runs concerned."""

    datasets: list[FoundDataset]
    runs: list[FoundRun]

    @property
    def concerned(self) -> list[FoundDataset]:
        """The datasets that hold the person's data."""
        return [one for one in self.datasets if one.places]


def read_subject(text: str) -> list[str]:
    """Return the values of a subject: the lines of a file, or the text itself.

    Raises:
        UsageError: The file holds nothing, or cannot be read as text.
    """
    path = Path(text)
    try:
        is_file = path.is_file()
    except OSError:  # too long for a name
        is_file = False
    if not is_file:
        return [text]
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not UTF-8 text") from None
    values = [line.strip() for line in lines if line.strip()]
    if not values:
        raise UsageError(f"{path}: no value in it", hint="one value a line")
    return values


def find_subject(
    values: Iterable[str], *, datasets: Path, runs: Path, home: Path | None = None
) -> Found:
    """Search datasets and runs for a person.

    Args:
        values: What the person is known by, such as an e-mail address, a name or an id.
        datasets: Where dataset folders lie; those that the runs name are searched too.
        runs: Where run folders lie.
        home: The user's data directory, where the key lies.

    Raises:
        UsageError: A value is too short to stand for one person.
    """
    values = list(values)
    key = provide_key(home)
    plain = Traces.of(values)
    stand = [made for value in values for made in stand_ins(value, key)]
    shared = Traces.of([text for text, unique in stand if not unique])
    both = Traces.of([*values, *(text for text, unique in stand if unique)])
    known = list_runs(runs)
    folders = {path.parent.resolve() for path in datasets.glob(f"*/{MANIFEST}")}
    folders |= {run.dataset.resolve() for run in known if (run.dataset / MANIFEST).is_file()}
    found = [
        _search(folder, plain, both, shared, fingerprint_of(key)) for folder in sorted(folders)
    ]
    concerned = {one.folder for one in found if one.places}
    described = [_describe(run, both) for run in known]
    return Found(
        found,
        [one for one in described if one.predictions or one.run.dataset.resolve() in concerned],
    )


def _search(folder: Path, plain: Traces, both: Traces, shared: Traces, key: str) -> FoundDataset:
    manifest = read_json(folder / MANIFEST)
    section = manifest.get("privacy") or {}
    searched, sure, unsure = "values", plain, Traces.of([])
    if section.get("mode") == "pseudonymize" and section.get("key") == key:
        searched, sure, unsure = "values and pseudonyms", both, shared
    elif section.get("mode") == "pseudonymize":
        searched = "values only: made with another key"
    elif section.get("mode") == "mask":
        searched = "values only: masked"
    places = []
    origins = {(one["output"], one["line"]): one for one in read_journal(folder / "origins.jsonl")}
    for name, facts in manifest["files"].items():
        path = folder / name
        if "records" not in facts or not path.is_file():
            continue
        with open(path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                record = msgspec.json.decode(line)
                certain = bool(sure.found_in(record))
                if certain or (unsure.wanted and unsure.found_in(record)):
                    origin = origins.get((name, number), {})
                    row = (origin.get("source", ""), origin.get("file", ""), origin.get("row", 0))
                    places.append(Place(name, number, *row, certain))
    return FoundDataset(folder, searched, places)


def _describe(run: Run, traces: Traces) -> FoundRun:
    state = run.state
    trained = next((p for p in (run.tuned, run.checkpoints) if p.is_dir()), None)
    events = [event for event in run.events() if isinstance(event.get("file_id"), str)]
    gone = {event["file_id"] for event in events if event["event"] == "deleted"}
    uploads = [event["file_id"] for event in events if event["file_id"] not in gone]
    answers = read_journal(run.folder / PREDICTIONS)
    quoted = [number for number, one in enumerate(answers, 1) if traces.found_in(one)]
    return FoundRun(run, trained, state.get("tuned_model"), list(dict.fromkeys(uploads)), quoted)


def erase_subject(found: Found, values: Iterable[str], *, home: Path | None = None) -> None:
    """Keep a person out of later datasets, mark the runs, and delete what holds their data.

    Called again after a crash it goes on: the person is excluded first, and a dataset's manifest,
    by which it is found, is deleted last.

    Args:
        found: What `find_subject` returned.
        values: What the person is known by.
        home: The user's data directory.

    Raises:
        RunLocked: A process works on one of the runs; nothing was changed.
    """
    for one in found.runs:
        if one.run.worker() is not None:
            raise RunLocked(
                f"{one.run.folder}: a process works on it",
                hint=f"finetune cancel {one.run.folder.name}",
            )
    home = home or find_folder()
    load_exclusions(provide_key(home), home).add(values, home)
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    for one in found.runs:
        one.run.set_state(one.run.state["state"], erased=now)
        if one.predictions:
            (one.run.folder / PREDICTIONS).unlink(missing_ok=True)
    for dataset in found.concerned:
        for path in sorted(dataset.folder.iterdir(), key=lambda path: path.name == MANIFEST):
            path.unlink()
        dataset.folder.rmdir()
