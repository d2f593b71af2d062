"""What is refused, what is generated back into messages, what is done with long samples."""

from __future__ import annotations

import pytest

from finetune import records
from finetune.errors import DataError
from finetune.tokens import IGNORED, fit
from tests.tokens.conftest import for_each_tokenizer

CALL = {"id": "abcdefgh1", "function": {"name": "weather", "arguments": '{"city": "Nice"}'}}
TWO_TURNS = [("user", "one " * 30), ("assistant", "A"), ("user", "two"), ("assistant", "B")]


def chat(*pairs, **record):
    messages = [{"role": role, "content": content} for role, content in pairs]
    return records.from_object("chat", {"messages": messages, **record})


def with_weights(record, *weights):
    answers = (m for m in record.messages if isinstance(m, records.AssistantMessage))
    for message, weight in zip(answers, weights, strict=True):
        message.weight = weight
    return record


@for_each_tokenizer("v3", "v7")
def test_joined_messages_of_different_weight_are_an_error(tokenizer):
    record = chat(("user", "a"), ("assistant", "b"), ("assistant", "c"))
    (sample,) = tokenizer.encode(with_weights(record, 0.5, 0.5))
    assert sample.input_ids.count(tokenizer.eos_id) == 1
    with pytest.raises(DataError) as caught:
        tokenizer.encode(with_weights(record, 1, 0.5))
    assert (caught.value.rule, caught.value.path) == ("joined-weights", "messages[2].weight")
    (counted,) = tokenizer.count_many([record])
    assert counted.rule == "joined-weights"


@for_each_tokenizer("v3", "v7")
def test_record_without_trained_message_is_an_error(tokenizer):
    with pytest.raises(DataError) as caught:
        tokenizer.encode(with_weights(chat(("user", "a"), ("assistant", "b")), 0))
    assert caught.value.rule == "nothing-to-train"


@for_each_tokenizer("v1", "v2", "v7")
@pytest.mark.parametrize(
    "pairs",
    [
        [("user", "a")],
        [("user", "secret"), ("assistant", "")],
        [("assistant", "alone")],
        [("user", "a"), ("tool", "b"), ("assistant", "c")],
    ],
)
def test_refused_conversations_are_not_quoted(tokenizer, pairs):
    with pytest.raises(DataError) as caught:
        tokenizer.encode(chat(*pairs))
    assert caught.value.rule in ("encoding", "nothing-to-train")
    assert "secret" not in str(caught.value)


@for_each_tokenizer("v1")
def test_first_version_has_no_tools(tokenizer):
    value = {
        "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": [CALL]}]
    }
    with pytest.raises(DataError, match="refuses"):
        tokenizer.encode(records.from_object("chat", value))


@for_each_tokenizer("v13")
def test_calls_need_an_id_from_v13_on(tokenizer):
    call = {"function": CALL["function"]}
    value = {
        "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": [call]}]
    }
    with pytest.raises(DataError, match="invalid name or id"):
        tokenizer.encode(records.from_object("chat", value))


@for_each_tokenizer("v7")
def test_images_are_refused_where_there_are_no_tokens_for_them(tokenizer):
    image = {"type": "image_url", "image_url": "data:image/png;base64,x"}
    with pytest.raises(DataError) as caught:
        tokenizer.encode(chat(("user", [image]), ("assistant", "b")))
    assert (caught.value.rule, caught.value.path) == ("image", "messages[0].content[0]")


@for_each_tokenizer("v1", "v3", "v3-tekken", "v7", "v13")
def test_a_classifier_reads_what_a_model_reads_before_it_answers(tokenizer):
    asked = [{"role": "user", "content": "<s> hello"}]
    said = [*asked, {"role": "assistant", "content": "Hello!"}]
    more = [*said, {"role": "user", "content": "bye"}]
    rows = [{"text": "<s> plain text"}, *({"messages": talk} for talk in (asked, said, more))]
    found = [records.from_object("classifier", {"labels": {"a": "b"}, **row}) for row in rows]
    samples = [sample for record in found for sample in tokenizer.encode(record)]
    assert len(samples) == len(rows)
    assert samples[0].input_ids == [tokenizer.bos_id, *tokenizer.text_ids("<s> plain text")]
    assert samples[1].input_ids == tokenizer.encode_prompt(found[1].messages)
    assert (
        samples[2].input_ids
        == tokenizer.encode(chat(("user", "<s> hello"), ("assistant", "Hello!")))[0].input_ids
    )
    for sample in samples:
        assert sample.count_trained() == 0
        assert sample.input_ids.count(tokenizer.bos_id) == 1
    assert tokenizer.count_many(found) == [(len(sample), 0) for sample in samples]


