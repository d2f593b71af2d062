"""Runs: one execution of a recipe is a folder, and the folder is the only truth.

run.json              state, ids, dataset, versions; atomic, written last
recipe.yaml           the recipe as given
recipe.resolved.json  every value with its origin
events.jsonl          what was done, appended and synced
metrics.jsonl         step, epoch, tokens, loss, validation_loss, learning_rate, …
checkpoints/ adapter/ (or model/) evaluation.json report.html
.lock                 names the process that works here
"""

from __future__ import annotations

import datetime as dt
import hashlib
import importlib.metadata
import os
import platform
import secrets
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from pydantic import ValidationError

from finetune import __version__
from finetune.errors import RunError, UsageError
from finetune.files import (
    Lock,
    append_line,
    read_journal,
    read_json,
    slug,
    to_json,
    write_atomic,
)
from finetune.recipe import Recipe
from finetune.text import did_you_mean, rate

SCHEMA = 1
FINISHED = ("done", "failed", "cancelled")
STATES = ("preparing", "training", "evaluating", "done", "failed", "cancelled", "interrupted")
_SAID = frozenset({"run", "name", "state", "identity", "backend", "dataset", "created"})
_LIBRARIES = ("mistral-common", "torch", "transformers", "trl", "peft", "accelerate")


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class Run:
    """One execution of a recipe.

    Args:
        folder: The run's folder; its `run.json` must be there.

    Raises:
        UsageError: There is no run in this folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / "run.json").is_file():
            raise UsageError(f"{folder}: is not a run", hint="`finetune runs` lists the runs here")

    @classmethod
    def create(
        cls, folder: Path, recipe: Recipe, *, identity: str, dataset: Path, dataset_digest: str
    ) -> Run:
        """Make the folder of a new run.

        Raises:
            RunError: There is a run already.
        """
        if (folder / "run.json").exists():
            raise RunError(f"{folder}: holds a run already")
        folder.mkdir(parents=True, exist_ok=True)
        if recipe.file is not None:
            write_atomic(folder / "recipe.yaml", recipe.file.read_bytes())
        write_atomic(folder / "recipe.resolved.json", to_json(_resolved(recipe), indent=True))
        now = _now().isoformat(timespec="seconds")
        state = {
            "schema": SCHEMA,
            "run": folder.name,
            "name": recipe.name,
            "state": "preparing",
            "identity": identity,
            "model": recipe.model,
            "method": recipe.method,
            "backend": recipe.backend,
            "dataset": os.path.relpath(dataset, folder),
            "dataset_digest": dataset_digest,
            "created": now,
            "updated": now,
            "error": None,
            "versions": _versions(),
        }
        write_atomic(folder / "run.json", to_json(state, indent=True))
        return cls(folder)

    @property
    def state(self) -> dict[str, Any]:
        """What `run.json` says now.

        Raises:
            UsageError: It is not what a run says.
        """
        state = read_json(self.folder / "run.json")
        if not isinstance(state, dict) or not state.keys() >= _SAID:
            raise UsageError(f"{self.folder / 'run.json'}: does not say what a run says")
        return state

    @property
    def identity(self) -> str:
        """Digest of the resolved recipe and the dataset: what this run is an execution of."""
        return str(self.state["identity"])

    @property
    def recipe(self) -> Recipe:
        """The recipe as resolved when the run was made.

        Raises:
            RunError: It is none of this version's.
        """
        place = self.folder / "recipe.resolved.json"
        document = read_json(place)
        try:
            return Recipe.model_validate(document["settings"])
        except (ValidationError, KeyError, TypeError) as error:
            faults = error.errors() if isinstance(error, ValidationError) else []
            keys = ", ".join(f"`{'.'.join(map(str, fault['loc']))}`" for fault in faults[:3])
            made_by = self.state.get("versions", {}).get("finetune", "another version")
            raise RunError(
                f"{place}: not a recipe of finetune {__version__}: {keys or 'no `settings`'}",
                hint=f"finetune {made_by} has made this run",
            ) from None

    @property
    def recipe_resolved(self) -> list[dict[str, Any]]:
        """Every setting as `{"key", "value", "origin"}`."""
        rows: list[dict[str, Any]] = read_json(self.folder / "recipe.resolved.json").get(
            "origins", []
        )
        return rows

    @property
    def dataset(self) -> Path:
        """The dataset's folder."""
        return Path(os.path.normpath(self.folder / self.state["dataset"]))

    @property
    def checkpoints(self) -> Path:
        """Folder of the local checkpoints."""
        return self.folder / "checkpoints"

    @property
    def adapter(self) -> Path:
        """Folder of the finished adapter."""
        return self.folder / "adapter"

    @property
    def whole(self) -> Path:
        """Folder of the finished model, where all its weights were trained."""
        return self.folder / "model"

    @property
    def tuned(self) -> Path:
        """What local training ends with: the adapter, or the model; not there before its end."""
        return self.whole if self.whole.is_dir() else self.adapter

    @property
    def model(self) -> str | None:
        """The tuned model: the name of its folder here, or an id of the platform; else None."""
        if self.tuned.is_dir():
            return self.tuned.name
        state = self.state
        return state.get("tuned_model") if state["backend"] == "platform" else None

    def find_remedy(self) -> str:
        """Return what to do where there is no tuned model."""
        if self.state["state"] == "done":
            return "put its folder `adapter/` or `model/` back, or train again with `--fresh`"
        return "`finetune run` on the same recipe goes on"

    def set_state(self, state: str, **facts: Any) -> None:
        """Write a new state and further facts into `run.json`."""
        if state not in STATES:
            raise RunError(f"{self.folder}: `{state}` is not a state of a run")
        now = _now().isoformat(timespec="milliseconds")
        document = self.state | {"error": None} | facts | {"state": state, "updated": now}
        write_atomic(self.folder / "run.json", to_json(document, indent=True))
        self.event("state", state=state)

    def event(self, name: str, **facts: Any) -> None:
        """Append to the run's journal; it is on the disk when this returns."""
        stamp = _now().isoformat(timespec="milliseconds")
        append_line(self.folder / "events.jsonl", {"time": stamp, "event": name, **facts})

    def events(self) -> list[dict[str, Any]]:
        """Return the journal; a torn last line is left out."""
        return read_journal(self.folder / "events.jsonl")

    def metric(self, **values: Any) -> None:
        """Append one line of metrics."""
        append_line(self.folder / "metrics.jsonl", values, sync=False)

    def metrics(self) -> list[dict[str, Any]]:
        """Return the metrics by step; a step that was done again counts once, as done last."""
        steps: dict[int, dict[str, Any]] = {}
        for line in read_journal(self.folder / "metrics.jsonl"):
            if "step" not in line:
                continue
            steps[line["step"]] = steps.get(line["step"], {}) | line
        return [steps[step] for step in sorted(steps)]

    def manifest(self) -> dict[str, Any] | None:
        """Return the dataset's manifest, None where the dataset is gone."""
        path = self.dataset / "manifest.json"
        return read_json(path) if path.exists() else None

    def evaluation(self) -> dict[str, Any] | None:
        """Return the measures, None before they were taken."""
        path = self.folder / "evaluation.json"
        return read_json(path) if path.exists() else None

    def lock(self) -> Lock:
        """Return the lock of this run, to be used as a context manager."""
        return Lock(self.folder / ".lock")

    def tidy(self) -> None:
        """Remove the half-written files of a process that was killed; the lock is held."""
        for torn in self.folder.glob(".*.tmp-*"):
            torn.unlink(missing_ok=True)

    def cancel(self, kill: Callable[[int, int], None] = os.kill) -> bool:
        """Ask the process that works here to save and stop.

        Returns:
            Whether there was one.
        """
        holder = self.worker()
        if holder is None:
            return False
        self.event("cancel")
        kill(holder, signal.SIGTERM)
        return True

    def worker(self) -> int | None:
        """Return the number of the process that works here now, None where nobody does."""
        lock = self.lock()
        words = lock.holder().split() if lock.held() else []
        return int(words[1]) if len(words) > 1 and words[1].isdigit() else None


