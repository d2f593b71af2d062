"""The corpus: sources → rows → records → dataset. The one reader of raw data files."""

from __future__ import annotations

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
