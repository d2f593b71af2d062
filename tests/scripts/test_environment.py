"""Setting up: for real, from three small wheels, with whichever installer this machine has."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def module():
    spec = importlib.util.spec_from_file_location("environment", ROOT / "scripts/environment.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def run(checkout, environment, *arguments, cwd=None):
    # sys._base_executable: the Python a new machine has, outside of any environment
    return subprocess.run(
        [sys._base_executable, str(checkout / "scripts/run.py"), *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_set_up_then_start_at_once_then_renew(checkout, environment, tmp_path):
    first = run(checkout, environment, "r.yaml", "--torch", "-s", "a=b c", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    # Where it was called, the CPU build, and everything after the recipe as it was.
    assert first.stdout == f"{tmp_path} 1.0+cpu ['run', 'r.yaml', '--torch', '-s', 'a=b c']\n"
    assert all(line.startswith("set-up: ") for line in first.stderr.splitlines())
    assert "torch for cpu" in first.stderr

    second = run(checkout, environment, "r.yaml", cwd=tmp_path)
    assert (second.returncode, second.stderr) == (0, "")

    cuda = run(checkout, environment, "--torch", "cuda", "r.yaml", cwd=tmp_path)
    assert " 1.0 [" in cuda.stdout, cuda.stderr
    assert run(checkout, environment, "--torch=auto", "r.yaml").stderr == "", "auto takes what is"

    with (checkout / "constraints.txt").open("a") as file:
        file.write("# changed\n")
    assert "set-up: done" in run(checkout, environment, "r.yaml").stderr


def test_moved_checkout_and_lost_python_are_mended(checkout, environment, tmp_path):
    """An environment does not survive a move, for its scripts name the old place."""
    assert run(checkout, environment, "r.yaml").returncode == 0
    moved = checkout.rename(tmp_path / "moved")
    python = moved / ".venv/bin/python"
    python.unlink()
    python.symlink_to("/nowhere/python3")
    again = run(moved, environment, "r.yaml")
    assert again.returncode == 0, again.stderr
    assert "set-up: done" in again.stderr


def test_killed_set_up_is_repaired(checkout, environment):
    process = subprocess.Popen(
        [sys._base_executable, str(checkout / "scripts/run.py"), "r.yaml"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        assert "making .venv" in process.stderr.readline()
        time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    assert not (checkout / ".venv/set-up.json").exists()
    again = run(checkout, environment, "r.yaml")
    assert again.returncode == 0, again.stderr
    assert "cut short" in again.stderr


def test_unreachable_index_says_so(checkout, environment):
    del environment["PIP_NO_INDEX"]
    environment |= {
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_FIND_LINKS": "",
        "PIP_RETRIES": "1",
        "UV_HTTP_RETRIES": "0",
    }
    done = run(checkout, environment, "r.yaml")
    assert done.returncode == 1
    assert "hint: the package index cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_arguments_and_wrong_torch_are_usage_errors(checkout, environment):
    assert run(checkout, environment).returncode == 2
    wrong = run(checkout, environment, "--torch", "tpu", "r.yaml")
    assert (wrong.returncode, wrong.stderr) == (
        2,
        "error: --torch: one of auto, cpu, cuda: `tpu`\n",
    )
    assert not (checkout / ".venv").exists()


def test_pip_settings_reach_uv(module, tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = https://a.example/simple\ncert = /a.pem\n"
        "extra-index-url =\n  https://b.example/simple\n  https://c.example/simple\n"
        "[install]\nfind-links = /one /two\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    monkeypatch.setenv("PIP_CONSTRAINT", "/c.txt")
    mapped = module.uv_environment(module.read_pip_settings(), {"SSL_CERT_FILE": "/mine.pem"})
    expected = {
        "UV_DEFAULT_INDEX": "https://a.example/simple",
        "UV_INDEX": "https://b.example/simple https://c.example/simple",
        "UV_FIND_LINKS": "/one,/two",
        "UV_CONSTRAINT": "/c.txt",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "SSL_CERT_FILE": "/mine.pem",
    }
    assert {name: mapped[name] for name in expected} == expected
