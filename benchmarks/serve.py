"""What `finetune serve` stands: kills at random moments, many pollers, anything that may be sent.

`python benchmarks/serve.py kills [--kills 100]`: SIGKILL under load; no acknowledged file, job or
key is lost, none is trained twice (the trainer ends at once).
`python benchmarks/serve.py load [--clients 200] [--megabytes 512] [--in-step]`: each client polls
once a second while one uploads; p99 of a poll under 100 ms, the server's memory grows by less than
100 MB. The clients poll independently of each other, or with `--in-step` all in the same moment.
They are locust's, which is installed into an environment of its own.
`python benchmarks/serve.py fuzz [--seconds 600]`: schemathesis, all phases, over `/openapi.json`;
no failure. Each prints its figures and exits 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import httpx2  # noqa: E402 (the checkout comes first)

from finetune.tokens.embedded import provide_tokenizer  # noqa: E402
from tests.server.conftest import TRAINER, Running, chats, upload, wait_for  # noqa: E402
from tests.server.killing import (  # noqa: E402
    Load,
    check_each_was_trained_once,
    check_nothing_is_lost,
)

POLLER = """
from locust import FastHttpUser, between, constant_pacing, task

class Poller(FastHttpUser):
    wait_time = {wait}

    @task
    def poll(self):
        self.client.get("/v1/fine_tuning/jobs/{job}", headers={{"Authorization": "Bearer {key}"}})
"""


def start(folder, *options):
    model = folder / "model"
    shutil.copytree(provide_tokenizer(), model)
    config = {"model_type": "mistral", "max_position_embeddings": 512}
    (model / "config.json").write_text(json.dumps(config))
    names = folder / "models.yaml"
    names.write_text(f"small: {{model: {model}}}\n")
    return Running(folder / "server", "--models", names, "--trainer", TRAINER, *options)


def kills(folder, count):
    chance = random.Random(0)
    server = start(folder, "--workers", "2")
    with Load(server) as load:
        for number in range(count):
            time.sleep(chance.uniform(0.0, 1.5))
            server.kill()
            server.start()
            if number % 10 == 9:
                print(f"{number + 1} kills, {load.acknowledged} calls acknowledged", flush=True)
    check_nothing_is_lost(load)
    check_each_was_trained_once(load)
    server.stop()
    print(
        f"{count} kills: {len(load.files)} files and {len(load.jobs)} jobs,"
        " none lost, none trained twice"
    )
    return True


def resident(process):
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1000
    return 0.0


def send(server, megabytes):
    """Upload zeros in lines, a million bytes at a time."""
    head = (
        b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="large.jsonl"\r\n\r\n'
    )
    line = b'{"text": "' + b"a" * (10**6 - 13) + b'"}\n'

    def pieces():
        yield head
        for _ in range(megabytes):
            yield line
        yield b"\r\n--x--\r\n"

    headers = {
        "Authorization": f"Bearer {server.key()}",
        "Content-Type": "multipart/form-data; boundary=x",
        "Content-Length": str(len(head) + megabytes * len(line) + 9),
    }
    started = time.monotonic()
    reply = httpx2.post(
        f"{server.url}/v1/files", content=pieces(), headers=headers, timeout=600, trust_env=False
    )
    assert reply.status_code == 200, reply.text
    assert reply.json()["bytes"] == megabytes * len(line)
    return time.monotonic() - started


def load(folder, clients, megabytes, seconds, in_step):
    server = start(folder)
    with server.client() as client:
        file = upload(client, "polled.jsonl", chats(12))
        body = {"model": "small", "training_files": [{"file_id": file}], "hyperparameters": {}}
        job = client.post("/v1/fine_tuning/jobs", json=body).json()["id"]
        wait_for(client, job, "VALIDATED")
    subprocess.run([sys.executable, "-m", "venv", folder / "locust"], check=True)
    python = folder / "locust" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "locust"], check=True)
    wait = "constant_pacing(1)" if in_step else "between(0.5, 1.5)"
    poller = POLLER.format(job=job, key=server.key(), wait=wait)
    (folder / "poller.py").write_text(poller)
    options = {"-f": folder / "poller.py", "-H": server.url, "-u": clients, "-r": clients}
    options |= {"-t": f"{seconds}s", "--csv": folder / "polls"}
    flags = [part for option in options.items() for part in option]
    command = [python, "-m", "locust", "--headless", "--only-summary", *flags]
    before = most = resident(server.process)
    took = []
    locust = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(5)
    sending = threading.Thread(target=lambda: took.append(send(server, megabytes)))
    sending.start()
    while locust.poll() is None:
        most = max(most, resident(server.process))
        time.sleep(0.1)
    sending.join()
    server.stop()
    with open(folder / "polls_stats.csv") as file:
        total = list(csv.DictReader(file))[-1]
    p50, p99 = float(total["50%"]), float(total["99%"])
    failed = int(total["Failure Count"])
    print(
        f"{clients} clients, {total['Request Count']} polls, {failed} failed:"
        f" p50 {p50:.0f} ms, p99 {p99:.0f} ms; {megabytes} MB uploaded in {took[0]:.1f} s,"
        f" memory {before:.0f} → {most:.0f} MB"
    )
    return failed == 0 and p99 < 100 and most - before < 100


def fuzz(folder, seconds):
    server = start(folder)
    tool = Path(sys.executable).with_name("st")
    config = ROOT / "tests" / "server" / "schemathesis.toml"
    key = f"Authorization: Bearer {server.key()}"
    command = [tool, "--config-file", config, "run", f"{server.url}/openapi.json", "-H", key]
    command += ["--max-time", seconds, "-n", 1000, "--no-color"]
    done = subprocess.run(list(map(str, command)), cwd=folder, check=False)
    server.stop()
    return done.returncode == 0


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("kills").add_argument("--kills", type=int, default=100)
    loading = commands.add_parser("load")
    loading.add_argument("--clients", type=int, default=200)
    loading.add_argument("--megabytes", type=int, default=512)
    loading.add_argument("--seconds", type=int, default=40)
    loading.add_argument("--in-step", action="store_true", help="all poll in the same moment")
    commands.add_parser("fuzz").add_argument("--seconds", type=int, default=600)
    options = vars(parser.parse_args())
    command = options.pop("command")
    os.environ.setdefault("PYTHONPATH", str(ROOT))
    with tempfile.TemporaryDirectory() as folder:
        passed = {"kills": kills, "load": load, "fuzz": fuzz}[command](
            Path(folder), *options.values()
        )
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
