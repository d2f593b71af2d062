"""Classifiers: labels for texts and conversations, from the mean of their hidden states.

Adapter and head are trained together. Texts lie end to end as in every method, none sees another,
and no scores over the vocabulary are computed.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from finetune import tokens
from finetune.backends.local.base import check_adapter
from finetune.backends.local.lora import add_adapter
from finetune.backends.local.model import load_adapter, load_model, resolve_model
from finetune.backends.local.samples import fit_records
from finetune.backends.local.task import Task, fill_rows, move
from finetune.backends.local.training import tune
from finetune.corpus.labels import fill_targets, labels_of
from finetune.errors import DataError
from finetune.progress import Progress, silent
from finetune.records import ClassifierRecord

if TYPE_CHECKING:
    import torch

    from finetune.backends.local.head import Head
    from finetune.corpus import Dataset
    from finetune.recipe import Recipe
    from finetune.runs import Run
    from finetune.tokens import Tokenizer

Scores = dict[str, dict[str, float]]
"""Target → label → how likely it is, 0 to 1."""

_ROW_TOKENS = 4096  # computed at once


class Labelled(NamedTuple):
    """A text or a conversation with its labels.

    Attributes:
        input_ids: Its tokens.
        labels: Indices of its labels for each target in order, None for one that it has not.
    """

    input_ids: array[int]
    labels: tuple[tuple[int, ...] | None, ...]

    @property
    def tokens(self) -> int:
        """Its tokens."""
        return len(self.input_ids)

    @property
    def items(self) -> float:
        """Each counts the same."""
        return 1.0


def train(run: Run, recipe: Recipe, dataset: Dataset, *, progress: Progress = silent) -> None:
    """Train a classifier; see `training.tune`.

    Raises:
        DataError: The labels of the records cannot be trained, see `labels.fill_targets`.
        RecipeError: The recipe names a target that no record has.
    """
    recipe = fill_targets(recipe, dataset)
    targets = [target.model_dump(mode="json") for target in recipe.training.classifier_targets]
    run.event("targets", targets=targets)
    tune(TASK, run, recipe, dataset, progress=progress)


def read_labelled(
    path: Path, recipe: Recipe, tokenizer: Tokenizer, _epoch: int = 0
) -> list[Labelled]:
    """Return the items of a file of records, at most `training.seq_len` tokens each.

    Args:
        path: JSONL of a classifier's records.
        recipe: Its targets are filled in.
        tokenizer: The model's.

    Raises:
        DataError: A record can't be encoded, or is too long and the recipe says `error`.
    """
    places = [
        (target.name, {label: place for place, label in enumerate(target.labels)})
        for target in recipe.training.classifier_targets
    ]
    items: list[Labelled] = []
    for record, kept in fit_records(path, recipe, tokenizer):
        assert isinstance(record, ClassifierRecord)  # noqa: S101 (what the method trains)
        labels = tuple(
            tuple(sorted({index[label] for label in labels_of(record, name)}))
            if name in record.labels
            else None
            for name, index in places
        )
        items += [Labelled(array("i", sample.input_ids), labels) for sample in kept]
    return items


def collate(items: Sequence[Labelled]) -> dict[str, Any]:
    """Lay items end to end in one row without padding.

    Returns:
        `input_ids` and `position_ids` [1, tokens]; `borders` int32 [items + 1]; `longest` item in
        tokens; `rows`, where the tokens stand that are read: all but the first of an item, which
        begins a sequence and says nothing; `counts` how many those are of each; `labels` of each.
    """
    import torch

    lengths = [len(item.input_ids) for item in items]
    counts = [max(1, length - 1) for length in lengths]
    ids = [token for item in items for token in item.input_ids]
    borders = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    return {
        "input_ids": torch.tensor(ids)[None],
        "position_ids": torch.cat([torch.arange(length) for length in lengths])[None],
        "borders": borders,
        "longest": max(lengths),
        "rows": torch.cat(
            [torch.arange(end - count, end) for end, count in zip(borders[1:], counts, strict=True)]
        ),
        "counts": counts,
        "labels": [item.labels for item in items],
    }


def classify(
    model: Any,
    head: Head,
    items: Sequence[Sequence[int]],
    *,
    batch_tokens: int = _ROW_TOKENS,
    progress: Progress = silent,
) -> list[Scores]:
    """Return the scores of tokenized texts and conversations, in the given order.

    For the time of the call the model attends within samples and is in evaluation mode: no other
    thread may use it.

    Args:
        model: The base with the classifier's adapter in force.
        head: The classifier's, see `head.load_head`; it is moved to the model's device.
        items: Ids as `Tokenizer.encode_input` gives them; none is empty.
        batch_tokens: Most tokens computed at once; a longer item is computed alone.
        progress: Told how many items are classified.

    Example:
        >>> classify(model, load_head(run.adapter), [sample.input_ids])      # doctest: +SKIP
        [{'topic': {'billing': 0.98, 'delivery': 0.02}}]
    """
    import torch

    from finetune.backends.local.attention import attend_within

    device = model.get_output_embeddings().weight.device
    training = model.training
    model.eval()
    head.to(device)
    packed = [Labelled(array("i", ids), ()) for ids in items]
    scores: list[Scores] = []
    progress("classify", 0, len(packed))
    with torch.inference_mode(), attend_within(model):
        for row in fill_rows(packed, batch_tokens):
            batch = move(collate(row), device)
            found = [part.tolist() for part in head.probabilities(_pool(model, batch))]
            scores += [_name(head, values) for values in zip(*found, strict=True)]
            progress("classify", len(scores), len(packed))
    model.train(training)
    return scores


class Classifier:
    """A tuned classifier, ready to work.

    Args:
        recipe: The recipe of a run: it names the base and its numbers.
        adapter: The folder that the run trained.
        progress: Told while the model is built or fetched.

    Attributes:
        head: Its head, with the targets.

    Raises:
        UsageError: The model or the classifier is not there, or they do not belong together.
    """

    def __init__(self, recipe: Recipe, adapter: Path, *, progress: Progress = silent) -> None:
        from finetune.backends.local.head import load_head

        check_adapter(adapter, recipe.model)
        self.head = load_head(adapter)
        folder = resolve_model(recipe.model, progress=progress)
        self._tokenizer = tokens.load_tokenizer(folder)
        base = load_model(folder, dtype=recipe.local.dtype, quantize=recipe.local.quantize)
        self._model = load_adapter(base, adapter)
        self._limit, self._policy = recipe.training.seq_len, recipe.data.too_long

    def encode(self, record: ClassifierRecord) -> list[int]:
        """Return the ids of a text or conversation, shortened where the recipe says so.

        Raises:
            DataError: It cannot be encoded, or is longer than what was trained.
        """
        fitted = tokens.fit(self._tokenizer, record, self._limit, self._policy)
        if not fitted.samples:
            raise DataError(f"too long: at most {self._limit:,} tokens", rule="too-long")
        return fitted.samples[0].input_ids

    def classify(
        self, items: Sequence[Sequence[int]], *, progress: Progress = silent
    ) -> list[Scores]:
        """Return the scores of what `encode` gave; see `classify`."""
        return classify(self._model, self.head, items, progress=progress)


def _name(head: Head, values: Sequence[Sequence[float]]) -> Scores:
    return {
        target.name: dict(zip(target.labels, scores, strict=True))
        for target, scores in zip(head.targets, values, strict=True)
    }


def _prepare(model: Any, recipe: Recipe) -> Any:
    """Return the model with a fresh adapter, and a fresh head as `head`."""
    from finetune.backends.local.head import Head

    adapted = add_adapter(model, recipe.local.lora, seed=recipe.seed, reference=recipe.model)
    width = model.config.get_text_config().hidden_size
    head = Head(recipe.training.classifier_targets, width)
    adapted.head = head.to(model.get_output_embeddings().weight.device)
    return adapted


def _pool(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Return the mean hidden state of each item in float32: [items, width]."""
    import torch

    from finetune.backends.local.loss import trained_states

    parts = torch.split(trained_states(model, batch).float(), batch["counts"])
    return torch.stack([part.mean(dim=0) for part in parts])


def _loss(model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    states = _pool(model, batch)
    found: tuple[torch.Tensor, dict[str, torch.Tensor]] = model.head.loss(states, batch["labels"])
    return found


def _save(model: Any, folder: Path) -> None:
    from finetune.backends.local.head import save_head

    save_head(model.head, folder)


def _load(model: Any, folder: Path) -> None:
    from finetune.backends.local.head import load_head

    model.head.load_state_dict(load_head(folder).state_dict())


TASK = Task(
    read=read_labelled, collate=collate, loss=_loss, prepare=_prepare, save=_save, load=_load
)
