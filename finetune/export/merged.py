"""One checkpoint without an adapter, for whatever serves transformers' checkpoints."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from finetune import records
from finetune.backends.local.merge import Parity, compare, merge
from finetune.backends.local.model import resolve_model
from finetune.errors import DataError
from finetune.files import open_bytes, read_lines
from finetune.progress import Progress, silent
from finetune.runs import Run
from finetune.tokens import load_tokenizer

_RECORDS, _TOKENS = 8, 512  # enough to see a wrong merge, little enough to take seconds


def export(run: Run, folder: Path, *, progress: Progress = silent) -> dict[str, Any]:
    """Write the merged checkpoint, and compare it with base and adapter before it gets its name.

    Returns:
        `kl` (nats), `agreement` (share), `positions` compared, `bytes` written.
    """
    base = resolve_model(run.recipe.model, progress=progress)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        merge(base, run.adapter, temporary, progress=progress)
        progress("compare", 0)
        parity = compare(base, run.adapter, temporary, _read_prompts(run, base))
        card = _write_card(run, parity)
        (temporary / "README.md").write_text(card, encoding="utf-8")
        temporary.chmod(0o755)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    size = sum(path.stat().st_size for path in folder.iterdir())
    return {**parity._asdict(), "bytes": size}


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


def _write_card(run: Run, parity: Parity) -> str:
    state = run.state
    return f"""---
base_model: {state["model"]}
library_name: transformers
---

# {state["name"]}

`{state["model"]}` tuned with LoRA (method `{state["method"]}`, run `{state["run"]}`), merged in
float32 and rounded once to the base's own numbers.

Against base and adapter on {parity.positions} tokens: KL divergence {parity.kl:.2g} nats, same most
likely next token {parity.agreement:.1%}. Its licence is the base model's.
"""
