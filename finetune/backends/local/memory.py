"""How much memory training takes, by part, from the model's shape alone: no torch, no download.

What is held for the backward pass was counted tensor by tensor (torch 2.13, transformers 5.23,
peft 0.21) for the way this package trains: samples laid end to end, no padding, frozen base,
adapters in float32, autocast to the base's numbers, loss in chunks. With `h` the hidden width,
`q` the width of all query heads, `i` the feed-forward and `r` the rank, one token of one layer
holds, in bytes,

    bfloat16:  8 i + 18 h + 10 q + 14 r        float32:  16 i + 16 h + 20 q + 28 r

`benchmarks/memory.py` holds the CPU figures against measured peaks. **The GPU figures follow
the same count and have not been run on one.**
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from finetune.backends.local.device import Device
from finetune.catalog import Shape
from finetune.recipe import Recipe

# The head's scores exist for this many positions at once (`loss.CHUNK`, held equal by a test).
LOSS_POSITIONS = 512
# What a process holds with the libraries loaded and a few tokens trained (measured), and the CUDA
# context with its libraries' work space (from experience, not measured here).
CPU_OVERHEAD = 0.6e9
CUDA_OVERHEAD = 1.0e9
# Bytes of a frozen weight. 4-bit: NF4, blocks of 64 with a quantized scale each; 8-bit: one scale
# a row. Embedding, head, norms and vision tower stay as they are.
_QUANTIZED = {"4bit": 0.516, "8bit": 1.002}
# On a CPU, glibc's malloc before 2.38 does not give a freed aligned block to a request of the same
# size: every layer leaves holes, held activations or not. Their size as a share of what all layers
# hold: 0.6 for 135M, 0.7 for a tiny model, 0.5 for it in float32, and growing over the first steps
# (glibc 2.36, 2026-11-22). With a mapping for each block (MALLOC_MMAP_THRESHOLD_) they vanish.
_HOLES = 0.7
# What the CUDA caching allocator rounds up (from experience, not measured here).
_ROUNDING = 1.15
# A trained weight, its gradient and AdamW's two moments, all in float32.
TRAINED_BYTES = 16
DEFAULT_MICRO_BATCH_TOKENS = 4096
_SMALLEST_MICRO_BATCH = 512


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes by part, for the largest micro-batch of a run.

    Attributes:
        weights: The frozen base (where all is trained, the vision tower).
        adapter: The trained weights, in float32.
        gradients: Their gradients, in float32.
        optimizer: AdamW's two moments, in float32.
        activations: What the backward pass needs, and what it computes with.
        loss: Scores of one chunk of positions, and the gradient they leave.
        overhead: Python and the libraries; on a GPU, its context.
        micro_batch_tokens: Tokens computed at once.
        gradient_checkpointing: Activations are computed again instead of held.
    """

    weights: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    loss: int
    overhead: int
    micro_batch_tokens: int
    gradient_checkpointing: bool

    @property
    def total(self) -> int:
        """All parts."""
        return sum(self.parts.values())

    @property
    def parts(self) -> dict[str, int]:
        """The parts by name."""
        return {name: getattr(self, name) for name in PARTS}


PARTS = ("weights", "adapter", "gradients", "optimizer", "activations", "loss", "overhead")


def count_adapter(shape: Shape, recipe: Recipe) -> dict[str, int]:
    """Return the trained weights of each kind of module: name → weights in all layers.

    `auto` is the seven linears of the decoder, of a mixture of experts those of its attention
    (and of the expert that all tokens share); with `full` it is the whole decoder. A target that
    is none of these counts nothing: its size is in the weights alone. The head of a classifier
    counts where its targets are filled in.
    """
    if recipe.local.full:
        return {"decoder": shape.weights - shape.vision_weights}
    lora, dense = recipe.local.lora, max(shape.shared_experts, not shape.experts)
    linears = {**shape.attention, **(shape.feed_forward if dense else {})}
    names = (
        list(linears) if lora.targets == "auto" else [n.rpartition(".")[2] for n in lora.targets]
    )
    counts = {
        name: shape.layers * (lora.rank * sum(linears[name]) + lora.dora * linears[name][1])
        for name in dict.fromkeys(names)
        if name in linears
    }
    if lora.experts and shape.experts:  # gate and up share what goes in
        sizes = 2 * shape.hidden + 3 * shape.intermediate
        counts["experts"] = shape.layers * shape.experts * lora.rank * sizes
    labels = sum(len(target.labels) for target in recipe.training.classifier_targets)
    return counts | ({"classifier": labels * shape.hidden} if labels else {})


