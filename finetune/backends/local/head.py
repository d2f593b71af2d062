"""The head of a classifier: a score for each label of each target from one hidden state."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.nn import functional

from finetune.errors import UsageError
from finetune.files import read_json, to_json, write_atomic
from finetune.recipe.tree import ClassifierTarget

WEIGHTS, CONFIG = "classifier.safetensors", "classifier.json"

SCALE = 16.0  # length of the states that are read, as in NormFace (arXiv 1704.06369)

# Indices of a record's labels for each target in order; None where it has not the target.
Labels = Sequence[tuple[int, ...] | None]


class Head(torch.nn.Module):
    """Linear scores in float32, without bias, of hidden states of one length.

    All start at 0, where every label is as likely. A step of Adam moves all weights alike, and
    hidden states of wide models, or of models with large norms, would throw the scores about by
    what they have in common: at one length, a learning rate means the same for all of them.

    Args:
        targets: What is told, each with its labels and loss function.
        width: Of the hidden states.

    Attributes:
        targets: As given.
        classifier: The weights, [labels of all targets in order, width].
    """

    def __init__(self, targets: Sequence[ClassifierTarget], width: int) -> None:
        super().__init__()
        self.targets = list(targets)
        self.classifier = torch.nn.Parameter(torch.zeros(sum(self._sizes), width))

    @property
    def _sizes(self) -> list[int]:
        return [len(target.labels) for target in self.targets]

    def forward(self, states: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the scores of hidden states [n, width]: [n, labels] for each target."""
        with torch.autocast(states.device.type, enabled=False):
            scaled = SCALE * functional.normalize(states.float(), dim=1)
            scores = functional.linear(scaled, self.classifier.float())
        return torch.split(scores, self._sizes, dim=1)

    def probabilities(self, states: torch.Tensor) -> list[torch.Tensor]:
        """Return what the scores say, [n, labels] for each target.

        They add up to 1 over the labels of a `single_class` target; those of a `multi_class` one
        are each by itself.
        """
        return [
            scores.softmax(dim=1) if _is_single(target) else scores.sigmoid()
            for target, scores in zip(self.targets, self(states), strict=True)
        ]

    def loss(
        self, states: torch.Tensor, labels: Sequence[Labels]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the summed loss of hidden states, in nats, and sums for the log.

        Cross-entropy where a target has one label, the mean over its labels of binary
        cross-entropies where it has any number; added up over the targets by their weight. A
        record without a target adds nothing for it.

        Args:
            states: [n, width].
            labels: Those of each of the n records.
        """
        total = states.new_zeros((), dtype=torch.float32)
        figures: dict[str, torch.Tensor] = {}
        for place, scores in enumerate(self(states)):
            target = self.targets[place]
            kept = [row for row, values in enumerate(labels) if values[place] is not None]
            wanted = [values[place] or () for values in labels if values[place] is not None]
            measure = _single_loss if _is_single(target) else _multi_loss
            loss, right = measure(scores[kept], wanted)
            total = total + target.weight * loss
            figures[f"accuracy_{target.name}"] = right
            if len(self.targets) > 1:
                figures[f"loss_{target.name}"] = loss
        return total, figures


def _is_single(target: ClassifierTarget) -> bool:
    return target.loss_function == "single_class"


def _single_loss(
    scores: torch.Tensor, wanted: Sequence[tuple[int, ...]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the summed loss, and how many records are right."""
    indices = torch.tensor([label for (label,) in wanted], device=scores.device, dtype=torch.int64)
    loss = functional.cross_entropy(scores, indices, reduction="sum")
    return loss, (scores.argmax(dim=1) == indices).sum()


def _multi_loss(
    scores: torch.Tensor, wanted: Sequence[tuple[int, ...]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the summed loss, and how many records are right in all labels."""
    truth = torch.zeros_like(scores)
    for row, labels in enumerate(wanted):
        truth[row, list(labels)] = 1
    loss = functional.binary_cross_entropy_with_logits(scores, truth, reduction="sum")
    return loss / scores.shape[1], ((scores > 0) == (truth > 0)).all(dim=1).sum()


def save_head(head: Head, folder: Path) -> None:
    """Write the weights, and the targets beside them."""
    save_file({"classifier": head.classifier.detach().cpu().contiguous()}, folder / WEIGHTS)
    targets = [target.model_dump(mode="json") for target in head.targets]
    write_atomic(folder / CONFIG, to_json({"targets": targets}, indent=True))


def load_head(folder: Path) -> Head:
    """Return the head in the folder of an adapter, on the CPU.

    Raises:
        UsageError: There is none, or it is damaged.
    """
    if not (folder / WEIGHTS).is_file():
        raise UsageError(
            f"{folder}: no classifier here",
            hint="`method: classifier` in a recipe trains one",
        )
    try:
        config: dict[str, Any] = read_json(folder / CONFIG)
        targets = [ClassifierTarget.model_validate(one) for one in config["targets"]]
        weights = load_file(folder / WEIGHTS)["classifier"]
        head = Head(targets, weights.shape[1])
        head.load_state_dict({"classifier": weights})
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise UsageError(
            f"{folder}: this classifier cannot be read: {type(error).__name__}"
        ) from None
    return head.eval()
