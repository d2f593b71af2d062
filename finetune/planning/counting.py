"""What the training data amount to: exact where the model's tokenizer is on this machine."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from pathlib import Path

import msgspec

from finetune import tokens
from finetune.backends.local.model import check_vocabulary
from finetune.backends.local.schedule import count_passes
from finetune.catalog import STAND_INS, Model
from finetune.corpus import Dataset
from finetune.errors import DataError, UsageError
from finetune.files import open_bytes, read_lines
from finetune.methods import METHODS
from finetune.progress import Progress, silent
from finetune.recipe import Recipe
from finetune.records import ChatRecord, Compared, Record, decode
from finetune.tokens.answers import split_record

BYTES_PER_TOKEN = 4.0  # of ordinary English text; a guess for a tokenizer that is not here


class SourceCount(msgspec.Struct):
    """What one train file amounts to.

    `samples` counts what is trained once an epoch at weight 1; `expansion_tokens` are those added
    because conversations are trained turn by turn where one pass would not be faithful.
    """

    name: str
    weight: float
    records: int = 0
    samples: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    expansion_tokens: int = 0
    longest: int = 0
    too_long: int = 0
    dropped: int = 0
    shortened: int = 0
    unencodable: int = 0


class Counting(msgspec.Struct):
    """All sources, and how they were counted.

    Attributes:
        sources: One count a train file.
        lengths: Tokens of each sample, in the order of training data.
        weights: Sampling weight of each.
        passes: Which of them make up which epoch, see `schedule.plan_steps`.
        tokenizer: Name of the tokenizer that counted, None where bytes were divided.
        exact: It is the model's own.
        note: Where not exact: what the counts rest on.
    """

    sources: list[SourceCount]
    lengths: array[int]
    weights: array[float]
    passes: list[range]
    tokenizer: str | None
    exact: bool
    note: str


def count_dataset(
    recipe: Recipe,
    dataset: Dataset,
    model: Model | None,
    folder: Path | None,
    *,
    progress: Progress = silent,
) -> Counting:
    """Count the records of a dataset's train files.

    Args:
        recipe: Its `training.seq_len` and `data.too_long` decide what becomes of long samples.
        dataset: The prepared dataset.
        model: The catalog's row of the recipe's model, if there is one.
        folder: A folder that holds the model's tokenizer, if there is one on this machine.
        progress: Told of the records counted.

    Raises:
        UsageError: The tokenizer is not the one of the model's weights.
    """
    tokenizer, exact, note = _find_tokenizer(recipe.model, model, folder)
    if exact and tokenizer and folder and (folder / "config.json").is_file():
        check_vocabulary(folder, tokenizer)
    counter = _Counter(recipe, tokenizer, None if exact else _number(model))
    kind = METHODS[recipe.method].record
    counting = Counting(
        [], array("l"), array("d"), [], tokenizer.name if tokenizer else None, exact, note
    )
    total, wanted = sum(file.records for file in dataset.train), 1
    while len(counting.passes) < wanted:
        start, done = len(counting.lengths), 0
        sources = []
        for file in dataset.train:
            count = SourceCount(file.path.stem, file.weight)
            for record, size in _read(file.path, kind):
                lengths = counter.add(record, size, count, len(counting.passes))
                counting.lengths.extend(lengths)
                counting.weights.extend([file.weight] * len(lengths))
                done += 1
                if done % 500 == 0 or done == total:
                    progress("count", done, total)
            sources.append(count)
        counting.sources = counting.sources or sources  # what is told is the first pass
        counting.passes.append(range(start, len(counting.lengths)))
        if start == 0:
            wanted = count_passes(recipe, sum(counting.lengths)) if counting.lengths else 0
    return counting


def add_up(sources: list[SourceCount]) -> SourceCount:
    """Return the counts of all sources together; `longest` is that of all."""
    total = SourceCount("all", 1.0)
    for source in sources:
        for name in SourceCount.__struct_fields__[2:]:
            value = getattr(source, name)
            mine = getattr(total, name)
            setattr(total, name, max(mine, value) if name == "longest" else mine + value)
    return total


def _find_tokenizer(
    ref: str, model: Model | None, folder: Path | None
) -> tuple[tokens.Tokenizer | None, bool, str]:
    try:
        return tokens.load_tokenizer(folder or ref), True, ""
    except UsageError:
        pass
    version = model.tokenizer if model else None
    stand_in = STAND_INS.get(version or "")
    if stand_in is None:
        note = f"no tokenizer of `{ref}` on this machine: {BYTES_PER_TOKEN:.0f} bytes a token"
        return None, False, f"{note} is a guess"
    note = (
        f"the {version} tokenizer comes with the download: counted with {stand_in}, whose text "
        "tokens are alike and whose control tokens differ"
    )
    return tokens.load_tokenizer(stand_in), False, note


def _number(model: Model | None) -> int | None:
    """Return the number in a model's tokenizer version, such as 13 of `v13`."""
    digits = re.match(r"v(\d+)", (model and model.tokenizer) or "")
    return int(digits[1]) if digits else None


