"""Counting without laying out, beside the encoder's own layout."""

from __future__ import annotations

import copy
import random

import pytest

from finetune import records
from finetune.errors import DataError
from finetune.tokens.answers import split_record
from finetune.tokens.selfcheck import find_miscount
from finetune.tokens.tally import Arithmetic, Numbers
from tests.tokens.conftest import for_each_tokenizer
from tests.tokens.conversations import make_record, text

CHUNKS = [
    [],
    [{"type": "text", "text": ""}],
    [{"type": "text", "text": " "}, {"type": "text", "text": ""}, {"type": "text", "text": "b "}],
    [{"type": "image_url", "image_url": "data:image/png;base64,AAAA"}],
    [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}], "closed": False}],
    [
        {"type": "text", "text": "a "},
        {"type": "thinking", "thinking": [{"type": "text", "text": "b"}] * 2},
        {"type": "thinking", "thinking": []},
        {"type": "text", "text": ""},
        {"type": "text", "text": "c"},
        {"type": "text", "text": "d  "},
    ],
]
IMAGE_AT_THE_END = {  # in no sample
    "messages": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": CHUNKS[3]},
        {"role": "assistant", "content": "c", "weight": 0},
    ]
}
JSONS = [
    "",
    " ",
    "{}",
    '"text"',
    "null",
    "[1, 1.0, 1e400, -0.0, NaN]",
    '{"a": 1, "a": 2}',
    '{"half": "\\ud83d", "whole": "\\ud83d\\ude00"}',
    "{'no': 'JSON'}",
    "12345678901234567890123",
    "9" * 5000,
]


def spoil(rng, value):
    """Change some messages so that versions differ in what they make of them, or refuse them."""
    messages = value["messages"]
    for message in messages:
        if rng.random() < 0.3:
            if message["role"] == "tool":
                message["content"] = rng.choice(JSONS)
            else:
                message["content"] = rng.choice(["", " ", "\n  ", text(rng), *CHUNKS])
        if rng.random() < 0.1:
            message.pop("content", None)
        if rng.random() < 0.1:
            message.pop("tool_call_id", None)
        for call in message.get("tool_calls", []):
            spoil_call(rng, call)
    if rng.random() < 0.3:
        messages.insert(rng.randrange(len(messages)), copy.deepcopy(rng.choice(messages)))
    if rng.random() < 0.2:
        del messages[0]
    if rng.random() < 0.1:
        tool = {"type": "function", "function": {"name": "no name", "parameters": {"type": 1}}}
        value["tools"] = [tool]
    return value


def spoil_call(rng, call):
    if rng.random() < 0.5:
        call["function"]["arguments"] = rng.choice([*JSONS, {}, {"é": [1.0, None]}])
    if rng.random() < 0.2:
        call["id"] = rng.choice(["", "null", "x"])
    if rng.random() < 0.1:
        call["function"]["name"] = rng.choice(["", "not a name", "größe"])


def make_spoiled(version, count):
    for seed in range(count):
        value = spoil(random.Random(seed), make_record(seed, version))
        try:
            yield records.from_object("chat", value)
        except records.msgspec.ValidationError:
            continue


def tell(result):
    if isinstance(result, DataError):
        return (result.fact, result.path, result.rule)
    return result


@for_each_tokenizer()
def test_odd_conversations_count_as_they_are_laid_out(tokenizer):
    odd = list(make_spoiled(int(tokenizer.version[1:]), 400))
    odd.append(records.from_object("chat", IMAGE_AT_THE_END))
    laid_out = copy.copy(tokenizer)
    laid_out._adds_up = False
    expected = [tell(result) for result in laid_out.count_many(odd)]
    assert [tell(result) for result in tokenizer.count_many(odd)] == expected
    counted = [result for result in expected if len(result) == 2]
    assert 40 < len(counted) < len(odd) - 40


@pytest.mark.parametrize("version", [1, 3, 7, 11, 13, 15])
def test_arithmetic_knows_nearly_all_conversations(version):
    arithmetic = Arithmetic(
        version, thinks=True, settings=None, dump_tools=lambda _: "[]", numbers=Numbers()
    )
    known = 0
    for seed in range(200):
        record = records.from_object("chat", make_record(seed, version))
        known += arithmetic.tally(record, split_record(record, version)) is not None
    assert known > 180


@for_each_tokenizer("v7", "v15")
def test_wrong_arithmetic_is_found_out(tokenizer):
    assert tokenizer._adds_up
    wrong = copy.copy(tokenizer)
    wrong._settings = "settings of another file"
    assert find_miscount(wrong)
