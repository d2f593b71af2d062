"""Attention over a row of samples laid end to end, none of which sees another.

Registered with transformers under `NAME`, so that models run it without being changed.
The samples' borders come in transformers' own argument for them, `cu_seq_lens_q`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface

NAME = "finetune-packed"


def register() -> str:
    """Make the attention known to transformers and return its name."""
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, no_mask)
    return NAME


@contextlib.contextmanager
def attend_within(model: Any) -> Iterator[None]:
    """Let a model attend within samples alone; afterwards it attends as before."""
    decoder = model.get_decoder()  # a vision tower beside it goes on as it does
    before = decoder.config._attn_implementation  # noqa: SLF001 (no other name)
    decoder.set_attn_implementation(register())
    try:
        yield
    finally:
        decoder.set_attn_implementation(before)


def no_mask(*_args: object, **_kwargs: object) -> None:
    """Build no mask: the borders say all there is to say."""


def attend(
    module: torch.nn.Module,  # noqa: ARG001 (part of transformers' interface)
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,  # noqa: ARG001 (part of transformers' interface)
    *,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    scaling: float,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **_kwargs: object,
) -> tuple[torch.Tensor, None]:
    """Attend causally within each sample.

    Args:
        module: The attention layer.
        query: [1, heads, tokens, width].
        key: [1, key heads, tokens, width].
        value: As `key`.
        attention_mask: Always None.
        cu_seq_lens_q: Where each sample starts, and the end: int32, [samples + 1].
        max_length_q: Tokens of the longest sample.
        scaling: Factor of the scores.
        dropout: Probability that a score is dropped.
        sliding_window: Tokens that a token sees, itself included; None for all before it.

    Returns:
        [1, tokens, heads, width], and None for the scores.
    """
    # Under autocast the rotation leaves the others in float32 where the weights are.
    query, key = query.to(value.dtype), key.to(value.dtype)
    half = value.dtype in {torch.bfloat16, torch.float16}
    if query.device.type == "cuda" and half and not dropout:
        window = (-1 if sliding_window is None else sliding_window - 1, 0)
        from torch.nn.attention.varlen import varlen_attn

        packed: Any = varlen_attn(
            query[0].transpose(0, 1),
            key[0].transpose(0, 1),
            value[0].transpose(0, 1),
            cu_seq_lens_q,
            cu_seq_lens_q,
            max_length_q,
            max_length_q,
            scale=scaling,
            window_size=window,
            enable_gqa=True,
        )
        return packed[None], None
    lengths = cu_seq_lens_q.diff().tolist()
    rows = (query, key, value)
    out = _attend_each(rows, lengths, scaling=scaling, dropout=dropout, window=sliding_window)
    return out, None


def _attend_each(
    rows: tuple[torch.Tensor, ...],
    lengths: list[int],
    *,
    scaling: float,
    dropout: float,
    window: int | None,
) -> torch.Tensor:
    """Attend sample by sample: as fast as one kernel on a CPU, where no masked pair is computed."""
    query, key, value = rows
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key = key.repeat_interleave(groups, dim=1)
        value = value.repeat_interleave(groups, dim=1)
    parts = zip(*(torch.split(x, lengths, dim=2) for x in (query, key, value)), strict=True)
    out = torch.cat(
        [
            functional.scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=(band := _band(q, window)),
                dropout_p=dropout,
                is_causal=band is None,
                scale=scaling,
            )
            for q, k, v in parts
        ],
        dim=2,
    )
    return out.transpose(1, 2)


def _band(query: torch.Tensor, window: int | None) -> torch.Tensor | None:
    """Return the mask of a sliding window, or None where the sample lies within it."""
    length = query.shape[2]
    if window is None or length <= window:
        return None
    ones = torch.ones(length, length, dtype=torch.bool, device=query.device)
    return ones.tril().triu(1 - window)
