"""What the documentation shows is true."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from finetune import load_recipe
from finetune.cli import COMMANDS
from finetune.methods import METHODS
from finetune.pipeline import BACKENDS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]
README = PAGES[0].read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_python_example_runs(monkeypatch, tmp_path, capsys):
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})

    assert re.fullmatch(r"\d+ \d+\n", capsys.readouterr().out)


def test_the_recipe_loads(tmp_path):
    (block,) = blocks("yaml")
    path = tmp_path / "recipe.yaml"
    path.write_text(block, encoding="utf-8")

    assert load_recipe(path).model == "ministral-3-8b"


def test_the_two_commands_are_there():
    for command in re.findall(r"^python3 (scripts/\S+)", README, re.MULTILINE):
        assert (ROOT / command).is_file()
    assert "scripts/test.py" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_and_command_leads_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (page.parent / link).exists(), link
    for name in re.findall(r"`finetune ([a-z]+)", text):
        assert name in COMMANDS, name


def test_every_command_stands_in_the_readme():
    missing = [name for name in COMMANDS if not re.search(rf"\b{name}\b", README)]
    assert missing == []


@pytest.mark.parametrize(
    "target", [*BACKENDS.values(), *(m.local for m in METHODS.values() if m.local)]
)
def test_what_the_tables_name_is_there(target):
    module, function = target.split(":")
    assert callable(getattr(importlib.import_module(module), function))