def measure_speed(metrics: list[dict[str, Any]]) -> dict[str, float] | None:
    """Return how fast a run's steps were computed, None where that was not measured.

    Validation, checkpoints and evaluation are not in it.

    Args:
        metrics: A run's metrics, by step.

    Returns:
        `tokens` and `seconds` of all steps, `tokens_per_second`; where the model's shape is known
        `flops` and `flops_per_second`; where the hardware's peak is known its `peak_share`.
    """
    sums = dict.fromkeys(("tokens", "seconds", "flops", "peak_share"), 0.0)
    before, known = 0, {"flops_per_second", "peak_share"}
    for line in metrics:
        tokens = line.get("tokens", before) - before
        before += tokens
        if tokens <= 0 or not line.get("tokens_per_second"):
            continue
        seconds = tokens / line["tokens_per_second"]
        known &= line.keys()
        sums["tokens"] += tokens
        sums["seconds"] += seconds
        sums["flops"] += seconds * line.get("flops_per_second", 0.0)
        sums["peak_share"] += seconds * line.get("peak_share", 0.0)
    total = sums["seconds"]
    if not total:
        return None
    speed = {"tokens": sums["tokens"], "seconds": total}
    speed["tokens_per_second"] = sums["tokens"] / total
    if "flops_per_second" in known:
        speed |= {"flops": sums["flops"], "flops_per_second": sums["flops"] / total}
    if "peak_share" in known:
        speed["peak_share"] = sums["peak_share"] / total
    return speed


