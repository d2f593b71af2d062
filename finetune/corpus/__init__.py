"""The corpus: sources → rows → records → dataset. The one reader of raw data files."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finetune.corpus.account import Account
    from finetune.corpus.conversion import Conversion, Converted, Reading, convert_files
    from finetune.corpus.dataset import Dataset, TrainFile
    from finetune.corpus.preparation import prepare
    from finetune.corpus.sources import SourceFile, find_files

__all__ = [
    "Account",
    "Conversion",
    "Converted",
    "Dataset",
    "Reading",
    "SourceFile",
    "TrainFile",
    "convert_files",
    "find_files",
    "prepare",
]

# Found when they are asked for: a worker process needs few of them, and starts sooner.
_HOMES = {
    "Account": "account",
    "Conversion": "conversion",
    "Converted": "conversion",
    "Dataset": "dataset",
    "Reading": "conversion",
    "SourceFile": "sources",
    "TrainFile": "dataset",
    "convert_files": "conversion",
    "find_files": "sources",
    "prepare": "preparation",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'finetune.corpus' has no attribute {name!r}")
    return getattr(importlib.import_module(f"finetune.corpus.{_HOMES[name]}"), name)
