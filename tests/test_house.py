"""What holds for the whole of the code: the ladder, the checkers, the sizes, the public names."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import finetune

ROOT = Path(__file__).parent.parent
CODE = sorted([*ROOT.glob("finetune/**/*.py"), *ROOT.glob("scripts/*.py")])
HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "pyarrow", "mistral_common", "rich")


def check(*command: str) -> None:
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("-m", "ruff", "check", "."),
        ("-m", "ruff", "format", "--check", "."),
        ("-m", "mypy"),
        ("-m", "mypy", "scripts/environment.py"),
        ("-c", "import sys; from importlinter.cli import lint_imports as f; sys.exit(f())"),
    ],
    ids=["ruff check", "ruff format", "mypy", "mypy scripts", "ladder"],
)
def test_checker_is_content(command):
    check(*command)


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_functions_stay_small(path):
    source = path.read_text(encoding="utf-8")
    assert source.count("\n") <= 400, "make it a folder of the same name"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 60, f"{node.name} has {length} lines: split it"


def test_importing_the_package_loads_nothing_heavy():
    check(
        "-c",
        "import sys, finetune, finetune.cli;"
        f"loaded = sys.modules.keys() & set({HEAVY!r});"
        "sys.exit(f'loaded: {loaded}' if loaded else 0)",
    )


def test_public_names_resolve_and_are_all_there_is():
    assert sorted(finetune.__all__) == finetune.__all__
    for name in finetune.__all__:
        assert getattr(finetune, name).__doc__, name
    with pytest.raises(AttributeError):
        _ = finetune.no_such_name


def test_changelog_begins_with_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    top = re.search(r"^## \[(.+?)\]", text, re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert top
    assert top[1] == finetune.__version__ == project["version"]


def test_every_requirement_is_pinned():
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import environment
    finally:
        sys.path.pop(0)
    pins = environment.pins()
    for requirement in [*environment.requirements(), environment.BARE]:
        name = re.split(r"[\[<>=~! ]", requirement)[0].lower().replace(".", "-")
        assert name in pins, requirement
    assert not any("+" in version for version in pins.values()), "only public versions"
