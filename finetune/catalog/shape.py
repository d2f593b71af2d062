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
        experts_per_token: Feed-forwards that a token passes through.
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
    vision: bool = False

    @property
    def attention(self) -> dict[str, tuple[int, int]]:
        """The linears of one layer's attention: name → (inputs, outputs)."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
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
    def linear_weights(self) -> int:
        """Weights of the decoder's linears: what quantization shrinks."""
        attention = sum(a * b for a, b in self.attention.values())
        feed_forward = sum(a * b for a, b in self.feed_forward.values())
        return self.layers * (attention + feed_forward * max(1, self.experts))

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
        norms = (2 * self.layers + 1) * self.hidden
        routers = self.layers * self.experts * self.hidden
        return self.linear_weights + self.embedding_weights + self.vision_weights + norms + routers


def read_shape(config: dict[str, Any]) -> Shape | None:
    """Return the shape that a `config.json` describes, None where it is not such a decoder.

    Args:
        config: The parsed file; a model that takes images has its decoder under `text_config`.
    """
    text = config.get("text_config") or config
    try:
        heads, hidden = int(text["num_attention_heads"]), int(text["hidden_size"])
        experts = int(text.get("num_local_experts") or 0)
        if "kv_lora_rank" in text or "n_routed_experts" in text:
            return None  # latent attention or shared experts: another architecture
        return Shape(
            hidden=hidden,
            layers=int(text["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(text.get("num_key_value_heads") or heads),
            head_dim=int(text.get("head_dim") or hidden // heads),
            intermediate=int(text["intermediate_size"]),
            vocab=int(text["vocab_size"]),
            tied=bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", False))),
            experts=experts,
            experts_per_token=int(text.get("num_experts_per_tok") or 0) if experts else 0,
            vision="vision_config" in config,
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None


def read_context(config: dict[str, Any]) -> int | None:
    """Return the longest sequence, in tokens, that a `config.json` allows, None if it is silent."""
    text = config.get("text_config") or config
    value = text.get("max_position_embeddings")
    return value if isinstance(value, int) and value > 0 else None
