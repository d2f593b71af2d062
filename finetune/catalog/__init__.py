"""Dated facts: models, tokenizers, licences, limits and prices. One place, no I/O.

Example:
    >>> find_model("mistral-nemo").hub_id
    'mistralai/Mistral-Nemo-Instruct-2407'
    >>> suggest_model("mistral-nemmo")
    'did you mean `mistral-nemo`?'
"""

from __future__ import annotations

from finetune.catalog.devices import find_peak
from finetune.catalog.models import LICENCES, MODELS, Licence, Model
from finetune.catalog.platform import HOST, LIMITS, MONEY, PRIVACY, STEP_TOKENS_SEEN, Fact
from finetune.catalog.shape import Shape, find_obstacle, read_context, read_shape
from finetune.catalog.tokenizers import SHIPPED, STAND_INS, shipped_file
from finetune.text import did_you_mean

__all__ = [
    "HOST",
    "LICENCES",
    "LIMITS",
    "MODELS",
    "MONEY",
    "PRIVACY",
    "SHIPPED",
    "STAND_INS",
    "STEP_TOKENS_SEEN",
    "Fact",
    "Licence",
    "Model",
    "Shape",
    "find_model",
    "find_obstacle",
    "find_peak",
    "read_context",
    "read_shape",
    "shipped_file",
    "suggest_model",
]

_BY_REF = {ref: model for model in MODELS for ref in (model.name, model.hub_id) if ref}


def find_model(ref: str) -> Model | None:
    """Return the model with this catalog name or hub id, None where the catalog has none."""
    return _BY_REF.get(ref)


def suggest_model(ref: str) -> str | None:
    """Return the hint for a model that was probably misspelt, else None."""
    return did_you_mean(ref, _BY_REF)
