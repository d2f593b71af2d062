"""Answers that fit a schema, whatever the model would say, in the tokens of either kind of file."""

import json

import pytest
import torch

from finetune.backends.local.constraint import follow_schema
from finetune.tokens import load_tokenizer
from finetune.tokens.embedded import provide_tokenizer

SCHEMA = {
    "type": "object",
    "properties": {"topic": {"enum": ["billing", "delivery"]}, "urgent": {"type": "boolean"}},
    "required": ["topic", "urgent"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("kind", ["hugging face", "mistral"])
def test_any_model_writes_what_fits_the_schema(kind, chatml_folder):
    tokenizer = load_tokenizer(chatml_folder if kind == "hugging face" else provide_tokenizer())
    torch.manual_seed(0)
    likes = torch.randn(200, tokenizer.vocab_size + 3)  # a model may have rows without a token
    grammar = follow_schema(tokenizer, SCHEMA)
    ids = []
    for logits in likes:
        grammar.forbid(logits)
        ids.append(int(logits.argmax()))
        if ids[-1] == tokenizer.eos_id:
            break
        grammar.accept(ids[-1])

    answer = json.loads(tokenizer.decode(ids))
    assert ids[-1] == tokenizer.eos_id
    assert answer.keys() == {"topic", "urgent"}
    assert answer["topic"] in ("billing", "delivery")
