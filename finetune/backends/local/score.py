"""The loss of samples one by one, for measures that need to know which record it came from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from finetune.progress import Progress, silent

_IGNORED = -100
_CHUNK = 512  # positions whose logits exist at once


class Labelled(Protocol):
    """What a tokenizer makes of a record: ids, labels, and weights where one is not 1."""

    input_ids: list[int]
    labels: list[int]
    weights: list[float] | None


def score(
    model: Any, samples: Sequence[Labelled], *, progress: Progress = silent
) -> list[tuple[float, float]]:
    """Return each sample's summed loss (nats) and its trained tokens, both by weight.

    Logits are made at trained positions only, in float32.

    Args:
        model: A causal language model, with an adapter or not.
        samples: Each of at least one token.
        progress: Told how many samples are scored.
    """
    import torch

    decoder, head = model.get_decoder(), model.get_output_embeddings()
    device, training = head.weight.device, model.training
    model.eval()
    scores: list[tuple[float, float]] = []
    with torch.inference_mode():
        for sample in samples:
            progress("score", len(scores), len(samples))
            rows = [row for row, label in enumerate(sample.labels[1:]) if label != _IGNORED]
            ids = torch.tensor([sample.input_ids], device=device)
            hidden = decoder(input_ids=ids, use_cache=False).last_hidden_state[0]
            total = count = 0.0
            for start in range(0, len(rows), _CHUNK):
                part = rows[start : start + _CHUNK]
                logits = head(hidden[part]).float()
                targets = ids[0, [row + 1 for row in part]]
                losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
                weights = [sample.weights[row + 1] if sample.weights else 1.0 for row in part]
                total += losses.double().cpu().dot(torch.tensor(weights).double()).item()
                count += sum(weights)
            scores.append((total, count))
    model.train(training)
    progress("score", len(scores), len(samples))
    return scores
