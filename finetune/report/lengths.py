"""How long the training records are, in tokens of the recipe's model."""

from __future__ import annotations

import bisect
import itertools
import math
from typing import Any, NamedTuple

from finetune.checks.profile import PERCENTILES, bins, percentile
from finetune.corpus import Dataset
from finetune.errors import DataError, FinetuneError
from finetune.files import open_bytes, read_lines
from finetune.methods import METHODS
from finetune.recipe import Recipe
from finetune.records import Compared, Record, decode
from finetune.tokens import load_tokenizer
from finetune.tokens.sides import make_conversations

MAX_RECORDS = 10_000  # more are sampled evenly: the picture stays the same


class Lengths(NamedTuple):
    """Tokens of training records.

    Attributes:
        counts: Tokens of each counted record, ascending.
        trained: Trained tokens of all of them.
        records: How many records there are; more than `counts` has where they were sampled.
        missing: Why nothing was counted, else None.
    """

    counts: list[int]
    trained: int
    records: int
    missing: str | None = None

    def cut(self, seq_len: int) -> tuple[int, int]:
        """Return how many counted records are longer than `seq_len`, and by how many tokens."""
        longer = self.counts[bisect.bisect_right(self.counts, seq_len) :]
        return len(longer), sum(longer) - seq_len * len(longer)

    def to_dict(self, seq_len: int) -> dict[str, Any]:
        """Return the figures as plain values; `{"missing"}` where nothing was counted."""
        if self.missing:
            return {"missing": self.missing}
        over, lost = self.cut(seq_len)
        return {
            "records": self.records,
            "counted": len(self.counts),
            "tokens": sum(self.counts),
            "trained_tokens": self.trained,
            **{name: percentile(self.counts, share) for name, share in PERCENTILES},
            "over_seq_len": over,
            "tokens_over": lost,
            "histogram": bins(self.counts),
        }


def count_lengths(recipe: Recipe, dataset: Dataset | None) -> Lengths:
    """Count the training records of a dataset, or say why that cannot be done here."""
    if dataset is None:
        return Lengths([], 0, 0, missing="the dataset is not where the run left it")
    try:
        return _count(recipe, dataset)
    except FinetuneError as error:
        return Lengths([], 0, 0, missing=error.message)


def _count(recipe: Recipe, dataset: Dataset) -> Lengths:
    tokenizer = load_tokenizer(recipe.model)
    kind = METHODS[recipe.method].record
    records = sum(file.records for file in dataset.train)
    every = max(1, math.ceil(records / MAX_RECORDS))
    chosen: list[list[Record]] = []
    number = 0
    for file in dataset.train:
        with open_bytes(file.path) as stream:
            for line in read_lines(stream):
                number += 1
                if number % every == 0 and line.data is not None:
                    record = decode(kind, line.data)
                    chosen.append(
                        list(make_conversations(record).values())
                        if isinstance(record, Compared)
                        else [record]
                    )
    counts, trained = [], 0
    results = iter(tokenizer.count_many([part for parts in chosen for part in parts]))
    for parts in chosen:
        sizes = []
        for result in itertools.islice(results, len(parts)):
            if isinstance(result, DataError):
                raise result
            sizes.append(result)
        counts.append(max(sizes)[0])  # of answers that are compared, the longest
        trained += max(sizes)[1]
    return Lengths(sorted(counts), trained, records, None if counts else "no training records")
