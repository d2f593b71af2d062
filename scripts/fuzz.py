"""Give our readers bytes that coverage leads to, and keep those that break them.

`pip install atheris`, then `python scripts/fuzz.py rows --seconds 300`. What breaks a reader is
kept in `.fuzz/TARGET/broken`, one file for each place in the code that raised, and goes on as a
case in `tests/fuzz/cases/TARGET`; what led to code not seen yet is kept in `.fuzz/TARGET/corpus`.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import shutil
import sys
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def main() -> None:
    """Fuzz one target for some time."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("target", help="rows, recipe, convert, check or archive")
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--folder", type=Path, default=ROOT / ".fuzz")
    options = parser.parse_args()

    import atheris

    with atheris.instrument_imports(include=["finetune"]):
        from tests.fuzz.targets import TARGETS

    read = TARGETS[options.target]
    folder = options.folder / options.target
    corpus, broken = folder / "corpus", folder / "broken"
    for place in (corpus, broken):
        place.mkdir(parents=True, exist_ok=True)
    for seed in sorted((ROOT / "tests" / "fuzz" / "cases" / options.target).glob("*")):
        shutil.copy(seed, corpus)
    started, runs, faults = time.monotonic(), 0, set[str]()

    def run(data: bytes) -> None:
        nonlocal runs
        runs += 1
        began = time.monotonic()
        try:
            read(data)
        except Exception as error:  # noqa: BLE001 (kept, and the search goes on)
            place = traceback.extract_tb(error.__traceback__)[-1]
            fault = f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}"
            if fault not in faults:
                faults.add(fault)
                name = hashlib.sha256(data).hexdigest()[:12]
                (broken / name).write_bytes(data)
                print(f"{fault}: {broken / name}", flush=True)
                traceback.print_exc()
        if (took := time.monotonic() - began) > 5:
            name = f"slow-{hashlib.sha256(data).hexdigest()[:12]}"
            (broken / name).write_bytes(data)
            print(f"slow, {took:.0f} s: {broken / name}", flush=True)
        if time.monotonic() - started > options.seconds:
            print(f"{options.target}: {runs:,} runs, {len(faults)} faults", flush=True)
            sys.stdout.flush()
            os._exit(1 if faults else 0)

    arguments = [sys.argv[0], "-max_len=4096", "-timeout=60", "-rss_limit_mb=4096", str(corpus)]
    with contextlib.suppress(KeyboardInterrupt):
        atheris.Setup(arguments, run)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
