"""How fast `convert` is, beside `datasets.load_dataset` + `.map` doing the same conversion.

`python benchmarks/convert.py` makes a ShareGPT corpus (the same bytes every time) as JSON Lines
and as one JSON list, converts both in processes of their own, from reading to the synced file,
checks included, prints a table, and exits 1 if a bar is missed. A megabyte is a million bytes of
input; the best of several runs counts, the first of them being thrown away with the cold cache.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MB = 1_000_000
WORDS = (
    "the of and to in is you that it was for on are with as at be this have from or one had by but "
    "not what all were when your can said there use an each which she do how their if will up "
    "other about out many then them these so some her would make like him into time has look two "
    "order parcel refund invoice naïve café größer"
).split()
# What a user of datasets would write; it does not check the records.
OTHER = """
import sys, datasets, pyarrow
pyarrow.set_cpu_count(1)
datasets.disable_progress_bars()
source, target, cache = sys.argv[1:]
roles = {"human": "user", "gpt": "assistant"}
def convert(row):
    turns = row["conversations"]
    return {"messages": [{"role": roles[t["from"]], "content": t["value"]} for t in turns]}
rows = datasets.load_dataset("json", data_files=source, split="train", cache_dir=cache)
rows.map(convert, remove_columns=rows.column_names).to_json(target, force_ascii=False)
"""


def text(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=words))


def write_corpus(lines: Path, array: Path, size: int) -> None:
    """Write chats of one to six exchanges, about 2.3 kB each."""
    rng = random.Random(0)
    done = number = 0
    with open(lines, "w") as one, open(array, "w") as other:
        other.write("[")
        while done < size:
            turns = []
            for _ in range(rng.choice([1, 1, 2, 2, 3, 4, 6])):
                asked = int(rng.lognormvariate(3.2, 0.8)) + 2
                turns.append({"from": "human", "value": text(rng, asked)})
                answered = int(rng.lognormvariate(4.6, 0.8)) + 5
                turns.append({"from": "gpt", "value": text(rng, answered)})
            row = json.dumps({"id": f"row_{number}", "conversations": turns}, ensure_ascii=False)
            one.write(row + "\n")
            other.write((",\n" if number else "\n") + row)
            number += 1
            done += len(row.encode()) + 1
        other.write("\n]\n")


def measure(command: list[str], runs: int) -> dict[str, float]:
    """Return the least seconds on the clock and of CPU (children included) of several runs."""
    clocks, cpus = [], []
    for _ in range(runs):
        start, before = time.perf_counter(), os.times()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        after = os.times()
        clocks.append(time.perf_counter() - start)
        cpus.append(
            after.children_user
            - before.children_user
            + after.children_system
            - before.children_system
        )
    return {"clock": min(clocks), "cpu": min(cpus)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=200)
    parser.add_argument("--runs", type=int, default=3)
    size, runs = parser.parse_args().mb * MB, parser.parse_args().runs
    os.environ["PYTHONPATH"] = str(ROOT)
    os.environ |= {"HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines, array, target = folder / "a.jsonl", folder / "a.json", folder / "out.jsonl"
        write_corpus(lines, array, size)

        def ours(source: Path, workers: int) -> dict[str, float]:
            command = [sys.executable, "-m", "finetune", "convert", str(source), "-o", str(target)]
            return measure([*command, "-q", "--workers", str(workers)], runs)

        found = {
            ("JSON Lines", 1): ours(lines, 1),
            ("JSON Lines", 2): ours(lines, 2),
            ("a JSON list", 1): ours(array, 1),
            ("a JSON list", 2): ours(array, 2),
        }
        other = []
        for run in range(runs):
            cache = folder / f"cache-{run}"
            command = [sys.executable, "-c", OTHER, str(lines), str(target), str(cache)]
            other.append(measure(command, 1))
        best = {key: min(one[key] for one in other) for key in ("clock", "cpu")}
    print(f"{size / MB:.0f} MB                     MB/s of CPU   MB/s on the clock")
    for (what, workers), seconds in found.items():
        rates = [size / MB / seconds[key] for key in ("cpu", "clock")]
        print(f"{what:<12} {workers} worker(s)   {rates[0]:10.1f}   {rates[1]:10.1f}")
    rates = [size / MB / best[key] for key in ("cpu", "clock")]
    print(f"{'datasets':<12} 1 process     {rates[0]:10.1f}   {rates[1]:10.1f}")
    figures = {
        "JSON Lines, MB/s a core": (size / MB / found["JSON Lines", 1]["cpu"], 40),
        "a JSON list, MB/s a core": (size / MB / found["a JSON list", 1]["cpu"], 20),
        "two workers, times one": (
            found["JSON Lines", 1]["clock"] / found["JSON Lines", 2]["clock"],
            1.6,
        ),
        "a JSON list, two workers, times one": (
            found["a JSON list", 1]["clock"] / found["a JSON list", 2]["clock"],
            1.6,
        ),
        "times datasets (CPU)": (best["cpu"] / found["JSON Lines", 1]["cpu"], 2),
        "times datasets (clock)": (best["clock"] / found["JSON Lines", 1]["clock"], 2),
    }
    for figure, (value, bar) in figures.items():
        print(f"{figure:<38} {value:7.2f}  (bar {bar})  {'ok' if value >= bar else 'MISSED'}")
    sys.exit(any(value < bar for value, bar in figures.values()))


if __name__ == "__main__":
    main()
