"""Whether what was written says what the run's base and adapter say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetune import records
from finetune.backends.local.merge import MIN_AGREEMENT, compare
from finetune.backends.local.model import Dtype
from finetune.errors import DataError
from finetune.files import open_bytes, read_lines
from finetune.progress import Progress
from finetune.runs import Run
from finetune.tokens import load_tokenizer

_RECORDS, _TOKENS = 8, 512  # enough to see a wrong export, little enough to take seconds


def compare_with_run(
    run: Run,
    base: Path,
    folder: Path,
    *,
    load: Callable[[Path, Dtype], Any] | None = None,
    min_agreement: float = MIN_AGREEMENT,
    progress: Progress,
) -> dict[str, Any]:
    """Return how near a folder's model is to base and adapter.

    Args:
        run: The run.
        base: Its base.
        folder: What was written.
        load: Gives the model in the folder, where it is not in transformers' layout.
        min_agreement: Least share of equal next tokens.
        progress: Told about the work.

    Returns:
        `kl` (nats), `agreement` (share of equal next tokens), `positions` compared.

    Raises:
        TrainingError: They are further apart than rounding explains.
    """
    progress("compare", 0)
    prompts = _read_prompts(run, base)
    found = compare(base, run.tuned, folder, prompts, load=load, min_agreement=min_agreement)
    return found._asdict()


def _read_prompts(run: Run, base: Path) -> list[list[int]]:
    """Return the tokens of some records of the run's dataset, of a sentence where it is gone."""
    tokenizer = load_tokenizer(base)
    prompts: list[list[int]] = []
    for path in sorted(run.dataset.glob("*.jsonl")):
        if not path.name.startswith(("validation", "train")) or len(prompts) >= _RECORDS:
            continue
        with open_bytes(path) as file:
            for line in read_lines(file):
                if len(prompts) >= _RECORDS or line.data is None:
                    break
                try:
                    sample = tokenizer.encode(records.decode("chat", line.data))[0]
                except (DataError, ValueError):
                    continue
                prompts.append(sample.input_ids[:_TOKENS])
    text = "The quick brown fox jumps over the lazy dog, and then it writes a letter home."
    return prompts or [tokenizer.encode_text(text).input_ids]