def _read(path: Path, kind: str) -> Iterator[tuple[Record, int]]:
    with open_bytes(path) as file:
        for line in read_lines(file):
            if line.data:
                yield decode(kind, line.data), line.size


class _Counter:
    """Counts records with a tokenizer: the model's own, one that stands for it, or none."""

    def __init__(
        self, recipe: Recipe, tokenizer: tokens.Tokenizer | None, stands_for: int | None
    ) -> None:
        self._recipe, self._limit = recipe, recipe.training.seq_len
        self._tokenizer, self._stands_for = tokenizer, stands_for

    def add(self, record: Record, size: int, count: SourceCount, epoch: int) -> list[int]:
        """Add a record to `count`, and return the lengths of the samples that are trained.

        Args:
            record: The record.
            size: Bytes of its line.
            count: Its source's count.
            epoch: Which pass over the data.
        """
        count.records += 1
        if self._tokenizer is None:
            length = max(1, round(size / BYTES_PER_TOKEN))
            _add(count, [length], length)
            count.too_long += length > self._limit
            return [length]
        try:
            samples = tokens.make_samples(self._tokenizer, record, self._recipe, epoch)
        except DataError:
            count.unencodable += 1
            return []
        long = sum(len(sample) > self._limit for sample in samples)
        if isinstance(record, Compared):
            long = min(long, 1)  # they are left out together
        if long and (policy := self._recipe.data.too_long) != "error":
            fit = tokens.fit(self._tokenizer, record, self._limit, policy, samples)
            samples = fit.samples
            count.dropped += fit.dropped
            count.shortened += fit.shortened
        count.too_long += long
        trained = sum(sample.count_trained() for sample in samples)
        if isinstance(record, Compared):
            return _add_answers(count, samples, trained)
        lengths = [len(sample) for sample in samples]
        if len(lengths) > 1 and self._is_one_pass(record):
            lengths = [max(lengths)]
        _add(count, lengths, trained)
        return lengths

    def _is_one_pass(self, record: Record) -> bool:
        """Tell whether the version that is stood for would train all of the record at once."""
        if self._stands_for is None or not isinstance(record, ChatRecord):
            return False
        return len(split_record(record, self._stands_for)) == 1


def _add(count: SourceCount, lengths: list[int], trained: int) -> None:
    count.samples += len(lengths)
    count.tokens += sum(lengths)
    count.trained_tokens += trained
    count.longest = max(count.longest, *lengths, 0)
    count.expansion_tokens += sum(lengths) - max(lengths, default=0)


def _add_answers(count: SourceCount, samples: list[tokens.Sample], trained: int) -> list[int]:
    """Add answers that are compared: they are trained as one."""
    sides: dict[int, list[int]] = {}
    for sample in samples:
        sides.setdefault(sample.side, []).append(len(sample))
    for lengths in sides.values():
        count.longest = max(count.longest, *lengths)
        count.expansion_tokens += sum(lengths) - max(lengths)
    total = sum(map(len, samples))
    count.samples += bool(samples)
    count.tokens += total
    count.trained_tokens += trained
    return [total] if samples else []
