"""One answer, token by token, for those who wait for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol


class Sampling(NamedTuple):
    """How tokens are chosen.

    Attributes:
        temperature: 0 takes the likeliest token each time.
        top_p: Only the likeliest tokens with this probability together.
        seed: The same seed gives the same answer; chance where it is None.
        presence: Taken from the logit of a token that was written already.
        frequency: Taken from the logit of a token for each time that it was written.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    presence: float = 0.0
    frequency: float = 0.0


class Constraint(Protocol):
    """What an answer has to look like."""

    def forbid(self, logits: Any) -> None:
        """Set the logits of tokens that can't come next to -inf, in place; shape [vocabulary]."""

    def accept(self, token: int) -> None:
        """Take note of the token that was chosen."""


def stream(
    model: Any,
    prompt: Sequence[int],
    sampling: Sampling,
    *,
    eos_id: int,
    limit: int,
    least: int = 0,
    constraint: Constraint | None = None,
) -> Iterator[int]:
    """Yield the ids of an answer, without the one that ends it.

    Args:
        model: A causal language model.
        prompt: Ids up to where the answer starts; none is empty.
        sampling: How tokens are chosen.
        eos_id: Ends the answer.
        limit: Most tokens.
        least: Fewest tokens: the end is not chosen before.
        constraint: What the answer has to look like.
    """
    import torch
    from transformers import DynamicCache

    device = model.get_input_embeddings().weight.device
    chance = torch.Generator(device="cpu")
    chance.manual_seed(torch.seed() if sampling.seed is None else sampling.seed % 2**63)
    ids, counts = torch.tensor([list(prompt)], device=device), None
    cache = DynamicCache(config=model.config)
    for done in range(limit):
        with torch.inference_mode():
            logits = model(
                input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1
            ).logits[0, -1].float()  # fmt: skip
            if sampling.presence or sampling.frequency:
                counts = torch.zeros_like(logits) if counts is None else counts
                logits -= sampling.presence * (counts > 0) + sampling.frequency * counts
            if done < least:
                logits[eos_id] = -torch.inf
            if constraint is not None:
                constraint.forbid(logits)
            token = _choose(logits, sampling, chance)
            if counts is not None:
                counts[token] += 1
        if token == eos_id:
            return
        if constraint is not None:
            constraint.accept(token)
        yield token
        ids = torch.tensor([[token]], device=device)


def _choose(logits: Any, sampling: Sampling, chance: Any) -> int:
    """Return the next token; logits has shape [vocabulary]."""
    import torch

    if not sampling.temperature or not sampling.top_p:
        return int(logits.argmax())
    shares = torch.softmax(logits / sampling.temperature, dim=-1).cpu()
    if sampling.top_p < 1:
        ordered, places = shares.sort(descending=True)
        # A token stays while those before it have not reached the share.
        ordered[ordered.cumsum(0) - ordered >= sampling.top_p] = 0
        shares = torch.zeros_like(shares).scatter(0, places, ordered)
    return int(torch.multinomial(shares, 1, generator=chance))
