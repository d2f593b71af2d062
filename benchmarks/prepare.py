"""How much memory `prepare` takes for a gigabyte of chats, near duplicates looked for or not.

`python benchmarks/prepare.py` makes the corpus (the same bytes every time), prepares it in a
process of its own with its workers, adds up the memory of all of them as it goes, prints the
peaks, and exits 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from convert import MB, ROOT, write_corpus

BASE, BYTES_A_RECORD = 400, 2000


def resident(process: int) -> int:
    """Return the bytes that a process and its children hold."""
    total = 0
    with contextlib.suppress(OSError, IndexError):  # it may end meanwhile
        status = Path(f"/proc/{process}/status").read_text()
        total += 1024 * int(status.partition("VmRSS:")[2].split()[0])
        for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
            total += resident(int(child))
    return total


def measure(folder: Path, source: Path, deduplicate: str, workers: int) -> tuple[int, int, float]:
    """Return the peak in bytes, the records written and the seconds."""
    recipe = folder / "recipe.json"
    clean = {"deduplicate": deduplicate}
    data = {"train": [{"path": str(source)}], "validation": 0.02, "clean": clean}
    recipe.write_text(json.dumps({"model": "smollm2-135m", "data": data}))
    code = (
        "import sys; from pathlib import Path; from finetune import load_recipe\n"
        "from finetune.corpus import prepare\n"
        "made = prepare(load_recipe(sys.argv[1]), folder=Path(sys.argv[2]),"
        " workers=int(sys.argv[3]))\n"
        "print(made.manifest['records']['written'])"
    )
    start, peak = time.perf_counter(), 0
    command = [sys.executable, "-c", code, str(recipe), str(folder / deduplicate), str(workers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            peak = max(peak, resident(process.pid))
            time.sleep(0.05)
        written = int(process.stdout.read())
    return peak, written, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = str(ROOT)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = folder / "a.jsonl"
        write_corpus(lines, Path(os.devnull), options.mb * MB)
        exact = measure(folder, lines, "exact", options.workers)
        print(f"exact  {exact[0] / MB:6.0f} MB, {exact[1]:,} records, {exact[2]:.0f} s", flush=True)
        near = measure(folder, lines, "near", options.workers)
        more = (near[0] - exact[0]) / near[1]
        print(f"near   {near[0] / MB:6.0f} MB, {more:,.0f} bytes a record more, {near[2]:.0f} s")
    missed = exact[0] > BASE * MB or more > BYTES_A_RECORD
    print(f"bars: {BASE} MB, {BYTES_A_RECORD} bytes a record more: {'MISSED' if missed else 'ok'}")
    sys.exit(missed)


if __name__ == "__main__":
    main()
