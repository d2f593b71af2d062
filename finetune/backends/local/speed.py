"""How much a run computes, how fast, and what share that is of what the hardware can do.

Counted are the operations that the method needs (a multiplication and an addition are two), not
those that this implementation spends: activations computed again count once, padding would count
nothing. With `N` weights in the linears that a token passes through and `A` in their adapters (of
the experts of a mixture, those of its own alone),

    a token costs        4 N + 6 A    base frozen: forward 2 N, gradient of the inputs 2 N
                         6 N          everything trained: the gradient of the weights as well
    a sample of T        6 · layers · query width · T²    scores and values, half of them masked
    a trained position   4 or 6 · vocabulary · hidden     the head, which others do not pass

as Kaplan et al. count it (arXiv:2001.08361, section 2.1; attention as in PaLM, arXiv:2204.02311,
appendix B, halved because what lies ahead is not computed). A reference model beside the trained
one, a vision tower and the routers of a mixture are left out.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import files
from finetune.catalog import Shape, find_peak, read_shape

if TYPE_CHECKING:
    from finetune.backends.local.schedule import Step

_SIDE = 1024  # of the matrices that are multiplied to find a CPU's peak
_SECONDS = 0.15  # that this takes at least


def count_flops(
    shape: Shape, trained: int, samples: Iterable[tuple[int, float]], *, of_experts: int = 0
) -> float:
    """Return the floating-point operations of training once on some samples.

    Args:
        shape: The model's.
        trained: Its trained weights: as many as the model's own where all are, else adapters'.
        samples: Tokens, and trained positions, of each.
        of_experts: Those of the trained weights that belong to experts.
    """
    attention = sum(a * b for a, b in shape.attention.values())
    feed_forward = sum(a * b for a, b in shape.feed_forward.values())
    weights = shape.layers * (attention + feed_forward * shape.active)
    if shape.experts:  # a token passes through some of them
        trained -= of_experts - of_experts * shape.experts_per_token // shape.experts
    whole = trained >= weights
    token = 6 * weights if whole else 4 * weights + 6 * trained
    squared = 6 * shape.layers * shape.heads * shape.head_dim
    position = (6 if whole else 4) * shape.vocab * shape.hidden
    return float(sum(t * token + t * t * squared + n * position for t, n in samples))


class Meter:
    """Tells of each step how fast it was computed.

    Args:
        shape: The model's, None where it is not known.
        trained: See `count_flops`.
        items: All items of the run, which `steps` point to.
        steps: The schedule.
        peak: Operations a second that the hardware can do at most, None where nobody knows.
        of_experts: See `count_flops`.
    """

    def __init__(
        self,
        shape: Shape | None,
        trained: int,
        items: Sequence[Any],
        steps: Sequence[Step],
        peak: float | None,
        *,
        of_experts: int = 0,
    ) -> None:
        self._shape, self._trained, self._peak = shape, trained, peak
        self._of_experts = of_experts
        self._items, self._steps = items, steps

    def judge(self, *, step: int, tokens_per_second: float, **_: Any) -> dict[str, float]:
        """Return `flops_per_second`, and `peak_share` where the peak is known.

        Args:
            step: Its number, from 1.
            tokens_per_second: Its measured speed.
            _: The other figures of the step.
        """
        if self._shape is None:
            return {}
        planned = self._steps[step - 1]
        items = [self._items[index] for group in planned.micro_batches for index in group]
        samples = ((item.tokens, len(getattr(item, "targets", ()))) for item in items)
        flops = count_flops(self._shape, self._trained, samples, of_experts=self._of_experts)
        speed = flops * tokens_per_second / planned.tokens
        share = {"peak_share": speed / self._peak} if self._peak else {}
        return {"flops_per_second": speed, **share}


def describe_choices(
    model: Any, *, micro_batch_tokens: int, gradient_checkpointing: bool
) -> dict[str, Any]:
    """Return what was chosen to compute with, by name.

    Args:
        model: What is trained, where it is trained.
        micro_batch_tokens: Tokens computed at once.
        gradient_checkpointing: Whether activations are computed again.
    """
    import torch

    parameter = next(model.parameters())
    cuda = parameter.device.type == "cuda"
    half = torch.bfloat16 in {model.dtype, model.config.dtype}  # trained in full: the latter
    return {
        "device": torch.cuda.get_device_name(parameter.device) if cuda else "cpu",
        "dtype": "bfloat16" if half else "float32",
        "attention": "flash, by sample" if cuda and half else "by sample",
        "micro_batch_tokens": micro_batch_tokens,
        "gradient_checkpointing": "on" if gradient_checkpointing else "off",
        "kernels": "torch",
        "compile": "off",
    }


def open_meter(
    folder: Path,
    model: Any,
    items: Sequence[Any],
    steps: Sequence[Step],
    chosen: Mapping[str, Any],
    *,
    processes: int,
) -> Meter:
    """Return the meter of a run.

    Args:
        folder: The model's folder.
        model: What is trained.
        items: All items of the run.
        steps: The schedule.
        chosen: See `describe_choices`.
        processes: How many devices train together.
    """
    shape = read_shape(files.read_json(folder / "config.json"))
    sizes = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    of_experts = sum(size for name, size in sizes.items() if ".experts." in name)
    peak = find_hardware_peak(chosen["device"], chosen["dtype"], processes=processes)
    return Meter(shape, sum(sizes.values()), items, steps, peak, of_experts=of_experts)


def find_hardware_peak(device: str, dtype: str, *, processes: int = 1) -> float | None:
    """Return the operations a second that the hardware of a run can do at most.

    A GPU's is looked up; a CPU's is measured with the threads that torch is set to.

    Args:
        device: `cpu`, or a GPU's name.
        dtype: The numbers of the model: `bfloat16` or `float32`.
        processes: How many devices train together. Processes on one CPU measure beside each
            other, so that each finds its own part.
    """
    one = _measure_cpu(dtype, _count_threads()) if device == "cpu" else find_peak(device, dtype)
    return None if one is None else one * processes


def _count_threads() -> int:
    import torch

    return torch.get_num_threads()


@functools.cache
def _measure_cpu(dtype: str, threads: int) -> float:  # noqa: ARG001 (part of the cache's key)
    import torch

    one, other = (torch.ones(_SIDE, _SIDE, dtype=getattr(torch, dtype)) for _ in range(2))
    out = torch.empty_like(one)
    best, until = float("inf"), time.perf_counter() + _SECONDS
    while best == float("inf") or time.perf_counter() < until:
        torch.mm(one, other, out=out)  # the first one loads the kernel
        started = time.perf_counter()
        torch.mm(one, other, out=out)
        best = min(best, time.perf_counter() - started)
    return 2 * _SIDE**3 / best
