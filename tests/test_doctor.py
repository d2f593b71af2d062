import json
import subprocess
import sys

import pytest

from finetune.backends.local.device import Device
from finetune.doctor import Machine, examine

GPU = Device(kind="cuda", name="a GPU", total=24 * 10**9, free=23 * 10**9, bf16=True)
KEY = "0123456789abcdefghijABCDEFGHIJ42"


@pytest.fixture
def machine(tmp_path):
    def make(environment=(), versions=None, device=GPU, python=(3, 12)):
        installed = {"torch": "2.13.0"} if versions is None else versions
        return Machine(
            dict(environment), installed.get, lambda: device, python, tmp_path / "cache", tmp_path
        )

    return make


def look(machine, name):
    return {check.name: check for check in examine(machine)}[name]


def test_an_old_python_is_an_error(machine):
    check = look(machine(python=(3, 10)), "python")
    assert (check.status, check.fact) == ("error", "3.10, at least 3.11 is needed")


def test_a_missing_extra_names_what_is_missing_and_the_install_line(machine):
    check = look(machine(), "extra local")
    assert check.status == "warning"
    assert "transformers" in check.fact
    assert "torch" not in check.fact
    assert check.fix == f"{sys.executable} -m pip install 'mistral-finetune-kit[local]'"


def test_a_cpu_build_of_torch_beside_a_gpu_is_an_error(machine):
    assert look(machine(versions={"torch": "2.13.0+cpu"}), "torch build").status == "error"
    assert look(machine(versions={"torch": "2.13.0"}), "torch build").status == "ok"


def test_no_torch_is_a_warning_with_a_fix(machine):
    check = look(machine(versions={}), "torch build")
    assert check.status == "warning"
    assert check.fix


@pytest.mark.parametrize(
    ("key", "status"),
    [(KEY, "ok"), ("", "warning"), (f"{KEY}\n", "error"), ("short", "warning")],
)
def test_the_key_is_judged_by_its_shape_and_never_shown(machine, key, status):
    checks = examine(machine({"MISTRAL_API_KEY": key}))
    assert {check.name: check.status for check in checks}["MISTRAL_API_KEY"] == status
    if key.strip():
        assert key.strip() not in repr(checks)


def test_hardware_without_bfloat16_is_a_warning(machine):
    old = Device(kind="cuda", name="old", total=1, free=1, bf16=False)
    assert look(machine(device=old), "bfloat16").status == "warning"


def test_the_command_prints_checks_as_json_and_loads_no_torch():
    code = (
        "import sys, finetune.cli as c\n"
        "sys.argv = ['finetune', 'doctor', '--json']\n"
        "try: c.main()\n"
        "except SystemExit as e: assert not e.code, e.code\n"
        "assert not {'torch', 'transformers'} & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    checks = json.loads(done.stdout)
    assert {"python", "device", "disk", "MISTRAL_API_KEY"} <= {check["name"] for check in checks}
    assert all(check["fix"] for check in checks if check["status"] == "error")
