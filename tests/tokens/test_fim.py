"""Fill in the middle: cuts lose nothing, and the layout is mistral-common's."""

from __future__ import annotations

import inspect

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mistral_common.protocol.fim.request import FIMRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from finetune.errors import UsageError
from finetune.tokens import IGNORED, cut_text, fim
from finetune.tokens.fim import encode_document
from tests.tokens.conftest import for_each_tokenizer

SOURCE = inspect.getsource(fim)


@given(st.text(), st.text(max_size=3))
@example("a\r\n\tb\r\nc", "")
@example("def f():\n    return 1\n\n\nx = 2", "1")
def test_the_parts_of_a_cut_are_the_text(text, seed):
    cut = cut_text(text, seed)

    assert cut == cut_text(text, seed)
    if cut is None:
        assert not text.strip() or not any(line.strip() for line in text.splitlines())
    else:
        assert "".join(cut) == text
        assert cut.middle.strip()


def test_cuts_differ_by_seed_and_end_where_lines_do():
    cuts = [cut_text(SOURCE, str(number)) for number in range(200)]

    assert len(set(cuts)) > 150
    assert all(cut.suffix[:1] in ("\n", "") for cut in cuts)
    assert any(cut.prefix[-1:] not in ("\n", " ") for cut in cuts), "some in the middle of a line"
    assert any(cut.middle.count("\n") > 8 for cut in cuts), "some are blocks"


@for_each_tokenizer("v3", "v3-tekken", "v7", "v7-tekken", "v11", "v13")
def test_prompts_are_those_of_encode_fim(tokenizer, tokenizer_path, request):
    mistral = MistralTokenizer.from_file(tokenizer_path(request.node.callspec.params["tokenizer"]))
    texts = [SOURCE, "é = 'ünï'\n\treturn ☺\n", "x"]
    for number, text in enumerate(texts * 20):
        cut = cut_text(text, str(number))
        wanted = mistral.encode_fim(FIMRequest(prompt=cut.prefix, suffix=cut.suffix)).tokens
        prompt = tokenizer.fim_prompt(cut.prefix, cut.suffix)

        assert prompt == wanted
        if cut.prefix and cut.suffix:
            text_of = tokenizer.decode([*prompt[:1], *tokenizer.fim_middle(cut.middle)])
            assert text_of.strip() == cut.middle.strip()


@for_each_tokenizer("v3", "v3-tekken", "v7-tekken")
def test_all_is_trained_but_controls(tokenizer):
    sample = encode_document(tokenizer, SOURCE, 1.0, "0")
    controls = {tokenizer.bos_id, *tokenizer.fim_controls}

    for token, label in zip(sample.input_ids, sample.labels, strict=True):
        assert label == (IGNORED if token in controls else token)
    assert sample.labels[-1] == tokenizer.eos_id
    assert controls <= set(sample.input_ids)


@for_each_tokenizer("v3")
def test_the_share_of_cut_documents_is_the_ratio(tokenizer):
    suffix, _ = tokenizer.fim_controls
    cut = [
        suffix in encode_document(tokenizer, f"x = {number}\ny = 2", 0.3, "0").input_ids
        for number in range(1000)
    ]

    assert 250 < sum(cut) < 350


@for_each_tokenizer("v1", "v2")
def test_versions_before_3_have_no_layout(tokenizer):
    with pytest.raises(UsageError, match="no layout to fill in a middle"):
        tokenizer.fim_prompt("a", "b")
