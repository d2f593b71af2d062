"""Greedy generation for many prompts at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from finetune.backends.local.device import is_out_of_memory
from finetune.backends.local.task import move
from finetune.backends.local.vision import collate_images, embed
from finetune.errors import TrainingError
from finetune.progress import Progress, silent

if TYPE_CHECKING:
    import torch

    from finetune.tokens.images import Picture


def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    eos_id: int,
    pad_id: int,
    images: Sequence[Sequence[Picture]] = (),
    max_new_tokens: int = 512,
    batch_tokens: int = 16384,
    progress: Progress = silent,
) -> list[list[int]]:
    """Return the most likely continuation of each prompt, token by token.

    Prompts of like length are answered together; a row that has ended leaves its batch. Where the
    device has not the memory for a batch, smaller ones are made from there on.

    Args:
        model: A causal language model, with an adapter or not.
        prompts: Ids up to where the answer starts; none is empty.
        eos_id: Generation of a row stops at it; it is not part of what is returned.
        pad_id: Fills shorter rows on the left; never seen by the model.
        images: Those of each prompt, in the order of their tokens; none where absent.
        max_new_tokens: Most tokens of an answer, which ends with the model's context in any case.
        batch_tokens: Most tokens (prompt and answer) of the rows in memory at once.
        progress: Told how many prompts are answered.

    Returns:
        New ids of each prompt, in the given order.

    Raises:
        TrainingError: The device has not the memory for a single prompt.
    """
    answers: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    done, context = 0, find_context(model)
    progress("generate", 0, len(prompts))
    while done < len(order):
        longest = min(len(prompts[order[done]]) + max_new_tokens, context)
        rows = order[done : done + max(1, batch_tokens // longest)]
        batch = [prompts[row] for row in rows]
        shown = [picture for row in rows if images for picture in images[row]]
        try:
            limits = [max(1, min(max_new_tokens, context - len(prompt))) for prompt in batch]
            texts = _continue(model, batch, shown, limits, eos_id=eos_id, pad_id=pad_id)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            texts = []
        if not texts:  # outside of the handler, which holds on to what is to be freed
            batch_tokens = _shrink(len(rows), longest)
            continue
        for row, text in zip(rows, texts, strict=True):
            answers[row] = text
        done += len(rows)
        progress("generate", done, len(order))
    return answers


def find_context(model: Any) -> int:
    """Return how many tokens a model can see."""
    config = model.config.get_text_config()
    return getattr(config, "max_position_embeddings", None) or 2**31


def _shrink(rows: int, longest: int) -> int:
    """Return the `batch_tokens` of half as many rows."""
    import torch

    if rows == 1:
        raise TrainingError(
            f"generation: {longest:,} tokens do not fit into the device's memory",
            hint="lower `evaluation.max_new_tokens`, or set `local.quantize: 4bit`",
        )
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return rows // 2 * longest


def _continue(
    model: Any,
    prompts: Sequence[Sequence[int]],
    images: Sequence[Picture],
    limits: Sequence[int],
    *,
    eos_id: int,
    pad_id: int,
) -> list[list[int]]:
    import torch
    from transformers import DynamicCache

    device = model.get_input_embeddings().weight.device
    longest = max(len(prompt) for prompt in prompts)
    padded = [[pad_id] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    seen = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    ids = torch.tensor(padded, device=device)
    mask = torch.tensor(seen, device=device)
    places = (mask.cumsum(1) - 1).clamp(min=0)
    # Without padding no mask is needed, and attention takes its fast way.
    ragged = bool((mask == 0).any())
    answers: list[list[int]] = [[] for _ in prompts]
    alive = list(range(len(prompts)))
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        for step in range(max(limits)):
            first = not step and images
            logits = model(
                **(_embed(model, ids, images) if first else {"input_ids": ids}),
                attention_mask=mask if ragged else None,
                position_ids=places,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits
            best = logits[:, -1].argmax(dim=-1)
            keep = [
                row
                for row, token in enumerate(best.tolist())
                if token != eos_id and len(answers[alive[row]]) < limits[alive[row]]
            ]
            if not keep:
                break
            if len(keep) < len(alive):
                chosen = torch.tensor(keep, device=device)
                cache.batch_select_indices(chosen)
                best, mask, places = best[chosen], mask[chosen], places[chosen]
                alive = [alive[row] for row in keep]
            for row, token in zip(alive, best.tolist(), strict=True):
                answers[row].append(token)
            ids, places = best[:, None], places[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
    return answers


def _embed(model: Any, ids: torch.Tensor, images: Sequence[Picture]) -> dict[str, torch.Tensor]:
    """Return the prompts as embeddings, those of their images in the places of their tokens."""
    batch = move(collate_images(images), ids.device) | {"input_ids": ids}
    return {"inputs_embeds": embed(model, batch)}