def describe_speed(speed: dict[str, float]) -> str:
    """Return what `measure_speed` has found, in words.

    Example:
        >>> describe_speed({"tokens_per_second": 229.4, "flops_per_second": 1.3e11})
        "229 tokens/s, 130 GFLOP/s (the hardware's peak is not known)"
    """
    text = f"{speed['tokens_per_second']:,.0f} tokens/s"
    if "flops_per_second" not in speed:
        return text
    text += f", {rate(speed['flops_per_second'])}"
    if "peak_share" not in speed:
        return f"{text} (the hardware's peak is not known)"
    return f"{text}, {speed['peak_share']:.0%} of the hardware's peak"


def identify(recipe: Recipe, dataset_digest: str) -> str:
    """Return the identity of a run: the digest of what it trains on and how.

    The recipe's name, the places of its sources and what merely bounds a job are left out: they
    change nothing.
    """
    settings = recipe.settings
    del settings["name"]
    for bound in ("max_cost", "keep_files"):
        del settings["platform"][bound]
    sources = settings["data"]["train"]
    if isinstance(settings["data"]["validation"], list):
        sources = sources + settings["data"]["validation"]
    for source in sources:
        del source["path"]
    text = msgspec.json.encode([settings, dataset_digest], order="deterministic")
    return hashlib.sha256(text).hexdigest()[:16]


def list_runs(folder: Path) -> list[Run]:
    """Return the runs in a folder, oldest first."""
    found = [Run(path.parent) for path in folder.glob("*/run.json")]
    return sorted(found, key=lambda run: (run.state["created"], run.folder.name))


def find_run(name: str, folder: Path) -> Run:
    """Return the run that a path, a name, a unique prefix or `last` means.

    Raises:
        UsageError: None or several are meant.
    """
    if (Path(name) / "run.json").is_file():
        return Run(Path(name))
    runs = list_runs(folder)
    if not runs:
        raise UsageError(f"{folder}: no runs here", hint="`finetune run RECIPE` makes one")
    if name == "last":
        return runs[-1]
    named = [run for run in runs if name in (run.folder.name, run.state["name"])]
    matches = named[-1:] or [run for run in runs if name and run.folder.name.startswith(name)]
    if len(matches) == 1:
        return matches[0]
    names = [run.folder.name for run in runs]
    if matches:
        among = ", ".join(run.folder.name for run in matches[-4:])
        raise UsageError(f"{name}: {len(matches)} runs begin so: {among}")
    raise UsageError(f"{name}: no such run", hint=did_you_mean(name, names) or "`finetune runs`")


def find_identity(identity: str, folder: Path) -> Run | None:
    """Return the newest run of this identity that was not cancelled, else None."""
    states = [(run, run.state) for run in list_runs(folder)]
    same = [run for run, state in states if state["identity"] == identity]
    return next((run for run in reversed(same) if run.state["state"] != "cancelled"), None)


def new_folder(folder: Path, name: str) -> Path:
    """Return a fresh folder name: `<name>-<UTC time>-<4 hex>`."""
    return folder / f"{slug(name)}-{_now():%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"


def _resolved(recipe: Recipe) -> dict[str, Any]:
    origins = [
        {"key": key, "value": value, "origin": origin} for key, value, origin in recipe.origins
    ]
    return {"settings": recipe.settings, "origins": origins}


def _versions() -> dict[str, str]:
    versions = {"finetune": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
