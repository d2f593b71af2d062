"""Rewards: how much more likely answers became than they were before training.

The reference is what the model says before its first step, measured once. So no second model is
held, adapters of any kind and full tuning are alike, and a run that goes on measures the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from finetune.backends.local.samples import Packed, collate, pack
from finetune.backends.local.task import fill_rows, move
from finetune.progress import Progress, silent

if TYPE_CHECKING:
    import torch

    from finetune.tokens import Sample

_ROW_TOKENS = 4096  # computed at once; the same in every run, so that a reference is too


class Answer(NamedTuple):
    """An answer after its prompt.

    Attributes:
        samples: One, or one for each message where a single pass would not be faithful.
    """

    samples: tuple[Packed, ...]

    @property
    def tokens(self) -> int:
        """Tokens of all its samples."""
        return sum(sample.tokens for sample in self.samples)

    @property
    def items(self) -> float:
        """An answer is one item."""
        return 1.0

    @property
    def trained(self) -> int:
        """Tokens of the answer itself."""
        return sum(len(sample.targets) for sample in self.samples)


def read_answers(samples: Sequence[Sample]) -> list[Answer]:
    """Return the answers that a record compares, the better one first; none where it has none."""
    count = 1 + max((sample.side for sample in samples), default=-1)
    return [
        Answer(tuple(pack(sample) for sample in samples if sample.side == side))
        for side in range(count)
    ]


def collate_answers(answers: Sequence[Answer]) -> dict[str, Any]:
    """Lay answers end to end, see `samples.collate`; `counts` are the trained tokens of each."""
    batch = collate([sample for answer in answers for sample in answer.samples])
    return batch | {"counts": [answer.trained for answer in answers]}


def sum_log_probs(model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the log-probability (nats) of each answer of a batch, and the batch's router loss.

    Args:
        model: See `loss.packed_loss`.
        batch: See `collate_answers`.

    Returns:
        float32 [answers], and what `loss.routed_states` has beside the states.
    """
    import torch

    from finetune.backends.local.loss import head_losses, routed_states, with_head

    def score(head: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        return head_losses(hidden, head, batch["targets"])

    states, router = routed_states(model, batch)
    losses = with_head(model, score, states)
    if batch["weights"] is not None:
        losses = losses * batch["weights"]
    return -torch.stack([part.sum() for part in torch.split(losses, batch["counts"])]), router


def measure_log_probs(
    model: Any, answers: Sequence[Answer], *, progress: Progress = silent
) -> list[float]:
    """Return the log-probability (nats) of each answer, as the model is now, without dropout.

    Args:
        model: A model whose attention is its own; in training mode again afterwards if it was.
        answers: Any number.
        progress: Told of the answers measured.
    """
    from finetune.backends.local.attention import attend_within

    training = model.training
    model.eval()
    found: list[float] = []
    with attend_within(model):
        for values in _measure(model, answers):
            found += values
            progress("reference", len(found), len(answers))
    model.train(training)
    return found


def _measure(model: Any, answers: Sequence[Answer]) -> Iterator[list[float]]:
    import torch

    head = model.get_output_embeddings().weight
    half = head.dtype == torch.bfloat16
    with torch.no_grad(), torch.autocast(head.device.type, torch.bfloat16, enabled=half):
        for row in fill_rows(answers, _ROW_TOKENS):
            batch = move(collate_answers(row), head.device)
            yield sum_log_probs(model, batch)[0].tolist()
