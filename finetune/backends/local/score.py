"""The loss of samples one by one, for measures that need to know which record it came from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from finetune.progress import Progress, silent

if TYPE_CHECKING:
    import torch

    from finetune.backends.local.samples import Packed
    from finetune.tokens import Sample

_ROW_TOKENS = 2048  # tokens computed at once


def score(
    model: Any, samples: Sequence[Sample], *, progress: Progress = silent
) -> list[tuple[float, float]]:
    """Return each sample's summed loss (nats) and its trained tokens, both by weight.

    Samples lie end to end as in training, none sees another, and the scores of some hundred
    trained positions exist at a time, in float32. A model whose class cannot be told where
    samples end is given one at a time.

    Args:
        model: A causal language model, with an adapter or not.
        samples: Each of at least one token.
        progress: Told how many samples are scored.
    """
    import torch

    from finetune.backends.local.samples import pack
    from finetune.backends.local.task import fill_rows

    training = model.training
    model.eval()
    scores: list[tuple[float, float]] = []
    packed = [pack(sample) for sample in samples]
    progress("score", 0, len(packed))
    with torch.inference_mode(), _attention(model) as together:
        for row in fill_rows(packed, _ROW_TOKENS if together else 0):
            scores += _score_row(model, row, together=together)
            progress("score", len(scores), len(packed))
    model.train(training)
    return scores


@contextlib.contextmanager
def _attention(model: Any) -> Iterator[bool]:
    """Let the model attend within samples; False where its class does not know how."""
    if not getattr(model, "_supports_attention_backend", False):
        yield False
        return
    from finetune.backends.local.attention import attend_within

    with attend_within(model):
        yield True


def _score_row(
    model: Any, samples: Sequence[Packed], *, together: bool
) -> list[tuple[float, float]]:
    import torch

    from finetune.backends.local.loss import trained_states
    from finetune.backends.local.samples import collate
    from finetune.backends.local.task import move

    head = model.get_output_embeddings()
    batch = move(collate(samples), head.weight.device)
    if together:
        hidden = trained_states(model, batch)
    else:
        states = model.get_decoder()(input_ids=batch["input_ids"], use_cache=False)
        hidden = states.last_hidden_state[0].index_select(0, batch["rows"])
    losses = _token_losses(head, hidden, batch["targets"]).double().cpu()
    scores, start = [], 0
    for sample in samples:
        part = losses[start : start + len(sample.targets)]
        weights = torch.tensor(sample.weights or [1.0] * len(sample.targets)).double()
        scores.append((part.dot(weights).item(), sample.items))
        start += len(sample.targets)
    return scores


def _token_losses(head: Any, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    import torch

    from finetune.backends.local.loss import CHUNK

    losses = torch.empty(len(targets), device=hidden.device)
    for start in range(0, len(targets), CHUNK):
        part = slice(start, start + CHUNK)
        logits = head(hidden[part]).float()
        losses[part] = torch.nn.functional.cross_entropy(logits, targets[part], reduction="none")
    return losses
