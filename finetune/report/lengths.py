"""How long the training records are, in tokens of the run's model."""

from __future__ import annotations

import bisect
import math
from typing import NamedTuple

from finetune.corpus import Dataset
from finetune.errors import DataError, FinetuneError
from finetune.files import open_bytes, read_lines
from finetune.methods import METHODS
from finetune.records import decode
from finetune.runs import Run
from finetune.tokens import load_tokenizer

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

    def percentile(self, share: float) -> int:
        """Return the length that `share` of the records do not exceed."""
        return self.counts[max(0, math.ceil(share * len(self.counts)) - 1)]

    def bins(self) -> list[tuple[int, int, int]]:
        """Return `(from, up to, records)` of bins that grow by √2."""
        low = int(2 * math.log2(max(1, self.counts[0])))
        high = int(2 * math.log2(max(1, self.counts[-1])))
        # A set, because the first powers of √2 round up to the same number.
        edges = sorted({math.ceil(2 ** (number / 2)) for number in range(low, high + 2)})
        places = [bisect.bisect_left(self.counts, edge) for edge in edges]
        return [
            (edges[i], edges[i + 1] - 1, places[i + 1] - places[i]) for i in range(len(edges) - 1)
        ]


def count_lengths(run: Run) -> Lengths:
    """Count the training records of a run, or say why that cannot be done here."""
    try:
        return _count(run)
    except FinetuneError as error:
        return Lengths([], 0, 0, missing=error.message)


def _count(run: Run) -> Lengths:
    recipe = run.recipe
    dataset = Dataset.load(run.dataset)
    tokenizer = load_tokenizer(recipe.model)
    kind = METHODS[recipe.method].record
    records = sum(file.records for file in dataset.train)
    every = max(1, math.ceil(records / MAX_RECORDS))
    chosen, number = [], 0
    for file in dataset.train:
        with open_bytes(file.path) as stream:
            for line in read_lines(stream):
                number += 1
                if number % every == 0 and line.data is not None:
                    chosen.append(decode(kind, line.data))
    counts, trained = [], 0
    for result in tokenizer.count_many(chosen):
        if isinstance(result, DataError):
            raise result
        counts.append(result[0])
        trained += result[1]
    return Lengths(sorted(counts), trained, records, None if counts else "no training records")