def estimate_memory(
    shape: Shape,
    recipe: Recipe,
    device: Device,
    *,
    tokens: int,
    trained: int | None = None,
    gradient_checkpointing: bool = False,
) -> Memory:
    """Return what training takes at its peak.

    Args:
        shape: The model's.
        recipe: Numbers, quantization and adapters are read from it.
        device: Where it is trained.
        tokens: Tokens of the largest micro-batch.
        trained: How many of them are trained; all where absent.
        gradient_checkpointing: Activations are computed again instead of held.
    """
    if recipe.method == "classifier":
        trained = 0  # the head has no vocabulary: its scores are a handful
    trained = tokens if trained is None else trained
    width = _bytes_of_a_number(recipe, device)
    adapter = sum(count_adapter(shape, recipe).values())
    launch = recipe.local.launch
    sharded = launch.processes * launch.nodes if launch.strategy != "ddp" else 1
    ranks = sharded if launch.strategy == "fsdp" else 1
    return Memory(
        weights=_share_weights(shape, _weight_bytes(shape, recipe, width), ranks),
        adapter=4 * adapter // ranks,
        gradients=4 * adapter // sharded,
        optimizer=8 * adapter // sharded,
        activations=round(tokens * _activation_bytes(shape, recipe, device, gradient_checkpointing))
        + (width * adapter if width < 4 else 0)  # autocast keeps a copy of the adapter
        + _expert_bytes(shape, recipe, width, gradient_checkpointing),
        loss=_score_bytes(trained, width) * shape.vocab + 3 * trained * shape.hidden * width,
        overhead=round(CUDA_OVERHEAD if device.kind == "cuda" else CPU_OVERHEAD),
        micro_batch_tokens=tokens,
        gradient_checkpointing=gradient_checkpointing,
    )


def choose_memory(
    shape: Shape, recipe: Recipe, device: Device, lengths: Sequence[int], *, budget: int
) -> Memory:
    """Return the micro-batch and checkpointing that a run uses, with what it takes.

    What the recipe says is taken; what it leaves open is the first of these that fits: the
    default micro-batch, a smaller one (down to the longest sample), the same with gradient
    checkpointing. Where nothing fits, the last is returned: the caller compares it with `budget`.

    Args:
        shape: The model's.
        recipe: The recipe.
        device: Where it is trained.
        lengths: Tokens of each sample.
        budget: Bytes it may take. A run gives the device's total, so that running it again
            chooses the same.
    """
    longest = max(lengths, default=1)
    local = recipe.local
    largest = max(longest, local.micro_batch_tokens or 0)
    sizes = [largest]
    if local.micro_batch_tokens is None:
        start = max(longest, min(local.batch_tokens, DEFAULT_MICRO_BATCH_TOKENS))
        floor = max(longest, _SMALLEST_MICRO_BATCH)
        sizes = sorted({max(floor, start >> halving) for halving in range(4)}, reverse=True)
    checkpointing = {"auto": (False, True), "on": (True,), "off": (False,)}
    for again in checkpointing[local.gradient_checkpointing]:
        for tokens in sizes:
            memory = estimate_memory(
                shape, recipe, device, tokens=tokens, gradient_checkpointing=again
            )
            if memory.total <= budget:
                return memory
    return memory


def find_longest(shape: Shape, recipe: Recipe, device: Device, *, budget: int, context: int) -> int:
    """Return the largest `seq_len` whose samples fit in `budget` bytes, one at a time.

    Args:
        shape: The model's.
        recipe: The recipe; gradient checkpointing counts as on unless it says `off`.
        device: Where it is trained.
        budget: Bytes it may take.
        context: The model's own limit, in tokens.

    Returns:
        Tokens, at most `context`; 0 where not even one token fits.
    """
    again = recipe.local.gradient_checkpointing != "off"
    low, high = 0, context
    while low < high:
        middle = (low + high + 1) // 2
        memory = estimate_memory(shape, recipe, device, tokens=middle, gradient_checkpointing=again)
        low, high = (middle, high) if memory.total <= budget else (low, middle - 1)
    return low


