"""Evaluation: held-out loss and task measures, base beside tuned on the same prompts."""

from __future__ import annotations

from finetune.evaluation.answers import Answer, Reference
from finetune.evaluation.evaluation import evaluate
from finetune.evaluation.intervals import Score, bootstrap
from finetune.evaluation.judge import open_judge
from finetune.evaluation.measures import MEASURES, compare

__all__ = [
    "MEASURES",
    "Answer",
    "Reference",
    "Score",
    "bootstrap",
    "compare",
    "evaluate",
    "open_judge",
]
