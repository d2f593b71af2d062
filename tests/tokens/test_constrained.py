"""Answers that fit a schema, whatever the model would say, in the tokens of either kind of file."""

import json

import pytest
import torch

from finetune.backends.local.constraint import follow_schema, force_calls
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


@pytest.mark.parametrize("name", ["v3-tekken", "v11", "v13"])
@pytest.mark.parametrize("parallel", [True, False])
def test_a_second_call_is_made_only_where_there_may_be_several(name, parallel, tokenizer_path):
    tokenizer = load_tokenizer(tokenizer_path(name))
    controls = tokenizer.call_controls
    grammar = force_calls(tokenizer, [{"name": "find", "parameters": SCHEMA}], parallel=parallel)
    arguments = '{"topic": "billing", "urgent": true}'
    if controls.bracketed:
        call = [
            controls.calls,
            *tokenizer.text_ids(f'[{{"name": "find", "arguments": {arguments}}}'),
        ]
        another = tokenizer.text_ids(", {")[0]
    else:
        number = (
            [] if controls.call_id is None else [controls.call_id, *tokenizer.text_ids("abcDEF123")]
        )
        head = [controls.calls, *tokenizer.text_ids("find"), *number, controls.arguments]
        call, another = [*head, *tokenizer.text_ids(arguments)], controls.calls
    for token in call:
        grammar.accept(token)
    likes = torch.zeros(tokenizer.vocab_size)
    grammar.forbid(likes)
    assert (float(likes[another]) == 0) == parallel
