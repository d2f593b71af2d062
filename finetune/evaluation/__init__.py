"""Evaluation: held-out loss and task measures, base beside tuned on the same prompts."""

from __future__ import annotations

from finetune.evaluation.evaluation import evaluate
from finetune.evaluation.intervals import Score, bootstrap
from finetune.evaluation.measures import MEASURES, compare

__all__ = ["MEASURES", "Score", "bootstrap", "compare", "evaluate"]
