"""Cross-entropy at the trained positions, without ever holding `tokens x vocabulary` logits.

The scores of some hundred positions at a time are computed, turned into their gradient on the
spot and dropped, so that memory does not grow with the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from finetune.backends.local.vision import embed

CHUNK = 512  # positions whose logits exist at once
_Result = TypeVar("_Result")


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        differentiate = ctx.needs_input_grad[0]
        gradient = torch.empty_like(hidden) if differentiate else None
        losses = hidden.new_empty(len(targets), dtype=torch.float32)
        weight = head.to(hidden.dtype)
        for start in range(0, len(targets), CHUNK):
            part = slice(start, start + CHUNK)
            logits = (hidden[part] @ weight.T).float()
            losses[part] = _descend(logits, targets[part])
            if gradient is not None:
                torch.mm(logits.to(weight.dtype), weight, out=gradient[part])
        if gradient is not None:
            trained = (hidden, head, targets) if ctx.needs_input_grad[1] else ()
            ctx.save_for_backward(gradient, *trained)
        return losses

    @staticmethod
    def backward(ctx: Any, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        gradient, *trained = ctx.saved_tensors
        scaled = torch.empty_like(gradient)
        torch.mul(gradient, scale[:, None], out=scaled)  # in float32, rounded once
        return scaled, _differentiate_head(trained, scale) if trained else None, None


def _descend(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the losses of some positions, [n]; the scores become their slopes in place."""
    target = targets[:, None]
    picked = logits.gather(1, target)
    top = logits.amax(dim=1, keepdim=True)
    mass = logits.sub_(top).exp_().sum(dim=1, keepdim=True)
    logits.div_(mass).scatter_add_(1, target, -torch.ones_like(picked))
    return (mass.log() + top - picked)[:, 0]


def _differentiate_head(saved: Sequence[torch.Tensor], scale: torch.Tensor) -> torch.Tensor:
    """Return the gradient of a head that is trained, from scores that are computed again."""
    hidden, head, targets = saved
    gradient, weight = torch.zeros_like(head), head.to(hidden.dtype)
    for start in range(0, len(targets), CHUNK):
        part = slice(start, start + CHUNK)
        logits = (hidden[part] @ weight.T).float()
        _descend(logits, targets[part])
        logits *= scale[part, None]
        gradient += logits.to(weight.dtype).T @ hidden[part]
    return gradient


def head_losses(hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of each position: nats, float32, [n]. See `head_loss`."""
    losses: torch.Tensor = _HeadLoss.apply(hidden, head, targets)  # type: ignore[no-untyped-call]
    return losses


def head_loss(
    hidden: torch.Tensor,
    head: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the summed cross-entropy of `hidden @ head.T` against `targets`.

    Args:
        hidden: Last hidden states at the trained positions, [n, width].
        head: Weight of the output layer, [vocabulary, width], computed with in that dtype; gets
            a gradient in its own where it is trained.
        targets: The tokens that follow, int64, [n].
        weights: Factor of each position, float32, [n]; 1 where absent.

    Returns:
        A float32 scalar: the sum, in nats.
    """
    losses = head_losses(hidden, head, targets)
    return losses.sum() if weights is None else losses.dot(weights)


def packed_loss(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Return the summed loss of a micro-batch (see `samples.collate`).

    Args:
        model: A causal language model whose attention is `attention.NAME`, with adapters or not.
        batch: Samples laid end to end.
    """
    return _score(model, batch, trained_states(model, batch))


def routed_loss(model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the summed loss of a micro-batch, with what keeps all experts in use.

    Args:
        model: See `packed_loss`.
        batch: See `packed_loss`.

    Returns:
        The sum, and what is logged: see `add_router_loss`.
    """
    states, router = routed_states(model, batch)
    weights = batch["weights"]
    items = len(batch["targets"]) if weights is None else weights.sum()
    return add_router_loss(model, _score(model, batch, states), {}, router, items)


def add_router_loss(
    model: Any,
    total: torch.Tensor,
    figures: dict[str, torch.Tensor],
    router: torch.Tensor | None,
    items: Any,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return a micro-batch's loss and figures with what keeps all experts in use.

    Args:
        model: See `packed_loss`; its own coefficient is taken.
        total: The summed loss.
        figures: What is logged beside it.
        router: See `routed_states`; None adds nothing.
        items: What the micro-batch counts in the mean of a step: the router loss counts as much.

    Returns:
        The sum; and with `router_loss`, summed likewise without its coefficient.
    """
    if router is None:
        return total, figures
    config = model.config.get_text_config()
    coefficient = getattr(config, "router_aux_loss_coef", 0.0)  # Mistral 4's has none
    return total + coefficient * items * router, figures | {"router_loss": items * router}


def trained_states(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Return the last hidden states at a micro-batch's trained positions: [n, width].

    Args:
        model: See `packed_loss`.
        batch: See `packed_loss`.
    """
    return routed_states(model, batch)[0]


def routed_states(model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return `trained_states`, and the router loss of the batch.

    That is the load balancing loss of the Switch Transformer over all its tokens, where experts are
    trained (`output_router_logits` in the model's config); else None, and in evaluation mode, as
    a model is measured on its answers alone.

    Args:
        model: See `packed_loss`.
        batch: See `packed_loss`.
    """
    output = _decode(model, batch)
    states = _select(model, batch, output)
    gates = getattr(output, "router_logits", None)
    if not model.training or not gates:
        return states, None
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    config = model.config.get_text_config()
    router: torch.Tensor = load_balancing_loss_func(
        gates, config.num_local_experts, config.num_experts_per_tok
    )
    return states, router


def _decode(model: Any, batch: dict[str, Any]) -> Any:
    seen = "pixel_values" in batch
    return model.get_decoder()(
        **({"inputs_embeds": embed(model, batch)} if seen else {"input_ids": batch["input_ids"]}),
        position_ids=batch["position_ids"],
        use_cache=False,  # with a cache, samples would see each other
        cu_seq_lens_q=batch["borders"],
        cu_seq_lens_k=batch["borders"],
        max_length_q=batch["longest"],
        max_length_k=batch["longest"],
    )


def _select(model: Any, batch: dict[str, Any], output: Any) -> torch.Tensor:
    rows = output.last_hidden_state[0].index_select(0, batch["rows"])
    # Weights that are trained are held in float32, and autocast says what they are computed in.
    kind, numbers = rows.device.type, model.get_output_embeddings().weight.dtype
    if torch.is_autocast_enabled(kind):
        numbers = torch.get_autocast_dtype(kind)
    states: torch.Tensor = rows.to(numbers)
    return states


def _score(model: Any, batch: dict[str, Any], states: torch.Tensor) -> torch.Tensor:
    def score(head: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        return head_loss(states, head, batch["targets"], batch["weights"])

    return with_head(model, score, states)


def with_head(model: Any, function: Callable[..., _Result], *tensors: torch.Tensor) -> _Result:
    """Return what a function makes of the output layer's weight and of tensors.

    Where ranks hold shards of the weight, they are gathered for a call of the layer alone: the
    function runs in the place of its forward.
    """
    head = model.get_output_embeddings()
    if not hasattr(head, "unshard"):
        return function(head.weight, *tensors)
    from trl.models.utils import _ForwardRedirection

    def call(*inputs: torch.Tensor) -> _Result:
        return function(head.weight, *inputs)

    result: _Result = _ForwardRedirection()(head, head, call, *tensors)
    return result
