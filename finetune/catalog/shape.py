"""The shape of a decoder: enough to count its weights and plan its memory before any download."""

from __future__ import annotations

from typing import Any

import msgspec

# Pixtral's vision tower, the one that every Mistral model with images carries: 24 layers of width
# 1024 with a gated feed-forward of 4096, patches of 14 × 14 (transformers 5.23, `Mistral3Config`).
_VISION_LAYERS, _VISION_WIDTH, _VISION_FEED, _PATCH = 24, 1024, 4096, 14


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes of a Mistral-style decoder (grouped-query attention, gated feed-forward, RMS norms).

    Attributes:
        hidden: Width of the residual stream.
        layers: Decoder layers.
        heads: Query heads.
        kv_heads: Key and value heads.
        head_dim: Width of one head.
        intermediate: Width of the feed-forward (of one expert, where there are experts).
        vocab: Rows of the embedding.
        tied: The output head is the embedding.
        experts: Feed-forwards a layer, 0 for a dense model.
        experts_per_token: Those of them that a token passes through.
        shared_experts: Further feed-forwards that every token passes through.
        query_rank: Of latent attention (Mistral 4): width that queries pass through, else 0.
        key_rank: The same of keys and values.
        rope_dim: The part of a head that is rotated.
        value_dim: Width of a value head.
        vision: The decoder sits inside a model that takes images.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied: bool = False
    experts: int = 0
    experts_per_token: int = 0
    shared_experts: int = 0
    query_rank: int = 0
    key_rank: int = 0
    rope_dim: int = 0
    value_dim: int = 0
    vision: bool = False

    @property
    def attention(self) -> dict[str, tuple[int, int]]:
        """The linears of one layer's attention: name → (inputs, outputs)."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        if self.key_rank:
            plain, values = self.head_dim - self.rope_dim, self.heads * self.value_dim
            return {
                "q_a_proj": (self.hidden, self.query_rank),
                "q_b_proj": (self.query_rank, queries),
                "kv_a_proj_with_mqa": (self.hidden, self.key_rank + self.rope_dim),
                "kv_b_proj": (self.key_rank, self.heads * plain + values),
                "o_proj": (values, self.hidden),
            }
        return {
            "q_proj": (self.hidden, queries),
            "k_proj": (self.hidden, keys),
            "v_proj": (self.hidden, keys),
            "o_proj": (queries, self.hidden),
        }

    @property
    def feed_forward(self) -> dict[str, tuple[int, int]]:
        """The linears of one feed-forward (one expert): name → (inputs, outputs)."""
        return {
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    @property
    def active(self) -> int:
        """Feed-forwards that a token passes through in a layer."""
        return max(1, self.experts_per_token + self.shared_experts)

    @property
    def linear_weights(self) -> int:
        """Weights of the decoder's linears: what quantization shrinks."""
        attention = sum(a * b for a, b in self.attention.values())
        feed_forward = sum(a * b for a, b in self.feed_forward.values())
        dense = self.shared_experts if self.experts else 1
        return self.layers * (attention + feed_forward * dense)

    @property
    def expert_weights(self) -> int:
        """Weights of all experts: fused tensors, which bitsandbytes leaves as they are."""
        return self.layers * self.experts * sum(a * b for a, b in self.feed_forward.values())

    @property
    def embedding_weights(self) -> int:
        """Weights of the embedding and, where it is not tied to it, of the head."""
        return self.vocab * self.hidden * (1 if self.tied else 2)

    @property
    def vision_weights(self) -> int:
        """Weights of the vision tower and its projector, 0 without one."""
        if not self.vision:
            return 0
        width = _VISION_WIDTH
        layer = 4 * width * width + 3 * width * _VISION_FEED + 2 * width
        patches = 3 * _PATCH * _PATCH * width + width
        projector = width + 4 * width * width + width * self.hidden + self.hidden * self.hidden
        return _VISION_LAYERS * layer + patches + projector

    @property
    def weights(self) -> int:
        """All weights."""
        norms = (2 * self.layers + 1) * self.hidden + self.layers * (
            self.query_rank + self.key_rank
        )
        routers = self.layers * self.experts * self.hidden
        linears = self.linear_weights + self.expert_weights
        return linears + self.embedding_weights + self.vision_weights + norms + routers


def read_shape(config: dict[str, Any]) -> Shape | None:
    """Return the shape that a `config.json` describes, None where it is not such a decoder.

    Args:
        config: The parsed file; a model that takes images has its decoder under `text_config`.
    """
    text = config.get("text_config") or config
    try:
        heads, hidden = int(text["num_attention_heads"]), int(text["hidden_size"])
        plain: dict[str, Any] = {
            "hidden": hidden,
            "layers": int(text["num_hidden_layers"]),
            "heads": heads,
            "vocab": int(text["vocab_size"]),
            "tied": bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", False))),
            "vision": "vision_config" in config,
        }
        if text.get("model_type") == "mistral4":
            return _read_latent(text, plain)
        if "kv_lora_rank" in text or "n_routed_experts" in text:
            return None  # another architecture
        experts = int(text.get("num_local_experts") or 0)
        return Shape(
            **plain,
            kv_heads=int(text.get("num_key_value_heads") or heads),
            head_dim=int(text.get("head_dim") or hidden // heads),
            intermediate=int(text["intermediate_size"]),
            experts=experts,
            experts_per_token=int(text.get("num_experts_per_tok") or 0) if experts else 0,
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None


def _read_latent(text: dict[str, Any], plain: dict[str, Any]) -> Shape | None:
    """Return the shape of a Mistral 4: latent attention, and experts in every layer."""
    if text.get("first_k_dense_replace"):
        return None
    rope = int(text["qk_rope_head_dim"])
    return Shape(
        **plain,
        kv_heads=plain["heads"],
        head_dim=rope + int(text["qk_nope_head_dim"]),
        intermediate=int(text["moe_intermediate_size"]),
        experts=int(text["n_routed_experts"]),
        experts_per_token=int(text["num_experts_per_tok"]),
        shared_experts=int(text["n_shared_experts"]),
        query_rank=int(text["q_lora_rank"]),
        key_rank=int(text["kv_lora_rank"]),
        rope_dim=rope,
        value_dim=int(text["v_head_dim"]),
    )


def find_obstacle(config: dict[str, Any]) -> str | None:
    """Return why a model with this `config.json` cannot be tuned on this machine, else None."""
    text = config.get("text_config") or config
    kind = str(text.get("model_type") or config.get("model_type"))
    if kind.startswith("mistral_large4"):
        return (
            "Mistral Large 4 chooses by an index which tokens it reads, and training here lays"
            " samples end to end"
        )
    if text.get("final_logit_softcapping"):
        return f"`{kind}` caps its scores, which the loss here does not compute"
    return None


def read_context(config: dict[str, Any]) -> int | None:
    """Return the longest sequence, in tokens, that a `config.json` allows, None if it is silent."""
    text = config.get("text_config") or config
    value = text.get("max_position_embeddings")
    return value if isinstance(value, int) and value > 0 else None