@for_each_tokenizer("v3", "v7")
def test_a_classifier_reads_the_newest_turns_that_fit(tokenizer):
    turns = [{"role": ("user", "assistant")[n % 2], "content": f"turn {n}"} for n in range(9)]
    system = {"role": "system", "content": "be kind"}
    record = records.from_object("classifier", {"messages": [system, *turns], "labels": {"a": "b"}})
    (whole,) = tokenizer.encode(record)
    wanted = records.from_object(
        "classifier", {"messages": [system, *turns[4:]], "labels": {"a": "b"}}
    )
    (rest,) = tokenizer.encode(wanted)
    found = fit(tokenizer, record, len(rest) + 1, "truncate-history")
    assert found.samples[0].input_ids == rest.input_ids
    assert (found.shortened, found.lost_messages) == (1, 4)
    assert fit(tokenizer, record, len(rest) + 1, "drop").dropped == 1
    assert fit(tokenizer, record, 3, "truncate-history").samples == []
    with pytest.raises(DataError, match="too long"):
        fit(tokenizer, record, len(whole) - 1)


@for_each_tokenizer("v1", "v3-tekken")
def test_documents_are_trained_but_for_bos(tokenizer):
    (sample,) = tokenizer.encode(records.TextRecord(text="<s> plain text"))
    assert sample.input_ids.count(tokenizer.bos_id) == 1
    assert sample.labels == [IGNORED, *sample.input_ids[1:]]
    assert sample.labels[-1] == tokenizer.eos_id


@for_each_tokenizer("v2", "v3", "v7-tekken", "v11", "v13")
def test_generated_calls_are_read_back(tokenizer):
    calls = [CALL, {"id": "abcdefgh2", "function": {"name": "f", "arguments": "{}"}}]
    value = {
        "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": calls}]
    }
    record = records.from_object("chat", value)
    (sample,) = tokenizer.encode(record)
    prompt = tokenizer.encode_prompt(record.messages[:1])
    assert sample.input_ids[: len(prompt)] == prompt
    message = tokenizer.parse(sample.input_ids[len(prompt) :])
    read = [(call.function.name, call.function.arguments) for call in message.tool_calls]
    assert read == [("weather", '{"city": "Nice"}'), ("f", "{}")]
    assert not message.content


@for_each_tokenizer("v11")
def test_generated_call_ids_are_read_back(tokenizer):
    value = {
        "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": [CALL]}]
    }
    record = records.from_object("chat", value)
    ids = tokenizer.encode_prompt(record.messages)[
        len(tokenizer.encode_prompt(record.messages[:1])) :
    ]
    assert tokenizer.parse(ids).tool_calls[0].id == "abcdefgh1"


@for_each_tokenizer("v3-tekken", "v11")
def test_broken_calls_stay_text(tokenizer):
    marker = tokenizer._raw.get_special_token("[TOOL_CALLS]")
    message = tokenizer.parse([*tokenizer.text_ids("Hm "), marker, *tokenizer.text_ids('[{"name"')])
    assert message.content == 'Hm [{"name"'


@for_each_tokenizer("v13")
def test_generated_thinking_is_read_back(tokenizer):
    chunks = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "4"},
    ]
    record = chat(("user", "2+2"), ("assistant", chunks))
    (sample,) = tokenizer.encode(record)
    prompt = tokenizer.encode_prompt(record.messages[:1])
    assert tokenizer.parse(sample.input_ids[len(prompt) :]).content == record.messages[1].content
    cut = tokenizer.parse(sample.input_ids[len(prompt) : len(prompt) + 2]).content
    assert cut == [records.ThinkChunk(thinking=[records.TextChunk(text="hm")], closed=False)]


@for_each_tokenizer("v3", "v7")
def test_long_samples_are_refused_dropped_or_shortened(tokenizer):
    record = chat(("system", "S"), *TWO_TURNS)
    with pytest.raises(DataError) as caught:
        fit(tokenizer, record, 20)
    assert caught.value.rule == "too-long"
    whole = tokenizer.count(record)[1]
    kept = fit(tokenizer, record, 20, "drop")
    assert sum(s.count_trained() for s in kept.samples) + kept.lost_trained == whole
    assert kept.dropped == len(tokenizer.encode(record))
    short = fit(tokenizer, record, 20, "truncate-history")
    (expected,) = tokenizer.encode(chat(("system", "S"), *TWO_TURNS[2:]))
    assert [s.input_ids for s in short.samples] == [expected.input_ids]
    assert (short.shortened, short.lost_messages) == (1, 2)
    assert sum(s.count_trained() for s in short.samples) + short.lost_trained == whole


@for_each_tokenizer("v7")
def test_last_trained_turn_is_never_cut(tokenizer):
    record = chat(("user", "one"), ("assistant", "A"), ("user", "two " * 50), ("assistant", "B"))
    result = fit(tokenizer, record, 20, "truncate-history")
    assert (result.samples, result.dropped, result.shortened) == ([], 1, 0)
    assert fit(tokenizer, record, 500, "truncate-history").samples == tokenizer.encode(record)


@for_each_tokenizer("v7")
def test_only_as_many_turns_go_as_must(tokenizer):
    turns = [
        pair for i in range(8) for pair in (("user", f"question {i}"), ("assistant", f"answer {i}"))
    ]
    record = chat(*turns)
    limit = len(tokenizer.encode(chat(*turns[6:]))[0])
    result = fit(tokenizer, record, limit, "truncate-history")
    assert result.samples[0].input_ids == tokenizer.encode(chat(*turns[6:]))[0].input_ids
    assert result.lost_messages == 6
