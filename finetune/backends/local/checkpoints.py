"""Checkpoints that are whole or not there.

The trainer saves into a hidden folder. What is kept of it is synced, listed with size and SHA-256
in MANIFEST.json, marked by a file COMMITTED that is written last, and renamed to `step-N`.
A run continues from the newest folder in which all of that holds; any other is put aside.
No pickle is kept: the optimizer's files are tensors that torch loads with `weights_only`, and
only after their hashes were found right.
"""

from __future__ import annotations

import fnmatch
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from finetune import files
from finetune.errors import RunError

NEEDED = frozenset(
    {
        "adapter_config.json",
        "adapter_model.safetensors",
        "optimizer.pt",
        "rng_state.pth",
        "scheduler.pt",
        "trainer_state.json",
    }
)
WEIGHTS = "weights.safetensors"
_ADAPTER = {"adapter_config.json", "adapter_model.safetensors"}
# What is written where all weights are trained, and what several ranks write: a file or folder,
# and the files that it stands for.
_INSTEAD: dict[str, set[str]] = {
    WEIGHTS: _ADAPTER,
    "rng_state_*.pth": {"rng_state.pth"},
    "pytorch_model_fsdp_0": _ADAPTER,
    "optimizer_0": {"optimizer.pt"},
    "global_step*": {"optimizer.pt"},  # DeepSpeed's
}
_KEPT = (*NEEDED, "scaler.pt", "latest", "classifier.safetensors", "classifier.json", *_INSTEAD)
_MANIFEST, _COMMITTED, _BAD = "MANIFEST.json", "COMMITTED", ".bad"


class Checkpoint(NamedTuple):
    """A committed checkpoint.

    Attributes:
        folder: Where it lies.
        step: The optimizer step after which it was saved.
        micro_batch_tokens: Tokens that were computed at once. A run goes on with them on any
            machine, as sums of floats depend on how they are split.
    """

    folder: Path
    step: int
    micro_batch_tokens: int


def commit(
    saved: Path,
    step: int,
    *,
    identity: Mapping[str, Any],
    micro_batch_tokens: int,
    keep: int,
    best: int | None = None,
) -> Checkpoint:
    """Make a checkpoint of the folder that the trainer saved, and remove the oldest ones.

    Args:
        saved: Hidden folder within `checkpoints/<hidden>/`, on the same file system.
        step: The optimizer step after which it was saved.
        identity: What must be equal for a run to go on from here.
        micro_batch_tokens: See `Checkpoint`.
        keep: Committed checkpoints that stay, at least 1.
        best: The step of a checkpoint that stays however old it is.

    Raises:
        OSError: The disk is full or broken; nothing stands under the final name then.
    """
    folder = saved.parent.parent
    listed = {}
    for path in sorted(saved.iterdir()):
        if not any(fnmatch.fnmatch(path.name, kept) for kept in _KEPT):
            # tokenizer copies, draft cards and the pickled arguments
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name in _list_files(saved):
        files.sync_file(saved / name)
        listed[name] = {"sha256": files.digest(saved / name), "size": (saved / name).stat().st_size}
    manifest = {
        "step": step,
        "identity": dict(identity),
        "micro_batch_tokens": micro_batch_tokens,
        "files": listed,
    }
    files.write_atomic(saved / _MANIFEST, files.to_json(manifest, indent=True))
    files.write_atomic(saved / _COMMITTED, files.digest(saved / _MANIFEST).encode() + b"\n")
    final = folder / f"step-{step}"
    shutil.rmtree(final, ignore_errors=True)
    saved.rename(final)
    files.sync_folder(folder)
    for old in list_steps(folder)[keep:]:
        if old != best:
            shutil.rmtree(folder / f"step-{old}")
    return Checkpoint(final, step, micro_batch_tokens)


def find_whole(
    folder: Path,
    identity: Mapping[str, Any],
    steps: Sequence[int] | None = None,
    *,
    damaged: Callable[[str], None] = lambda _: None,
) -> Checkpoint | None:
    """Return the first whole checkpoint of these steps, putting damaged ones aside in `.bad`.

    Args:
        folder: The run's checkpoints.
        identity: What the run that asks is.
        steps: In the order of preference; the newest first where absent.
        damaged: Told the name of each checkpoint that was put aside.

    Raises:
        RunError: It belongs to another identity; the message names what differs.
    """
    for step in list_steps(folder) if steps is None else steps:
        place = folder / f"step-{step}"
        if not place.exists():
            continue
        manifest = _verify(place)
        if manifest is None:
            _put_aside(place)
            damaged(place.name)
            continue
        if manifest["identity"] != dict(identity):
            raise RunError(
                f"{place}: belongs to another run:"
                f" {name_difference(manifest['identity'], identity)}",
                hint="undo the change, or start over with `--fresh`",
            )
        return Checkpoint(place, step, manifest["micro_batch_tokens"])
    return None


def name_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Return which keys of two identities differ, as `key was A, is B`."""
    missing = "absent"
    return "; ".join(
        f"`{key}` was {old.get(key, missing)}, is {new.get(key, missing)}"
        for key in sorted({*old, *new})
        if old.get(key, missing) != new.get(key, missing)
    )


def list_steps(folder: Path) -> list[int]:
    """Return the steps of what stands under a checkpoint's name, the newest first."""
    names = [path.name.removeprefix("step-") for path in folder.glob("step-*")]
    return sorted((int(name) for name in names if re.fullmatch("[1-9][0-9]*", name)), reverse=True)


def _verify(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a whole checkpoint, else None."""
    try:
        marker = (folder / _COMMITTED).read_text("ascii").strip()
        if marker != files.digest(folder / _MANIFEST):
            return None
        manifest: dict[str, Any] = files.read_json(folder / _MANIFEST)
        listed = manifest["files"]
        there = set(_list_files(folder)) - {_MANIFEST, _COMMITTED}
        if there != set(listed) or not there | _stand_for(there) >= NEEDED:
            return None
        for name, facts in listed.items():
            path = folder / name
            if path.stat().st_size != facts["size"] or files.digest(path) != facts["sha256"]:
                return None
    except (OSError, ValueError):
        return None
    return manifest


def _list_files(folder: Path) -> list[str]:
    """Return the paths of all files, relative to the folder."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in found)


def _stand_for(names: Iterable[str]) -> set[str]:
    """Return the files of an adapter trained by one process that these stand for."""
    tops = {name.partition("/")[0] for name in names}
    found = [
        stood
        for pattern, stood in _INSTEAD.items()
        if any(fnmatch.fnmatch(top, pattern) for top in tops)
    ]
    return set().union(*found)


def _put_aside(folder: Path) -> None:
    bad = folder.parent / _BAD
    bad.mkdir(exist_ok=True)
    target, number = bad / folder.name, 2
    while target.exists():
        target, number = bad / f"{folder.name}-{number}", number + 1
    folder.rename(target)
    files.sync_folder(folder.parent)
