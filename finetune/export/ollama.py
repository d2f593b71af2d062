"""Ollama: a GGUF file, and the Modelfile that says how conversations are written for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finetune.backends.local.model import resolve_model
from finetune.errors import UsageError
from finetune.export import gguf
from finetune.export.template import find_layout, write_go
from finetune.files import write_atomic
from finetune.progress import Progress
from finetune.runs import Run
from finetune.tokens import load_tokenizer


def write(
    run: Run, folder: Path, *, numbers: gguf.Numbers = "auto", progress: Progress
) -> dict[str, Any]:
    """Write GGUF (see there) and `Modelfile`.

    Raises:
        UsageError: A template cannot express the layout of the tokenizer's version.
    """
    base = resolve_model(run.recipe.model, progress=progress)
    tokenizer = load_tokenizer(base)
    layout = find_layout(tokenizer)
    if layout is None:
        raise UsageError(
            f"{base}: a Modelfile cannot express the layout of its tokenizer"
            f" (`{tokenizer.version}`)",
            hint="`--to gguf` writes the file alone, `--to vllm` serves it with its own tokenizer",
        )
    facts = gguf.write(run, folder, numbers=numbers, progress=progress)
    lines = [
        f"FROM ./{facts['file']}",
        f'TEMPLATE """{write_go(layout)}"""',
        f"PARAMETER num_ctx {run.recipe.training.seq_len}",
    ]
    write_atomic(folder / "Modelfile", ("\n".join(lines) + "\n").encode())
    name = run.state["name"].lower()
    return {**facts, "command": f"ollama create {name} -f {{folder}}/Modelfile"}
