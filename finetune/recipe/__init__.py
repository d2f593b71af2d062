"""The one door for settings: recipe YAML → `Recipe`."""

from __future__ import annotations

from finetune.recipe.tree import Recipe

__all__ = ["Recipe"]
