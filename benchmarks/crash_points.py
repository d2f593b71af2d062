"""Kill a run at each change of a file, let the same call go on, and compare with the unbroken run.

`python benchmarks/crash_points.py [--every N] [--first N] [--last N]` trains a tiny model on a CPU
through the whole job: prepare, train, publish the best checkpoint, evaluate, report. A trial is a
process that is killed with SIGKILL just before it opens a file for writing, renames, removes or
syncs one, or in the middle of writing a file; and one that goes on. A trial fails where the adapter
is not the unbroken run's, byte by byte, or the run's folder has other files, steps or measures.
"""

from __future__ import annotations

import argparse
import collections
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kills import make_recipe, start

if TYPE_CHECKING:
    from finetune.runs import Run

Work = Callable[[], None]
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
SIZES = [0, 1, 50, 300, 600, 1_000, 2_000, 3_000, 5_000, 8_000, 12_000, 20_000, 40_000, 80_000]
EVALUATION = "data: 0.1, max_new_tokens: 2, forgetting: false"


def kill_at(number: int, folder: Path, work: Work) -> Work:
    """Return the work, killed just before the given change of a file below a folder."""
    left, sync = number, os.fsync

    def change() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(event: str, facts: tuple[Any, ...]) -> None:
        writes = event == "open" and facts[2] & (os.O_WRONLY | os.O_RDWR)
        if event in CHANGES or (writes and str(facts[0]).startswith(str(folder))):
            change()

    def count_sync(file: int) -> None:
        change()
        sync(file)

    def killed() -> None:
        sys.addaudithook(watch)
        os.fsync = count_sync  # the one change that no hook is told of
        work()

    return killed


def kill_within(size: int, before: Work, work: Work) -> Work:
    """Return two works; the second is killed while it writes a file of more than these bytes."""

    def killed() -> None:
        before()
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        work()

    return killed


def name_faults(folder: Path, wanted: Run) -> list[str]:
    """Return in what the run in a folder is not the one that was wanted."""
    from finetune.runs import list_runs

    runs = list_runs(folder / "runs")
    if len(runs) != 1 or runs[0].state["state"] != "done":
        return [f"runs: {[run.state['state'] for run in runs]}"]
    (run,) = runs
    faults = [
        f"file: {name}" for name in sorted(list_files(run.folder) ^ list_files(wanted.folder))
    ]
    name = "adapter_model.safetensors"
    if (run.adapter / name).read_bytes() != (wanted.adapter / name).read_bytes():
        faults.append("another adapter")
    one, other = ([(m["step"], m["loss"]) for m in run.metrics()] for run in (run, wanted))
    if one != other:
        faults.append("other metrics")
    if run.evaluation() != wanted.evaluation():
        faults.append("other measures")
    return faults


def list_files(folder: Path) -> set[str]:
    """Return the paths of all files, relative to the folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def end(work: Work) -> int:
    """Do this in a process; return its exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(start(work), 0)[1])


def main() -> int:
    """Print the figures; return 1 where a run did not go on as it should."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="leave out all but each Nth")
    parser.add_argument("--first", type=int, default=1, help="the first change that kills")
    parser.add_argument("--last", type=int, default=10**6, help="the last one")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"

    import torch
    import trl  # noqa: F401 (each process would import it)

    import finetune.backends.local.keeper  # noqa: F401 (likewise)
    from finetune import load_recipe, pipeline
    from finetune.runs import list_runs

    torch.set_num_threads(1)
    states: collections.Counter[str] = collections.Counter()
    failed = 0
    with tempfile.TemporaryDirectory() as place:
        path = make_recipe(Path(place), length="steps: 4", evaluation=EVALUATION)

        def run(folder: Path) -> None:
            recipe = load_recipe(path)
            pipeline.run(recipe, folder=folder / "runs", datasets=folder / "datasets")

        def prepare(folder: Path) -> None:
            pipeline.prepare(load_recipe(path), folder=folder / "datasets")

        def trials() -> Iterator[tuple[str, Path, Work]]:
            for size in SIZES if options.first == 1 else ():
                folder = Path(place) / f"size-{size}"
                works = partial(prepare, folder), partial(run, folder)
                yield f"within {size} bytes", folder, kill_within(size, *works)
            for number in range(options.first, options.last + 1, options.every):
                folder = Path(place) / f"change-{number}"
                yield f"change {number}", folder, kill_at(number, folder, partial(run, folder))

        whole = Path(place) / "whole"
        if end(partial(run, whole)):
            return 1
        (wanted,) = list_runs(whole / "runs")
        for name, folder, work in trials():
            if end(work) != -signal.SIGKILL and not name.startswith("within"):
                break
            found = list_runs(folder / "runs") if (folder / "runs").exists() else []
            state = found[0].state["state"] if found else "before the run"
            states[state] += 1
            code = end(partial(run, folder))
            faults = name_faults(folder, wanted) if code == 0 else [f"exit code {code}"]
            failed += bool(faults)
            print(f"{name}: {state}: {', '.join(faults) or 'the same'}", flush=True)
            shutil.rmtree(folder)
    print(f"{sum(states.values())} kills: {dict(states)}; {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
