"""Mistral's own layout of a checkpoint: names, the order of rows, `params.json`.

Names and shapes are those that mistral-inference's `Transformer` loads strictly, the order of rows
is what transformers' `convert_mistral_weights_to_hf.py` undoes (both read 2026-11-23).
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import UsageError
from finetune.files import read_json

if TYPE_CHECKING:
    import torch

# Name in transformers' layout → Mistral's. Mixtral's are those of its checkpoint, not its class.
_TOP = {
    "model.embed_tokens": "tok_embeddings",
    "model.norm": "norm",
    "lm_head": "output",
}
_LAYER = {
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
    "block_sparse_moe.gate": "feed_forward.gate",
}
LINEARS = {
    name: native for name, native in _LAYER.items() if native.startswith(("attention.", "feed"))
}
_BACK = {native: name for name, native in (_TOP | _LAYER).items()}
_EXPERT = re.compile(r"block_sparse_moe\.(experts\.\d+\.w[123])")


def rename(module: str) -> str:
    """Return Mistral's name of a module of transformers' layout.

    Raises:
        UsageError: Mistral's layout has no such module.

    Example:
        >>> rename("model.layers.3.self_attn.q_proj")
        'layers.3.attention.wq'
    """
    layer = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", module)
    if layer:
        expert = _EXPERT.fullmatch(layer[2])
        native = f"feed_forward.{expert[1]}" if expert else _LAYER.get(layer[2])
        if native:
            return f"layers.{layer[1]}.{native}"
    elif module in _TOP:
        return _TOP[module]
    raise UsageError(f"`{module}`: has no place in Mistral's own format")


def rename_back(place: str) -> str:
    """Return the module of transformers' layout that Mistral's name means.

    Raises:
        UsageError: It is not one of a decoder.
    """
    layer = re.fullmatch(r"layers\.(\d+)\.(.+)", place)
    if layer:
        expert = re.fullmatch(r"feed_forward\.(experts\.\d+\.w[123])", layer[2])
        module = f"block_sparse_moe.{expert[1]}" if expert else _BACK.get(layer[2])
        if module:
            return f"model.layers.{layer[1]}.{module}"
    elif place in _BACK:
        return _BACK[place]
    raise UsageError(f"`{place}`: not a module of Mistral's own format")


def interleave(rows: torch.Tensor, module: str, params: dict[str, Any]) -> torch.Tensor:
    """Return a weight with the rows of each head as Mistral's rotary embedding pairs them.

    transformers rotates dimension i of a head with i + d/2, Mistral (and llama.cpp) 2i with 2i + 1.

    Args:
        rows: The weight, [outputs, …].
        module: Its name in transformers' layout; only queries and keys are rotated.
        params: What `read_params` gives.
    """
    heads = _heads(module, params)
    return rows if heads is None else _swap(rows, heads, 2, rows.shape[0] // heads // 2)


def separate(rows: torch.Tensor, module: str, params: dict[str, Any]) -> torch.Tensor:
    """Return what `interleave` was given."""
    heads = _heads(module, params)
    return rows if heads is None else _swap(rows, heads, rows.shape[0] // heads // 2, 2)


def _swap(rows: torch.Tensor, heads: int, outer: int, inner: int) -> torch.Tensor:
    """Return the rows of each head, `outer` groups of `inner`, with the two swapped."""
    groups = rows.reshape(heads, outer, inner, *rows.shape[1:])
    return groups.transpose(1, 2).reshape(rows.shape)


def _heads(module: str, params: dict[str, Any]) -> int | None:
    counts = {"q_proj": "n_heads", "k_proj": "n_kv_heads"}
    key = counts.get(module.rpartition(".")[2])
    return int(params[key]) if key else None


def read_params(base: Path) -> dict[str, Any]:
    """Return the `params.json` of a model, from its `config.json`.

    Raises:
        UsageError: Mistral's format has no place for what the model does.
    """
    config = read_json(base / "config.json")
    require_plain(base, config, ("mistral", "mixtral"), "Mistral's own format")
    heads = config["num_attention_heads"]
    rope = config.get("rope_parameters") or config
    params = {
        "dim": config["hidden_size"],
        "n_layers": config["num_hidden_layers"],
        "head_dim": config.get("head_dim") or config["hidden_size"] // heads,
        "hidden_dim": config["intermediate_size"],
        "n_heads": heads,
        "n_kv_heads": config.get("num_key_value_heads") or heads,
        "norm_eps": config["rms_norm_eps"],
        "vocab_size": config["vocab_size"],
        "rope_theta": rope.get("rope_theta", 10000.0),
        "max_position_embeddings": config["max_position_embeddings"],
    }
    if config.get("sliding_window"):
        params["sliding_window"] = config["sliding_window"]
    if config["model_type"] == "mixtral":
        params["moe"] = {
            "num_experts": config["num_local_experts"],
            "num_experts_per_tok": config["num_experts_per_tok"],
        }
    return params


def require_plain(base: Path, config: dict[str, Any], types: tuple[str, ...], form: str) -> None:
    """Refuse a model with something that a form has no place for.

    Args:
        base: The model, for the message.
        config: Its `config.json`, or the part of it that describes the decoder.
        types: Values of `model_type` that the form holds.
        form: The form, for the message.

    Raises:
        UsageError: Another architecture, or scaled rotary embeddings, biases or quantized weights.
    """
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    found = {
        "model_type": config.get("model_type"),
        "rope_type": rope.get("rope_type", rope.get("type", "default")),
        "hidden_act": config.get("hidden_act", "silu"),
        "attention_bias": config.get("attention_bias", False),
        "mlp_bias": config.get("mlp_bias", False),
        "quantization_config": bool(config.get("quantization_config")),
    }
    plain = {
        "model_type": types,
        "rope_type": ("default",),
        "hidden_act": ("silu",),
        "attention_bias": (False,),
        "mlp_bias": (False,),
        "quantization_config": (False,),
    }
    for key, value in found.items():
        if value not in plain[key]:
            raise UsageError(
                f"{base}: {form} cannot hold this model: `{key}` is `{value}`",
                hint="`--to merged` and `--to adapter` hold every model that is trained here",
            )


def copy_tokenizer(base: Path, folder: Path) -> Path:
    """Copy Mistral's tokenizer file of a model, and return the copy.

    Raises:
        UsageError: It has none.
    """
    found = sorted(base.glob("tekken*.json")) or sorted(base.glob("tokenizer.model*"))
    versioned = [path for path in found if path.name != "tokenizer.model"]
    if not found:
        raise UsageError(
            f"{base}: has no tokenizer file of Mistral's (`tekken.json`, `tokenizer.model.v3`)",
            hint="`--to merged` keeps a tokenizer of Hugging Face",
        )
    return Path(shutil.copyfile(file := (versioned or found)[0], folder / file.name))
