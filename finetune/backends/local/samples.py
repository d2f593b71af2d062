"""Tokenized samples in compact form: read from records, made into tensors."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from finetune import files, records, tokens
from finetune.backends.local.vision import check_vision, collate_images
from finetune.errors import DataError
from finetune.methods import METHODS

if TYPE_CHECKING:
    from finetune.recipe import Recipe
    from finetune.tokens import Sample, Tokenizer
    from finetune.tokens.images import Picture


class Packed(NamedTuple):
    """A sample as arrays, about 8 bytes a token.

    Attributes:
        input_ids: Its tokens.
        rows: Positions whose next token is trained.
        targets: Those next tokens.
        weights: Loss weight of each target, or None where all are 1.
        images: Its images, in the order of their tokens.
    """

    input_ids: array[int]
    rows: array[int]
    targets: array[int]
    weights: array[float] | None
    images: tuple[Picture, ...] = ()

    @property
    def tokens(self) -> int:
        """Its tokens."""
        return len(self.input_ids)

    @property
    def items(self) -> float:
        """What the sample counts in the mean: its targets, by weight."""
        return float(len(self.targets)) if self.weights is None else sum(self.weights)


def read_samples(path: Path, recipe: Recipe, tokenizer: Tokenizer, epoch: int = 0) -> list[Packed]:
    """Return the samples of a file of records, at most `training.seq_len` tokens each.

    Samples without a trained token are left out, as they would weigh nothing.

    Raises:
        DataError: A record can't be encoded, or is too long and the recipe says `error`.
    """
    fitted = fit_records(path, recipe, tokenizer, epoch)
    return [packed for _, kept in fitted for packed in map(pack, kept) if packed.items]


def fit_records(
    path: Path, recipe: Recipe, tokenizer: Tokenizer, epoch: int = 0
) -> Iterator[tuple[records.Record, list[Sample]]]:
    """Yield each record of a file with its samples, see `read_samples`.

    Raises:
        DataError: See `read_samples`.
        UsageError: The data hold images that the model cannot see.
    """
    from finetune.backends.local.model import resolve_model

    decoder, seeing = records.decoder(METHODS[recipe.method].record), False
    with files.open_bytes(path) as file:
        for line in files.read_lines(file):
            try:
                record = decoder.decode(line.data or b"")
                kept = tokens.fit_record(tokenizer, record, recipe, epoch).samples
            except msgspec.DecodeError:
                fact = "not a record of this method"
                raise DataError(fact, file=str(path), line=line.number) from None
            except DataError as error:
                raise error.at(str(path), line.number) from None
            if not seeing and any(sample.images for sample in kept):
                check_vision(resolve_model(recipe.model), tokenizer)
                seeing = True
            yield record, kept


def pack(sample: Sample) -> Packed:
    """Return a sample in compact form.

    The first token is never a target: nothing comes before it.
    """
    labels = sample.labels
    rows = [place for place in range(len(labels) - 1) if labels[place + 1] != tokens.IGNORED]
    weights = None
    if sample.weights is not None:
        weights = array("f", [sample.weights[place + 1] for place in rows])
    targets = array("i", [labels[place + 1] for place in rows])
    ids, images = array("i", sample.input_ids), tuple(sample.images)
    return Packed(ids, array("i", rows), targets, weights, images)


def collate(samples: Sequence[Packed]) -> dict[str, Any]:
    """Lay samples end to end in one row without padding.

    Returns:
        `input_ids` and `position_ids` [1, tokens]; `borders` int32 [samples + 1]; `longest`
        sample in tokens; `rows`, `targets` and `weights` [n] of the trained positions (`weights`
        is None where all are 1); and what `vision.collate_images` makes of images, if there are.
    """
    import torch

    ids, places, rows, targets, weights = array("i"), array("i"), array("i"), array("i"), array("f")
    borders = [0]
    weighted = any(sample.weights is not None for sample in samples)
    for sample in samples:
        rows.extend(place + borders[-1] for place in sample.rows)
        targets.extend(sample.targets)
        if weighted:
            weights.extend(sample.weights or [1.0] * len(sample.targets))
        ids.extend(sample.input_ids)
        places.extend(range(len(sample.input_ids)))
        borders.append(len(ids))

    def long(values: array[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int64)

    images = [picture for sample in samples for picture in sample.images]
    return (collate_images(images) if images else {}) | {
        "input_ids": long(ids)[None],
        "position_ids": long(places)[None],
        "borders": torch.tensor(borders, dtype=torch.int32),
        "longest": max(len(sample.input_ids) for sample in samples),
        "rows": long(rows),
        "targets": long(targets),
        "weights": torch.tensor(weights, dtype=torch.float32) if weighted else None,
    }
