"""The one door for settings: recipe YAML → `Recipe`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finetune.recipe.load import load_recipe
    from finetune.recipe.tree import Recipe, Source

__all__ = ["Recipe", "Source", "load_recipe"]

# Found when they are asked for: a command that takes no recipe starts sooner.
_HOMES = {"Recipe": "tree", "Source": "tree", "load_recipe": "load"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'finetune.recipe' has no attribute {name!r}")
    return getattr(importlib.import_module(f"finetune.recipe.{_HOMES[name]}"), name)
