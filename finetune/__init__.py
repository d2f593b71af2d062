"""Prepare data and fine-tune Mistral models, on La Plateforme or on your own machine.

The names of `__all__` are the public surface. They are resolved on first use, so that importing
this package loads nothing heavy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finetune.checks import Report, validate
    from finetune.corpus import Dataset
    from finetune.errors import FinetuneError
    from finetune.pipeline import plan, prepare, run
    from finetune.recipe import Recipe, load_recipe
    from finetune.runs import Run

__version__ = "0.1.0"
__all__ = [
    "Dataset",
    "FinetuneError",
    "Recipe",
    "Report",
    "Run",
    "load_recipe",
    "plan",
    "prepare",
    "run",
    "validate",
]

_HOMES = {
    "Dataset": "finetune.corpus",
    "FinetuneError": "finetune.errors",
    "Recipe": "finetune.recipe",
    "Report": "finetune.checks",
    "Run": "finetune.runs",
    "load_recipe": "finetune.recipe",
    "plan": "finetune.pipeline",
    "prepare": "finetune.pipeline",
    "run": "finetune.pipeline",
    "validate": "finetune.checks",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'finetune' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
