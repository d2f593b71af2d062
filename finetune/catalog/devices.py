"""GPUs: how many dense bfloat16 operations a second they are built for.

Products summed in float32, without sparsity: what training uses. From NVIDIA's data sheets and
architecture white papers (GA102, Ada, Blackwell), as tables that cite them gave them on
2026-11-23; where a sheet states the figure with sparsity, half of it. A card that is not here, or
runs in other numbers, has no share of a peak.
"""

from __future__ import annotations

import re

# The names are those that the driver gives. A T4 has no bfloat16: models are trained in float32.
_PEAKS: tuple[tuple[str, str, float], ...] = (
    (r"A100\b.*", "bfloat16", 312e12),
    (r"H100 PCIe", "bfloat16", 756e12),
    (r"H100 NVL", "bfloat16", 835e12),
    (r"H100( 80GB HBM3)?", "bfloat16", 989e12),
    (r"H200", "bfloat16", 989e12),
    (r"B200", "bfloat16", 2250e12),
    (r"L4", "bfloat16", 121e12),
    (r"L40S", "bfloat16", 362e12),
    (r"A10", "bfloat16", 125e12),
    (r"GeForce RTX 3090", "bfloat16", 71e12),
    (r"GeForce RTX 4090", "bfloat16", 165.2e12),
    (r"GeForce RTX 5090", "bfloat16", 209.5e12),
    (r"T4", "float32", 8.1e12),
)


def find_peak(name: str, dtype: str) -> float | None:
    """Return a GPU's peak in operations a second, None where it is not known.

    Args:
        name: As the driver gives it.
        dtype: The numbers that are multiplied: `bfloat16` or `float32`.

    Example:
        >>> find_peak("NVIDIA GeForce RTX 4090", "bfloat16") / 1e12
        165.2
    """
    card = re.sub(r"^(NVIDIA|Tesla) ", "", name)
    for pattern, numbers, peak in _PEAKS:
        if numbers == dtype and re.fullmatch(pattern, card):
            return peak
    return None
