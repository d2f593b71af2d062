"""Direct preference optimization: the better answer gains on the worse one.

The loss of a pair is `-log sigmoid(beta * margin)`, where the margin is by how much more the
better answer gained in log-probability than the worse one (Rafailov et al. 2023, equation 7; the
`sigmoid` loss of TRL).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from finetune.backends.local.rewards import (
    Answer,
    collate_answers,
    measure_log_probs,
    read_answers,
    sum_log_probs,
)
from finetune.backends.local.samples import fit_records
from finetune.backends.local.sft import TASK as SFT
from finetune.backends.local.task import Task
from finetune.backends.local.training import tune
from finetune.progress import Progress, silent

if TYPE_CHECKING:
    import torch

    from finetune.corpus import Dataset
    from finetune.recipe import Recipe
    from finetune.runs import Run
    from finetune.tokens import Tokenizer


class Pair(NamedTuple):
    """Two answers after the same prompt.

    Attributes:
        chosen: The better one.
        rejected: The worse one.
        reference: Log-probability (nats) of both before training.
    """

    chosen: Answer
    rejected: Answer
    reference: tuple[float, float] = (0.0, 0.0)

    @property
    def tokens(self) -> int:
        """Tokens of both, prompts included."""
        return self.chosen.tokens + self.rejected.tokens

    @property
    def items(self) -> float:
        """A pair is one item."""
        return 1.0


def train(run: Run, recipe: Recipe, dataset: Dataset, *, progress: Progress = silent) -> None:
    """Train on pairs of answers; see `training.tune`."""
    tune(make_task(recipe.local.beta), run, recipe, dataset, progress=progress)


def make_task(beta: float) -> Task:
    """Return the method; `beta` is how strongly it holds to the model as it was."""
    return Task(
        read=read_pairs,
        collate=_collate,
        loss=partial(_loss, beta=beta),
        prepare=SFT.prepare,
        refer=refer,
    )


def read_pairs(path: Path, recipe: Recipe, tokenizer: Tokenizer, epoch: int = 0) -> list[Pair]:
    """Return the pairs of a file of records, no sample above `training.seq_len` tokens.

    Raises:
        DataError: A record can't be encoded, its answers become the same tokens, or it is too
            long and the recipe says `error`.
    """
    fitted = fit_records(path, recipe, tokenizer, epoch)
    sides = [read_answers(samples) for _, samples in fitted if samples]
    return [Pair(chosen, rejected) for chosen, rejected in sides]


def refer(model: Any, pairs: Sequence[Pair], *, progress: Progress = silent) -> list[Pair]:
    """Return the pairs with what the model says of them before training."""
    answers = list(chain.from_iterable((pair.chosen, pair.rejected) for pair in pairs))
    found = measure_log_probs(model, answers, progress=progress)
    both = zip(found[::2], found[1::2], strict=True)
    return [pair._replace(reference=values) for pair, values in zip(pairs, both, strict=True)]


def _collate(pairs: Sequence[Pair]) -> dict[str, Any]:
    import torch

    answers = list(chain.from_iterable((pair.chosen, pair.rejected) for pair in pairs))
    reference = torch.tensor([pair.reference for pair in pairs], dtype=torch.float32)
    return collate_answers(answers) | {"reference": reference}


def _loss(
    model: Any, batch: dict[str, Any], *, beta: float
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    import torch

    from finetune.backends.local.loss import add_router_loss

    found, router = sum_log_probs(model, batch)
    gains = found.view(-1, 2) - batch["reference"]
    rewards = beta * gains
    margins = rewards[:, 0] - rewards[:, 1]
    loss = -torch.nn.functional.logsigmoid(margins).sum()
    figures = {
        "reward_accuracy": (margins > 0).float().sum(),
        "reward_margin": margins.sum(),
        "reward_chosen": rewards[:, 0].sum(),
        "reward_rejected": rewards[:, 1].sum(),
    }
    return add_router_loss(model, loss, figures, router, len(margins))
