"""Records become samples: token ids with the loss on exactly the assistant's tokens.

record ─ answers ─▶ which messages one sample trains ─ layout ─▶ control ids, texts, spans ─▶ Sample

For a Mistral tokenizer file the layout is mistral-common's own, so the ids equal its
`encode_chat_completion` (checked on load). Other models go through their chat template.
"""

from __future__ import annotations

from finetune.tokens.fim import cut_text
from finetune.tokens.fit import Fit, fit, fit_record, make_samples
from finetune.tokens.load import load_tokenizer
from finetune.tokens.tokenizer import IGNORED, Prompt, Sample, Tokenizer

__all__ = [
    "IGNORED",
    "Fit",
    "Prompt",
    "Sample",
    "Tokenizer",
    "cut_text",
    "fit",
    "fit_record",
    "load_tokenizer",
    "make_samples",
]
