"""What a submission to La Plateforme stands: crashes, lost replies, a service that is killed too.

`python benchmarks/submissions.py simulate [--count 1000]`: submissions in this process against the
server's app, with a clock that only waiting moves on: each crashes at one of its steps while
requests and replies are lost, cut, refused and doubled and the server is killed, and is made again
until it ends.
`python benchmarks/submissions.py kill [--count 50]`: `finetune run` in processes of its own against
`finetune serve` behind a proxy that spoils what passes; the client, and now and then the server,
are killed with SIGKILL at random moments, and the command is given again until it ends.
`python benchmarks/submissions.py faults`: 20 faults of a raw socket × 8 calls with a deadline of
1 s each; how late a call ends at most, and by how much memory grows.

In all of them a training ends at once. `--seed` moves chance on. Each prints its figures and exits
1 if a bar is missed: no job is started twice, every submission ends in SUCCESS and leaves no file,
no call ends more than 1 s after its deadline, memory grows by less than 64 MB.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.serve import start  # noqa: E402 (the checkout comes first)
from finetune.errors import PlatformError  # noqa: E402
from tests.backends.platform import simulation  # noqa: E402
from tests.backends.platform.faults import (  # noqa: E402
    CALLS,
    FAULTS,
    Raw,
    make_pace,
    open_client,
)
from tests.backends.platform.service import Site  # noqa: E402
from tests.server.proxy import Proxy  # noqa: E402
from tests.server.test_client import write_place  # noqa: E402

FATES = ("reset", "cut", "drop", "half", 429, 500, 503, ("after", 502), "late")
MOST_RERUNS = 12


def simulate(folder, count, seed):
    recipe, dataset = simulation.make_dataset(folder)
    site = Site(folder / "site", recipe, dataset)
    steps = len(simulation.list_steps(folder / "unbroken", recipe, dataset, site))
    twice = failed = left = unused = 0
    for number in range(seed * count, (seed + 1) * count):
        place = folder / str(number)
        service, status = simulation.simulate(number, place, recipe, dataset, site, steps)
        twice += len(service.trained) > 1
        failed += status != "SUCCESS"
        left += bool(service.files)
        unused += len(service.jobs) - 1
    print(f"submissions {count}, crash points {steps}, faults {len(simulation.FATES)}")
    print(f"jobs started more than once: {twice}; jobs made and not used: {unused}")
    print(f"not ended in SUCCESS: {failed}; with files left at the service: {left}")
    return not (twice or failed or left)


class Trouble:
    """What goes wrong in one submission: most of it, or nothing."""

    def __init__(self, dice):
        self.dice, self.share, self.met = dice, dice.choice((0.0, 0.1, 0.25)), 0

    def fate(self, _, __):
        """Return what happens to the next request."""
        if self.dice.random() >= self.share:
            return None
        self.met += 1
        fate = self.dice.choice(FATES)
        if fate == "late":
            time.sleep(self.dice.uniform(0.1, 1.0))
            return None
        return fate


def kill(folder, count, seed):
    server, proxy = start(folder), Proxy(lambda *_: None)
    key = folder / "key"
    key.write_text(server.key())
    command = [sys.executable, "-m", "finetune", "run", "r.yaml", "--yes", "--json"]
    command += ["-s", f"platform.host={proxy.url}", "--api-key-file", str(key)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def submit(place, seconds=None):
        """Give the command and return its exit code, None where it was killed."""
        with open(place / "said", "ab") as said:
            process = subprocess.Popen(
                command, cwd=place, env=environment, stdout=said, stderr=said
            )
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(seconds)
            process.kill()
            process.wait()
        return None

    def trained():
        log = server.folder / "trained.log"
        return len(log.read_text().split()) if log.is_file() else 0

    proxy.port = int(server.url.rpartition(":")[2])
    begun = time.monotonic()
    assert submit(write_place(folder / "unbroken")) == 0
    whole = time.monotonic() - begun
    print(f"unbroken: {whole:.1f} s", flush=True)
    twice = failed = left = kills = downs = faults = 0
    for number in range(seed * count, (seed + 1) * count):
        dice = random.Random(number)
        trouble, place, before = Trouble(dice), write_place(folder / str(number)), trained()
        proxy.fate, code = trouble.fate, None
        for _ in range(dice.randint(1, 3)):
            code = submit(place, dice.uniform(0, whole * 1.3))
            kills += code is None
            if dice.random() < 0.25:
                server.kill()
                server.start()
                proxy.port = int(server.url.rpartition(":")[2])
                downs += 1
        for _ in range(MOST_RERUNS):
            if code == 0:
                break
            code = submit(place)
        with server.client() as client:
            files = client.get("/v1/files").json()["data"]
        twice += trained() - before > 1
        failed += code != 0 or trained() == before
        left += bool(files)
        faults += trouble.met
        if code != 0 or files or trained() - before != 1:
            print(f"{number}: exit {code}, {trained() - before} trained, {len(files)} files left")
            print((place / "said").read_text()[-2000:], flush=True)
    server.stop()
    proxy.close()
    print(f"submissions {count}: {kills} clients and {downs} servers killed, {faults} faults met")
    print(
        f"started more than once: {twice}; not ended in SUCCESS: {failed}; with files left: {left}"
    )
    return not (twice or failed or left)


def faults():
    late, where, raw = 0.0, "", Raw()
    client = open_client(raw.url, pace=make_pace(1.0, 1))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, (fault, _) in FAULTS.items():
        for call, make in CALLS.items():
            raw.fault, begun = fault, time.monotonic()
            with contextlib.suppress(PlatformError):
                make(client)
            took = time.monotonic() - begun - 1.0
            late, where = max((late, where), (took, f"{call}, {name}"))
            raw.rest()
    raw.close()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1000
    print(f"{len(FAULTS)} faults × {len(CALLS)} calls: the latest ends {late:.3f} s after its")
    print(f"deadline ({where}); memory grows by {grown:.0f} MB")
    return late < 1 and grown < 64


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    counts = {"simulate": 1000, "kill": 50, "faults": 0}
    parser.add_argument("command", choices=counts)
    parser.add_argument("--count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to work; memory is fastest")
    options = parser.parse_args()
    count = options.count or counts[options.command]
    begun = time.monotonic()
    if options.command == "faults":
        passed = faults()
    else:
        work = {"simulate": simulate, "kill": kill}[options.command]
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            passed = work(Path(folder), count, options.seed)
    print(f"{time.monotonic() - begun:.0f} s")
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
