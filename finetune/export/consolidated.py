"""Mistral's own checkpoint: `consolidated.safetensors`, `params.json`, and the tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finetune.backends.local.merge import Weights
from finetune.backends.local.model import Dtype, resolve_model
from finetune.backends.local.quiet import quiet
from finetune.export import native, parity
from finetune.export.card import write_card
from finetune.files import read_json, to_json, write_atomic
from finetune.progress import Progress
from finetune.runs import Run

WEIGHTS = "consolidated.safetensors"


def write(run: Run, folder: Path, *, progress: Progress) -> dict[str, Any]:
    """Write the merged model in Mistral's layout, and compare it, read back, with the run's."""
    from safetensors.torch import save_file

    base = resolve_model(run.recipe.model, progress=progress)
    params = native.read_params(base)
    native.copy_tokenizer(base, folder)
    weights = Weights(base, run.tuned)
    tensors = {}
    for number, name in enumerate(sorted(weights.shards)):
        progress("convert", number, len(weights.shards))
        module = name.removesuffix(".weight")
        tensor = native.interleave(weights.read(name), module, params)
        tensors[f"{native.rename(module)}.weight"] = tensor.contiguous()
    if "output.weight" not in tensors:  # readers want it, also where it is the embedding
        tensors["output.weight"] = tensors["tok_embeddings.weight"].clone()
    save_file(tensors, folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)
    write_atomic(folder / "params.json", to_json(params, indent=True))
    del tensors
    facts = parity.compare_with_run(run, base, folder, load=load, progress=progress)
    write_card(run, folder, "merged, in Mistral's own format", facts)
    return facts


def load(folder: Path, dtype: Dtype) -> Any:
    """Return the model of `consolidated.safetensors` and `params.json` as one of transformers."""
    import torch
    from safetensors.torch import load_file

    with quiet():
        from transformers import (
            MistralConfig,
            MistralForCausalLM,
            MixtralConfig,
            MixtralForCausalLM,
        )

    params = read_json(folder / "params.json")
    shape = {
        "hidden_size": params["dim"],
        "num_hidden_layers": params["n_layers"],
        "head_dim": params["head_dim"],
        "intermediate_size": params["hidden_dim"],
        "num_attention_heads": params["n_heads"],
        "num_key_value_heads": params["n_kv_heads"],
        "rms_norm_eps": params["norm_eps"],
        "vocab_size": params["vocab_size"],
        "rope_parameters": {"rope_type": "default", "rope_theta": params["rope_theta"]},
        "max_position_embeddings": params["max_position_embeddings"],
        "sliding_window": params.get("sliding_window"),
    }
    experts = params.get("moe")
    with quiet():
        if experts:
            config = MixtralConfig(
                **shape,
                num_local_experts=experts["num_experts"],
                num_experts_per_tok=experts["num_experts_per_tok"],
            )
        else:
            config = MistralConfig(**shape)
    tensors = load_file(folder / WEIGHTS)
    weights = {}
    for name in list(tensors):
        module = native.rename_back(name.removesuffix(".weight"))
        weights[f"{module}.weight"] = native.separate(tensors.pop(name), module, params)
    numbers = getattr(torch, dtype)
    with quiet():
        family = MixtralForCausalLM if experts else MistralForCausalLM
        model = family.from_pretrained(None, config=config, state_dict=weights, dtype=numbers)
    return model.eval()
