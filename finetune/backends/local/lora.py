"""Adapters on a model: which modules get one, and what is trained in the end."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from finetune.backends.local.quiet import quiet
from finetune.errors import RecipeError
from finetune.text import did_you_mean

if TYPE_CHECKING:
    from finetune.recipe.tree import Lora

# The linears of a Mistral layer. A mixture's experts are fused tensors, not linears, so that
# `auto` is attention there (and the shared expert, where there is one): the adapter that every
# serving stack loads.
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# Mistral 4 has latent attention: queries, keys and values go through a narrow layer.
LATENT = ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj")
# In the order in which the class declares them, which is the one in which PEFT nests adapters.
EXPERTS = ("gate_up_proj", "down_proj")
VISION = r".*(vision_tower|vision_model|vision_encoder|multi_modal_projector).*"
_PLACE = "local.lora"


def add_adapter(model: Any, lora: Lora, *, seed: int = 0, reference: str = "") -> Any:
    """Return the model with a fresh LoRA adapter in float32, the base frozen.

    Args:
        model: A causal language model of transformers.
        lora: The recipe's section.
        seed: Seed of the adapter's first weights.
        reference: How the adapter names its base.

    Raises:
        RecipeError: A target matches no linear of the language model, or is one that must not
            have an adapter; or experts are asked for where there are none.
    """
    with quiet():
        import peft
        from transformers import set_seed

    set_seed(seed)
    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=find_targets(model, lora.targets),
        target_parameters=_find_experts(model) if lora.experts else None,
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        exclude_modules=VISION if _has_vision(model) else None,
        task_type="CAUSAL_LM",
    )
    with quiet():
        adapted = peft.get_peft_model(model, config)
    adapted.peft_config["default"].base_model_name_or_path = reference or None
    if lora.experts:  # the loss that keeps them all in use needs to see where tokens went
        model.config.get_text_config().output_router_logits = True
    return adapted


def find_targets(model: Any, targets: list[str] | str = "auto") -> list[str]:
    """Return the names of the modules that get an adapter.

    Raises:
        RecipeError: See `add_adapter`.
    """
    import torch

    linears = {
        name: name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and not re.fullmatch(VISION, name)
    }
    ends = set(linears.values())
    if targets == "auto":
        found = [name for name in (*LATENT, *LINEARS) if name in ends]
        if not found:
            raise RecipeError(
                f"{_PLACE}.targets: none of {', '.join(LINEARS)} in a {type(model).__name__}",
                hint=f"name them: {', '.join(sorted(ends))}",
            )
        return found
    for target in targets:
        if target.rpartition(".")[2] in {"lm_head", "embed_tokens"}:
            raise RecipeError(
                f"{_PLACE}.targets: `{target}` can't have an adapter: where embeddings are tied,"
                " input and output would come apart when it is merged",
                hint=f"leave it out, or use `auto`: {', '.join(n for n in LINEARS if n in ends)}",
            )
        if not any(name == target or name.endswith(f".{target}") for name in linears):
            raise RecipeError(
                f"{_PLACE}.targets: `{target}` names no linear of this {type(model).__name__}",
                hint=did_you_mean(target, ends) or f"it has: {', '.join(sorted(ends))}",
            )
    return list(targets)


def _find_experts(model: Any) -> list[str]:
    """Return the names of the fused tensors that hold a mixture's experts."""
    names = [name for name, _ in model.named_parameters()]
    found = [f"experts.{end}" for end in EXPERTS]
    if not all(any(name.endswith(f".{wanted}") for name in names) for wanted in found):
        raise RecipeError(
            f"{_PLACE}.experts: a {type(model).__name__} has no experts",
            hint="leave it out: only a mixture of experts, such as `mixtral-8x7b`, has them",
        )
    return found


def count_trainable(model: Any) -> dict[str, int]:
    """Return the number of trainable parameters of each group, such as `q_proj` or `experts`."""
    groups: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            place = re.sub(r"(\.base_layer)?\.lora_.*|\.(weight|bias)$", "", name)
            group = "experts" if ".experts." in f"{place}." else place.rpartition(".")[2]
            groups[group] = groups.get(group, 0) + parameter.numel()
    return groups


def _has_vision(model: Any) -> bool:
    return any(re.fullmatch(VISION, name) for name, _ in model.named_modules())