def _bytes_of_a_number(recipe: Recipe, device: Device) -> int:
    if recipe.local.dtype == "auto":
        return 2 if device.bf16 else 4
    return 2 if recipe.local.dtype == "bfloat16" else 4


def _weight_bytes(shape: Shape, recipe: Recipe, width: int) -> int:
    shrunk = _QUANTIZED.get(recipe.local.quantize, width)
    if recipe.local.full:
        return 4 * shape.vision_weights
    rest = shape.weights - shape.linear_weights
    return round(shape.linear_weights * shrunk + rest * width)


def _expert_bytes(shape: Shape, recipe: Recipe, width: int, again: bool) -> int:
    """Return the bytes of adapted experts as they are computed with.

    PEFT adds the adapter to all experts of a layer at once, and their whole gradient comes back:
    each layer holds its experts a second time, one of them (with checkpointing: only that one)
    with a gradient. What is added is float32, and so is its gradient, before they are rounded.
    """
    if not (recipe.local.lora.experts and shape.experts):
        return 0
    weights = shape.expert_weights // shape.layers
    unrounded = 8 * weights if width == 2 else 0
    return width * weights * (2 if again else shape.layers + 1) + unrounded


def _share_weights(shape: Shape, weights: int, ranks: int) -> int:
    """Return what a rank holds: its shard, and two layers whole, the one in work and the next."""
    return weights if ranks == 1 else weights // ranks + 2 * weights // shape.layers


def _score_bytes(trained: int, width: int) -> int:
    """Return the bytes of scores a word of the vocabulary: a chunk, and the one before it."""
    one = min(LOSS_POSITIONS, trained) * (4 if width == 4 else 4 + width)
    return one + (4 * LOSS_POSITIONS if trained > LOSS_POSITIONS else 0)


def _activation_bytes(shape: Shape, recipe: Recipe, device: Device, again: bool) -> float:
    """Return the bytes of one token: held by the layers and the last norm, and computed with."""
    width = _bytes_of_a_number(recipe, device)
    layer = _layer_bytes(shape, recipe, device, width)
    held, working = shape.layers * layer, _working_bytes(shape, width)
    holes = _HOLES * held
    if again:  # the layer in work is held beside the inputs of all
        held, working = shape.layers * shape.hidden * width, layer + working
    held += 4 * shape.hidden  # the last norm computes in float32
    if device.kind == "cuda":
        return _ROUNDING * (held + working)
    return held + max(holes, working)  # what is computed with lies in the holes


def _layer_bytes(shape: Shape, recipe: Recipe, device: Device, width: int) -> int:
    """What one token of one layer holds for the backward pass."""
    hidden, inner = shape.hidden, shape.intermediate * shape.active
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    rank = recipe.local.lora.rank
    norms = 8 * hidden  # the input of both, in float32
    # Query, key, value and output; on the CPU keys are repeated for each query head.
    attention = width * (2 * queries + 2 * (keys if device.kind == "cuda" else queries))
    feed_forward = 3 * width * inner  # gate, its activation, up
    # Adapters keep their inputs; autocast makes a copy for each, float32 shares them.
    copies = 5 if width == 2 else 2
    inputs = width * (copies * hidden + queries + inner)
    held = norms + attention + feed_forward + inputs + 7 * width * rank
    if recipe.local.full:  # what the norms give, which their own gradient needs, and no adapters
        return held - 7 * width * rank + 8 * hidden
    if recipe.local.lora.dora:  # each linear's own answer and its adapter's, to scale them by row
        held += 2 * width * (queries + 2 * keys + 2 * hidden + 2 * inner)
    return held


def _working_bytes(shape: Shape, width: int) -> int:
    """What one token needs while one layer is computed or differentiated."""
    inner = shape.intermediate * shape.active
    return 3 * width * inner + 12 * shape.hidden
