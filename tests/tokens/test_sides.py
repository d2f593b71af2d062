"""Pairs and ratings as samples: mistral-common's own ids, the loss on the answer alone."""

import copy

import pytest

from finetune.errors import DataError
from finetune.records import from_object
from finetune.tokens import IGNORED, fit, load_tokenizer

VERSIONS = ["v1", "v2", "v3", "v3-tekken", "v7"]
TOOL = {
    "type": "function",
    "function": {"name": "find_order", "parameters": {"type": "object", "properties": {}}},
}


def said(role, content):
    return {"role": role, "content": content}


def pair(*, system=None, tools=False, history=1):
    prompt = [said("system", system)] if system else []
    for turn in range(history):
        prompt += [said("user", f"Question {turn}?"), said("assistant", f"Answer {turn}.")]
    return {
        "prompt": [*prompt, said("user", "Where is my parcel?")],
        "chosen": [said("assistant", "With the carrier; may I have your order number?")],
        "rejected": [said("assistant", "No idea.")],
        **({"tools": [TOOL]} if tools else {}),
    }


@pytest.fixture(params=VERSIONS)
def tokenizer(request):
    return load_tokenizer(request.param)


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_each_answer_stands_after_the_prompt_as_it_does_at_inference(tokenizer, system):
    tools = tokenizer.version != "v1"  # which has none
    row = pair(system=system, tools=tools)
    record = from_object("preference", row)
    chosen, rejected = tokenizer.encode(record)
    assert (chosen.side, rejected.side) == (0, 1)
    prompt = tokenizer.encode_prompt(record.prompt, record.tools)
    for sample, name in ((chosen, "chosen"), (rejected, "rejected")):
        chat = from_object(
            "chat", {"messages": row["prompt"] + row[name]} | ({"tools": [TOOL]} if tools else {})
        )
        alone = tokenizer.encode(chat)[-1]  # the last answer, in its context at inference
        assert sample.input_ids == alone.input_ids
        assert sample.input_ids[: len(prompt)] == prompt
        assert sample.labels == [IGNORED] * len(prompt) + sample.input_ids[len(prompt) :]
        assert sample.labels[-1] == tokenizer.eos_id


def test_counts_are_those_of_the_samples(tokenizer):
    rows = [pair(history=n, system=s) for n in range(3) for s in (None, "Be brief.")]
    records = [from_object("preference", row) for row in rows]
    rated = [
        from_object("rating", {"prompt": row["prompt"], "completion": row["chosen"], "label": True})
        for row in rows
    ]
    for record, counted in zip(records + rated, tokenizer.count_many(records + rated), strict=True):
        samples = tokenizer.encode(record)
        assert counted == (sum(map(len, samples)), sum(s.count_trained() for s in samples))


def test_an_answer_that_calls_and_then_says_is_trained_whole():
    tokenizer = load_tokenizer("v7")
    row = pair(tools=True, history=0)
    call = {"id": "abcdefghi", "function": {"name": "find_order", "arguments": "{}"}}
    row["chosen"] = [
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": "none", "tool_call_id": "abcdefghi", "name": "find_order"},
        said("assistant", "There is no such order."),
    ]
    *chosen, rejected = tokenizer.encode(from_object("preference", row))
    assert [sample.side for sample in chosen] == [0, 0]  # v7 trains a call by itself
    assert rejected.side == 1
    assert all(sample.count_trained() for sample in chosen)


def test_answers_of_the_same_tokens_are_refused():
    row = pair()
    row["rejected"] = [said("assistant", row["chosen"][0]["content"] + " ")]
    tokenizer = load_tokenizer("v7")  # where space at the end is cut off
    with pytest.raises(DataError) as caught:
        tokenizer.encode(from_object("preference", row))
    assert (caught.value.rule, caught.value.path) == ("same-answers", "rejected")


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda row: row["chosen"][0].update(content=""), "chosen"),
        (
            lambda row: row["chosen"].append(said("assistant", "Yes?") | {"weight": 0.5}),
            "chosen[1].weight",
        ),
        (lambda row: row["rejected"][0].update(weight=0), "rejected"),
    ],
)
def test_a_fault_names_its_place_in_the_record(change, path):
    row = pair()
    change(row)
    with pytest.raises(DataError) as caught:
        load_tokenizer("v7").encode(from_object("preference", row))
    assert caught.value.path == path


@pytest.fixture
def long():
    row = pair(history=4, system="Be brief.")
    row["chosen"][0]["content"] += " I will look it up for you at once."
    return from_object("preference", row)


def lengths(samples):
    return [len(sample) for sample in samples]


def test_too_long_pairs_are_refused_dropped_or_shortened_as_one(long):
    tokenizer = load_tokenizer("v7")
    chosen, rejected = lengths(tokenizer.encode(long))
    assert chosen > rejected
    assert lengths(fit(tokenizer, long, chosen).samples) == [chosen, rejected]
    limit = chosen - 1  # the worse answer alone would fit
    with pytest.raises(DataError, match=f"too long: {chosen} tokens, at most {limit}"):
        fit(tokenizer, long, limit)
    dropped = fit(tokenizer, long, limit, "drop")
    assert (dropped.samples, dropped.dropped) == ([], 1)
    assert dropped.lost_trained == sum(s.count_trained() for s in tokenizer.encode(long))
    short = fit(tokenizer, long, limit, "truncate-history")
    assert (short.shortened, short.lost_messages, short.lost_trained) == (1, 2, 0)
    assert max(lengths(short.samples)) <= limit
    cut = copy.copy(long)
    cut.prompt = [long.prompt[0], *long.prompt[3:]]
    assert short.samples == tokenizer.encode(cut)
    nothing = fit(tokenizer, long, 10, "truncate-history")
    assert (nothing.samples, nothing.dropped) == ([], 1)
