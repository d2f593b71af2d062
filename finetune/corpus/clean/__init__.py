"""Cleaning: filters, decontamination, near duplicates, caps and balance.

What can be told from a record alone is told where the record is made, in any process: `Filters`,
`Contamination`, `sign`. What depends on all records is settled at the end, from small facts.
"""

from __future__ import annotations

from finetune.corpus.clean.contamination import Contamination
from finetune.corpus.clean.filters import Filters
from finetune.corpus.clean.near import SIGNATURE_BYTES, sign
from finetune.corpus.clean.settlement import Facts, Removal, Settlement, Warned, labels_of, settle

__all__ = [
    "SIGNATURE_BYTES",
    "Contamination",
    "Facts",
    "Filters",
    "Removal",
    "Settlement",
    "Warned",
    "labels_of",
    "settle",
    "sign",
]
