"""Everything that needs a GPU, by one command on a machine that has one.

    python benchmarks/gpu.py                       # the tests marked `gpu`, then the quickstart
    python benchmarks/gpu.py --model mistralai/Mistral-7B-Instruct-v0.3 --processes 8

Printed: what the tests say; then for bfloat16 and 4 bits, and with several GPUs for DDP and
FSDP2, the speed of the quickstart's recipe on that model, its last loss, and the memory estimate
of a process. It has not been run on a GPU yet: please send what it prints.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--processes", type=int, default=0, help="all GPUs where absent")
    parser.add_argument("--steps", type=int, default=30)
    given = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        print("no CUDA device: nothing to run")
        return 1
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "gpu", "tests"], cwd=ROOT, check=False
    )
    count = given.processes or torch.cuda.device_count()
    ways: list[dict[str, Any]] = [{}, {"local.quantize": "4bit"}]
    if count > 1:
        ways.append({"local.launch.processes": count})
        ways.append({"local.launch.processes": count, "local.launch.strategy": "fsdp"})
    print(
        f"{torch.cuda.get_device_name()} x {torch.cuda.device_count()}, torch {torch.__version__}"
    )
    print("| settings | tokens/s | last loss | memory estimate |")
    failed = [way for way in ways if not measure(given.model, given.steps, way)]
    return int(bool(tests.returncode or failed))


def measure(model: str, steps: int, way: dict[str, Any]) -> bool:
    """Train for some steps and print a line of the table."""
    settings = {"model": model, "training.epochs": None, "training.steps": steps, **way}
    settings |= {"evaluation.limit": 1, "evaluation.forgetting": False}
    options = [
        part for key, value in settings.items() for part in ("-s", f"{key}={json.dumps(value)}")
    ]
    name = ", ".join(f"{key}={value}" for key, value in way.items()) or "one GPU"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "finetune"]
        recipe = str(ROOT / "recipes" / "quickstart.yaml")
        place: Any = {"cwd": folder, "stdout": subprocess.PIPE, "text": True}
        plan = subprocess.run([*command, "plan", recipe, *options, "--json"], check=False, **place)
        run = subprocess.run([*command, "run", recipe, *options, "--json"], check=False, **place)
        if run.returncode:
            print(f"| {name} | failed with code {run.returncode} | | |")
            return False
        lines = (Path(folder) / json.loads(run.stdout)["run"] / "metrics.jsonl").read_text()
        metrics = [json.loads(line) for line in lines.splitlines()]
        estimate = (json.loads(plan.stdout).get("memory") or {}).get("total_bytes", 0)
    speeds = [line["tokens_per_second"] for line in metrics if "tokens_per_second" in line]
    losses = [line["loss"] for line in metrics if "loss" in line]
    speed = statistics.median(speeds[1:] or speeds)
    print(f"| {name} | {speed:,.0f} | {losses[-1]:.4f} | {estimate / 1e9:.1f} GB |")
    return True


if __name__ == "__main__":
    sys.exit(main())
