"""What this machine computes on, found without importing torch."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

# A container's memory limit and use, under cgroups 2 and 1.
_CONTAINER_FILES = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model would be trained.

    Attributes:
        kind: `cuda` for an NVIDIA GPU, else `cpu`.
        name: The GPU's name, or the number of cores.
        total: All its memory, in bytes (a container's limit counts).
        free: Memory nobody uses now, in bytes.
        bf16: It computes in bfloat16 without emulation.
    """

    kind: Literal["cuda", "cpu"]
    name: str
    total: int
    free: int
    bf16: bool


def find_device(environment: Mapping[str, str] = os.environ, *, gpus: bool = True) -> Device:
    """Return the first GPU that is visible, else the CPU with the system's memory.

    Args:
        environment: Where CUDA_VISIBLE_DEVICES may stand.
        gpus: Whether torch can use any.
    """
    answer = _ask_gpus(environment) if gpus else None
    return (read_gpu(answer) if answer else None) or _find_cpu()


def share_device(device: Device, processes: int) -> Device:
    """Return what one of several processes has: a GPU of its own, or its share of the memory."""
    if device.kind == "cuda":
        return device
    total, free = device.total // processes, device.free // processes
    return msgspec.structs.replace(device, total=total, free=free)


def count_devices(
    environment: Mapping[str, str] = os.environ,
) -> tuple[Literal["cuda", "cpu"], int]:
    """Return what processes can be put on: the GPUs that are visible, else the cores."""
    gpus = _ask_gpus(environment)
    if gpus and read_gpu(gpus):
        count, visible = len(gpus.splitlines()), environment.get("CUDA_VISIBLE_DEVICES")
        return "cuda", count if visible is None else min(count, len(visible.split(",")))
    return "cpu", _count_cores()


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether an error says that memory did not suffice, on a GPU or a CPU."""
    import torch
    from accelerate.utils.memory import should_reduce_batch_size

    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or should_reduce_batch_size(error)
        or "std::bad_alloc" in str(error)
    )


def _ask_gpus(environment: Mapping[str, str]) -> str | None:
    """Return what the driver says of the GPUs that torch may see, the first of them first."""
    program = shutil.which("nvidia-smi", path=environment.get("PATH"))
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if program is None or (visible is not None and visible.split(",")[0].strip() in ("", "-1")):
        return None
    answers = [_query(program, gpu.strip()) for gpu in (visible or "").split(",") if visible]
    # Parts of a GPU have names that the driver does not take: then all there are.
    return "".join(map(str, answers)) if answers and all(answers) else _query(program)


def _query(program: str, gpu: str | None = None) -> str | None:
    query = "--query-gpu=name,memory.total,memory.free,compute_cap"
    which = [] if gpu is None else ["-i", gpu]
    try:
        return subprocess.run(
            [program, query, "--format=csv,noheader,nounits", *which],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def read_gpu(answer: str) -> Device | None:
    """Return the first GPU of `nvidia-smi`'s answer (name, total MiB, free MiB, capability)."""
    try:
        name, total, free, capability = answer.splitlines()[0].rsplit(",", 3)
        return Device(
            kind="cuda",
            name=name.strip(),
            total=int(total) * 2**20,
            free=int(free) * 2**20,
            bf16=float(capability) >= 8.0,  # Ampere (2020) and later
        )
    except (IndexError, ValueError):
        return None


def _find_cpu() -> Device:
    total, free = _system_memory()
    cores = _count_cores()
    return Device(kind="cpu", name=f"{cores} cores", total=total, free=free, bf16=cpu_has_bf16())


def _count_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Tell whether the CPU multiplies faster in bfloat16 than in float32.

    AMX and Arm's BF16 do, and AVX512-BF16 does on AMD's. Intel's cores since Sapphire Rapids, known
    by AVX512-FP16, give float32 as many products: where AMX is not passed on to a virtual machine,
    training is 1.5 times as fast in float32 (Emerald Rapids, torch 2.13, 2026-11-23).
    """
    try:
        with open(cpuinfo, encoding="utf-8", errors="replace") as file:
            line = next((line for line in file if line.startswith(("flags", "Features"))), "")
    except OSError:
        return False
    flags = set(line.split())
    return not flags.isdisjoint({"amx_bf16", "bf16"}) or (
        "avx512_bf16" in flags and "avx512_fp16" not in flags
    )


def _system_memory() -> tuple[int, int]:
    """Return total and free bytes, within the container's limit where there is one."""
    page = os.sysconf("SC_PAGE_SIZE")
    total = free = page * os.sysconf("SC_PHYS_PAGES")
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass  # not Linux: all of it counts as free
    for limit_file, used_file in _CONTAINER_FILES:
        limit = _read_number(limit_file)
        if limit is not None and limit < total:
            used = _read_number(used_file) or 0
            total, free = limit, min(free, max(0, limit - used))
    return total, free


def _read_number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
