"""An adapter merged into its base: in float32, tensor by tensor, rounded once.

The base is read and written shard by shard, so that memory holds one shard and no model.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from finetune.backends.local.lora import EXPERTS
from finetune.backends.local.model import Dtype, choose_dtype, is_adapter, load_model, load_tuned
from finetune.backends.local.quiet import quiet
from finetune.errors import TrainingError, UsageError
from finetune.files import read_json
from finetune.progress import Progress, silent

if TYPE_CHECKING:
    import torch

# What comes along from the base's folder, beside its weights.
COMPANIONS = ("*.json", "*.jinja", "tokenizer.model*", "LICENSE*", "NOTICE*")
_MODULE, _LENGTHS = "base_model.model.", ".lora_magnitude_vector"
# Rounding a merged model to bfloat16 moves it by about 0.01 nats from the unmerged one, as much as
# bfloat16 moves any model (measured 2026-11-22); a wrong merge moves it by whole nats.
MAX_KL = 0.05
MIN_AGREEMENT = 0.95
_TIE = 0.02  # nats between two tokens that rounding may swap


class Parity(NamedTuple):
    """How near a merged model is to base plus adapter.

    Attributes:
        kl: Mean Kullback-Leibler divergence of the next token, in nats.
        agreement: Share of positions with the same most likely token, ties to 0.02 nats included.
        positions: How many were compared.
    """

    kl: float
    agreement: float
    positions: int


def merge(base: Path, tuned: Path, folder: Path, *, progress: Progress = silent) -> None:
    """Write the checkpoint of a base with an adapter merged into it.

    Args:
        base: Checkpoint in safetensors.
        tuned: See `Weights`.
        folder: Where the files are written; it is there and empty.
        progress: Told about the shards.

    Raises:
        UsageError: The adapter is of a kind that cannot be merged exactly, or does not fit.
    """
    from safetensors.torch import save_file

    weights = Weights(base, tuned)
    shards = sorted(set(weights.shards.values()))
    for number, shard in enumerate(shards):
        progress("merge", number, len(shards))
        names = [name for name, place in weights.shards.items() if place == shard]
        tensors = {name: weights.read(name) for name in names}
        save_file(tensors, folder / shard.name, metadata={"format": "pt"})
        (folder / shard.name).chmod(0o644)
    for pattern in COMPANIONS:
        for file in sorted(weights.folder.glob(pattern)):
            if file.name != "digests.json":
                shutil.copyfile(file, folder / file.name)
    progress("merge", len(shards), len(shards))


def compare(
    base: Path,
    tuned: Path,
    merged: Path,
    prompts: Sequence[Sequence[int]],
    *,
    load: Callable[[Path, Dtype], Any] | None = None,
    min_agreement: float = MIN_AGREEMENT,
) -> Parity:
    """Return how near what was written is to base plus adapter, on some prompts.

    Args:
        base: The base's folder.
        tuned: The adapter's folder, or that of a model all of whose weights were trained.
        merged: What was written: a merged checkpoint, or what `load` reads.
        prompts: Ids to compare next-token distributions on; not empty.
        load: Gives the model in `merged`, in given numbers.
        min_agreement: Least share of positions with the same most likely token.

    Raises:
        TrainingError: They are further apart than rounding explains.
    """
    # Rounding of the comparison itself is kept out where the model is small enough for it.
    small = sum(path.stat().st_size for path in base.glob("model*.safetensors")) < 4e9
    dtype: Dtype = "float32" if small else choose_dtype("auto", "cpu")
    model = load_tuned(base, tuned, dtype=dtype)
    expected = [_log_probabilities(model, prompt) for prompt in prompts]
    del model
    model = load(merged, dtype) if load else load_model(merged, dtype=dtype)
    total, same, positions = 0.0, 0, 0
    for prompt, ours in zip(prompts, expected, strict=True):
        theirs = _log_probabilities(model, prompt)
        total += (ours.exp() * (ours - theirs)).sum().item()
        behind = ours.amax(dim=1) - ours.gather(1, theirs.argmax(dim=1, keepdim=True))[:, 0]
        same += int((behind <= _TIE).sum().item())
        positions += len(prompt)
    parity = Parity(total / positions, same / positions, positions)
    if not (parity.kl <= MAX_KL and parity.agreement >= min_agreement):
        raise TrainingError(
            f"what was written differs from base and adapter: KL {parity.kl:.3g} nats (at most"
            f" {MAX_KL}), same next token {parity.agreement:.1%} (at least {min_agreement:.0%})",
            hint="serve the adapter on its base instead",
        )
    return parity


class Weights:
    """The weights of a base with an adapter merged into them, read one at a time.

    Args:
        base: Checkpoint in safetensors.
        tuned: A LoRA adapter on its linears, and on its experts where it has them; or a model
            all of whose weights were trained, which is then read as it is.

    Attributes:
        folder: Where the checkpoint's own files lie: the base's, or the tuned model's.
        shards: File of each weight, by its name in the model's class.

    Raises:
        UsageError: The adapter is of a kind that cannot be merged exactly, or does not fit.
    """

    def __init__(self, base: Path, tuned: Path) -> None:
        from safetensors import safe_open

        self.folder = base if is_adapter(tuned) else tuned
        self._deltas = read_adapter(tuned) if is_adapter(tuned) else {}
        self.shards: dict[str, Path] = {}
        for shard in sorted(self.folder.glob("model*.safetensors")):
            with safe_open(shard, framework="pt") as file:
                self.shards |= dict.fromkeys(file.keys(), shard)
        if not self.shards:
            raise UsageError(f"{self.folder}: no `model*.safetensors` here")
        for name in [name for name in self._deltas if name not in self.shards]:
            self._deltas |= _place(name, self._deltas.pop(name))
        missing = self._deltas.keys() - self.shards.keys()
        if missing:
            raise UsageError(
                f"{tuned}: does not fit {base}: {len(missing)} tensors such as `{min(missing)}`"
                " are not there"
            )

    def read(self, name: str) -> torch.Tensor:
        """Return a weight: merged in float32, rounded once to the base's own numbers.

        Raises:
            UsageError: It is quantized, or the adapter is of another shape.
        """
        from safetensors import safe_open

        shard = self.shards[name]
        with safe_open(shard, framework="pt") as file:
            weight: torch.Tensor = file.get_tensor(name)
        delta = self._deltas.get(name)
        return weight if delta is None else _add(weight, delta, f"{shard}: {name}")


class Delta(NamedTuple):
    """The change of a weight W to `W + scale · up @ down`; DoRA gives each row its length then."""

    down: torch.Tensor  # [rank, inputs], of fused experts [experts, rank, inputs]
    up: torch.Tensor  # [outputs, rank], of fused experts [experts, outputs, rank]
    scale: float
    lengths: torch.Tensor | None = None  # [outputs]


def read_adapter(adapter: Path) -> dict[str, Delta]:
    """Return the change of each weight, in float32, by its name in the model's class.

    Raises:
        UsageError: The adapter is of a kind that cannot be merged exactly.
    """
    from safetensors.torch import load_file

    config = read_json(adapter / "adapter_config.json")
    if not (adapter / "adapter_model.safetensors").is_file():
        raise UsageError(f"{adapter}: no `adapter_model.safetensors` here")
    _require_plain(adapter, config)
    tensors = load_file(adapter / "adapter_model.safetensors")
    deltas = {}
    for name in sorted(tensors):
        module, matched, rest = name.removeprefix(_MODULE).partition(".lora_A.")
        if not matched:
            if ".lora_B." not in name and not name.endswith(_LENGTHS):
                raise UsageError(f"{adapter}: `{name}` cannot be merged")
            continue
        down, up = tensors[name].float(), tensors[f"{_MODULE}{module}.lora_B.{rest}"].float()
        lengths = None
        if config.get("target_parameters") and module.removesuffix(".base_layer").endswith(
            ".experts"
        ):
            module, down, up = _unfold(module, down, up, rank=config["r"])
        else:
            if config.get("use_dora"):
                lengths = tensors[f"{_MODULE}{module}{_LENGTHS}"].float()
            module += ".weight"
        rank = down.shape[-2]
        scale = config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank)
        deltas[module] = Delta(down, up, scale, lengths)
    return deltas


def _unfold(
    module: str, down: torch.Tensor, up: torch.Tensor, *, rank: int
) -> tuple[str, torch.Tensor, torch.Tensor]:
    """Return the name of a fused tensor, and its change by expert.

    PEFT nests the adapters of a module's tensors in the order of their declaration, the first
    innermost, and lays the experts out side by side: in A expert by expert, in B rank by rank
    (peft 0.21.2, `lora.layer.ParamWrapper`).

    Returns:
        The name; A [experts, rank, inputs]; B [experts, outputs, rank].
    """
    inner = module.endswith(".base_layer")
    name = f"{module.removesuffix('.base_layer')}.{EXPERTS[0 if inner else 1]}"
    experts = down.shape[0] // rank
    by_expert = up.reshape(len(up), rank, experts).permute(2, 0, 1)
    return name, down.reshape(experts, rank, -1), by_expert


def _place(name: str, delta: Delta) -> dict[str, Delta]:
    """Return the change of a weight that a class holds, by its names in a checkpoint.

    Models with images hold their decoder one level further down than older files do. Mixtral's
    class holds `mlp.experts.gate_up_proj`, its checkpoint `block_sparse_moe.experts.N.w1` (gate)
    and `w3` (up), and `w2` (down).
    """
    inner = name.removeprefix("model.language_model.")
    if inner != name:
        return {f"language_model.model.{inner}": delta}
    if ".mlp.experts." not in name:
        return {name: delta}
    stem, _, kind = name.rpartition(".")
    stem = stem.replace(".mlp.experts", ".block_sparse_moe.experts")
    parts = {"w2": delta.up}
    if kind == EXPERTS[0]:
        gate, up = delta.up.chunk(2, dim=1)
        parts = {"w1": gate, "w3": up}
    return {
        f"{stem}.{number}.{part}.weight": Delta(delta.down[number], rows[number], delta.scale)
        for part, rows in parts.items()
        for number in range(len(rows))
    }


def _require_plain(adapter: Path, config: dict[str, Any]) -> None:
    special = {
        "modules_to_save": bool(config.get("modules_to_save")),
        "target_parameters": bool(_other_parameters(config)),
        "alpha_pattern": bool(config.get("alpha_pattern")),
        "fan_in_fan_out": bool(config.get("fan_in_fan_out")),
        "bias": config.get("bias", "none") != "none",
        "peft_type": config.get("peft_type") != "LORA",
        "init_lora_weights": config.get("init_lora_weights", True) not in (True, False, "gaussian"),
    }
    found = [name for name, present in special.items() if present]
    if found:
        raise UsageError(f"{adapter}: `{found[0]}` of this adapter cannot be merged exactly")
    tied = {"embed_tokens", "lm_head"} & set(config.get("target_modules") or ())
    if tied:
        raise UsageError(
            f"{adapter}: `{min(tied)}` has an adapter: merging it would change the tied twin too"
        )


def _other_parameters(config: dict[str, Any]) -> set[str]:
    """Return which tensors an adapter changes beside all of a mixture's experts."""
    wanted = {f"experts.{end}" for end in EXPERTS}
    found = {".".join(name.split(".")[-2:]) for name in config.get("target_parameters") or ()}
    return found ^ wanted if found else set()


def _add(weight: torch.Tensor, delta: Delta, place: str) -> torch.Tensor:
    if not weight.is_floating_point() or weight.element_size() < 2:
        raise UsageError(f"{place}: holds {weight.dtype}: merge into the unquantized base")
    if weight.shape != (*delta.up.shape[:-1], delta.down.shape[-1]):
        raise UsageError(f"{place}: the adapter is of another shape")
    merged = weight.float() + delta.scale * (delta.up @ delta.down)
    if delta.lengths is not None:
        merged *= (delta.lengths / merged.norm(dim=1))[:, None]
    return merged.to(weight.dtype)


def _log_probabilities(model: Any, prompt: Sequence[int]) -> torch.Tensor:
    """Return the log-probabilities of the next token at each position, [tokens, vocabulary]."""
    import torch

    device = model.get_input_embeddings().weight.device
    with quiet(), torch.inference_mode():
        logits = model(input_ids=torch.tensor([list(prompt)], device=device)).logits[0]
        return torch.log_softmax(logits.float(), dim=-1).cpu()
