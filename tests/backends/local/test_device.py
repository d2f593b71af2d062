import sys

import pytest

from finetune.backends.local.device import (
    count_devices,
    cpu_has_bf16,
    find_device,
    is_out_of_memory,
    read_gpu,
)


def test_a_gpu_is_read_from_the_drivers_answer():
    device = read_gpu("NVIDIA GeForce RTX 4090, 24564, 23000, 8.9\nsecond, 1, 1, 7.5\n")
    assert device.kind == "cuda"
    assert device.name == "NVIDIA GeForce RTX 4090"
    assert device.total == 24564 * 2**20
    assert device.free == 23000 * 2**20
    assert device.bf16


def test_an_older_gpu_has_no_bfloat16():
    assert not read_gpu("Tesla T4, 15360, 15000, 7.5").bf16


@pytest.fixture
def two_gpus(tmp_path):
    """A PATH on which the driver's program stands in for a machine with two GPUs."""
    program = tmp_path / "nvidia-smi"
    program.write_text(
        """#!/bin/sh
case "$*" in
*"-i MIG"*) exit 6 ;;
*"-i 1"*) echo "large, 80000, 79000, 9.0" ;;
*"-i 0"*) echo "small, 8000, 7000, 7.5" ;;
*) echo "small, 8000, 7000, 7.5"; echo "large, 80000, 79000, 9.0" ;;
esac
"""
    )
    program.chmod(0o755)
    return str(tmp_path)


@pytest.mark.parametrize(
    ("visible", "name", "count"),
    [
        (None, "small", 2),
        ("1", "large", 1),
        ("1,0", "large", 2),
        ("MIG-5c1", "small", 1),
        ("-1", None, None),
        ("", None, None),
    ],
)
def test_the_gpus_are_those_that_are_visible(two_gpus, visible, name, count):
    environment = {"PATH": two_gpus}
    if visible is not None:
        environment["CUDA_VISIBLE_DEVICES"] = visible
    device, (kind, found) = find_device(environment), count_devices(environment)
    assert device.kind == kind == ("cuda" if name else "cpu")
    if name:
        assert (device.name, found) == (name, count)
    assert find_device(environment, gpus=False).kind == "cpu"


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("[enforce fail] std::bad_alloc")])
def test_errors_of_memory(error):
    assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))


@pytest.mark.parametrize("answer", ["", "No devices were found", "name, many, few, 8.0"])
def test_any_other_answer_is_no_gpu(answer):
    assert read_gpu(answer) is None


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16", True),
        ("flags : fpu avx512_bf16 avx512_fp16", False),  # float32 is as fast there, without AMX
        ("flags : fpu avx512_bf16 avx512_fp16 amx_bf16", True),
        ("flags : fpu amx_bf16", True),
        ("Features : fp asimd bf16", True),
        ("flags : fpu avx512f", False),
        ("", False),
    ],
)
def test_bfloat16_is_read_from_the_cpus_flags(tmp_path, flags, expected):
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor : 0\n{flags}\n", encoding="utf-8")
    assert cpu_has_bf16(path) is expected


def test_no_cpuinfo_is_no_bfloat16(tmp_path):
    assert not cpu_has_bf16(tmp_path / "absent")


def test_this_machine_has_a_device_with_memory_and_torch_stays_unloaded():
    loaded = "torch" in sys.modules
    device = find_device()
    assert 0 < device.free <= device.total
    assert ("torch" in sys.modules) == loaded
