"""The one door for settings: recipe YAML → `Recipe`."""

from __future__ import annotations

from finetune.recipe.load import load_recipe
from finetune.recipe.tree import Recipe, Source

__all__ = ["Recipe", "Source", "load_recipe"]
