"""The wheel: built, installed into an empty environment, and used there."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def run(*command, cwd, **variables):
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    return next(folder.glob("*.whl"))


def test_wheel_holds_recipes_and_schemas(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("recipes", "data_schemas"):
        tracked = run("git", "ls-files", folder, cwd=ROOT).splitlines()
        assert tracked
        assert {f"finetune/shipped/{name}" for name in tracked} <= names
    assert {"finetune/py.typed", "finetune/evaluation/general.jsonl"} <= names
    assert not any(name.startswith(("tests/", "scripts/", "docs/")) for name in names)


@pytest.fixture
def empty(wheel, tmp_path):
    """An environment with the wheel and what it asks for, none of the extras; no index needed."""
    folder = tmp_path / "empty"
    run(sys.executable, "-m", "venv", folder, cwd=tmp_path)
    pip = [folder / "bin/python", "-m", "pip", "install", "--no-index", "--no-deps"]
    run(*pip, wheel, cwd=tmp_path, PYTHONPATH="")
    site = next(folder.glob("lib/python*/site-packages"))
    for distribution in needed(PROJECT["dependencies"]):
        for file in distribution.files:
            if ".." not in file.parts and "__pycache__" not in file.parts:
                (site / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(distribution.locate_file(file), site / file)
    yield folder
    shutil.rmtree(folder)


def needed(requirements):
    """Return the installed distributions behind `requirements`, and those behind them."""
    found, waiting = {}, [(Requirement(text), set()) for text in requirements]
    while waiting:
        requirement, extras = waiting.pop()
        name = requirement.name.lower()
        wanted = any(
            requirement.marker is None or requirement.marker.evaluate({"extra": extra})
            for extra in extras | {""}
        )
        if not wanted or (name, frozenset(requirement.extras)) in found:
            continue
        distribution = importlib.metadata.distribution(name)
        found[name, frozenset(requirement.extras)] = distribution
        waiting += [(Requirement(text), requirement.extras) for text in distribution.requires or []]
    return found.values()


def test_wheel_works_in_an_empty_environment(empty, tmp_path):
    def finetune(*arguments):
        return run(empty / "bin/finetune", *arguments, cwd=tmp_path, PYTHONPATH="")

    assert "Prepare, check, train, evaluate and report." in finetune("--help")
    assert "quickstart" in finetune("recipes")
    finetune("recipes", "copy", "quickstart")
    assert (tmp_path / "quickstart.yaml").exists()
    load = "import finetune; print(finetune.load_recipe('quickstart.yaml').name)"
    assert run(empty / "bin/python", "-c", load, cwd=tmp_path, PYTHONPATH="") == "quickstart\n"
