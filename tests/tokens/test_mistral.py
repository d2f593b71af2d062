"""Ids, masks and weights of Mistral tokenizers, beside mistral-common and a second opinion."""

from __future__ import annotations

import copy
import functools
import itertools

import pytest
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.protocol.instruct.validator import ValidationMode
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from finetune import records
from finetune.tokens import IGNORED
from tests.tokens.conftest import for_each_tokenizer
from tests.tokens.conversations import make_record

CONVERSATIONS = 300


@pytest.fixture
def library(tokenizer, request, tokenizer_path):
    """The same file in mistral-common, in finetuning mode."""
    name = request.node.callspec.params["tokenizer"]
    return _load(tokenizer_path(name))


@functools.lru_cache(maxsize=1)
def _load(path):
    return MistralTokenizer.from_file(path, mode=ValidationMode.finetuning)


def make_records(tokenizer, count=CONVERSATIONS):
    version = int(tokenizer.version[1:])
    return [make_record(seed, version) for seed in range(count)]


def encode_with_library(library, value, stop):
    """Return the ids of the conversation up to `stop`, whose final call has no id below v13."""
    messages = copy.deepcopy(value["messages"][:stop])
    for message in messages:
        message.pop("weight", None)
        if isinstance(message.get("content"), list):
            for chunk in message["content"]:
                if chunk["type"] == "thinking":
                    chunk["thinking"] = chunk["thinking"][0]["text"]
    if 3 <= int(library.version.value[1:]) <= 11:
        for call in messages[-1].get("tool_calls", []):
            call.pop("id", None)
    request = ChatCompletionRequest(messages=messages, tools=value.get("tools"))
    if library.version.value == "v11" and len(messages[-1].get("tool_calls", [])) > 1:
        # its validator takes several missing ids for one id given twice
        return encode_unchecked(library, request)
    return library.encode_chat_completion(request).tokens


def encode_unchecked(library, request):
    normalized = library._instruct_request_normalizer.from_chat_completion_request(request)
    return library.instruct_tokenizer.encode_instruct(normalized).tokens


def find_runs(messages):
    """Return (stop, weight, calls) of each run of assistant messages."""
    runs = []
    for is_run, group in itertools.groupby(
        enumerate(messages), lambda i: i[1]["role"] == "assistant"
    ):
        if is_run:
            items = list(group)
            calls = any("tool_calls" in message for _, message in items)
            runs.append((items[-1][0] + 1, items[0][1].get("weight", 1), calls))
    return runs


def find_spans(library, value, stop, ids):
    """Return (start, stop, run) of each assistant span, found in the ids' structure alone."""
    tokenizer = library.instruct_tokenizer.tokenizer
    runs = [run for run in find_runs(value["messages"]) if run[0] <= stop]
    version = library.version.value
    if version == "v1":  # its [INST] is plain text: ask mistral-common for each answer's length
        return find_spans_by_length(library, value, runs, ids)
    if version == "v2":  # leaves calls before the last user message out
        users = [i for i, m in enumerate(value["messages"][:stop]) if m["role"] == "user"]
        runs = [run for run in runs if not (run[2] and run[0] <= users[-1])]
    before = {tokenizer.bos_id, tokenizer.eos_id}
    for name in ("[/INST]", "[/TOOL_RESULTS]", "[/SYSTEM_PROMPT]"):
        if tokenizer.is_special(name):
            before.add(tokenizer.get_special_token(name))
    spans = []
    start = 0
    for index, token in enumerate(ids):
        if token == tokenizer.eos_id:
            spans.append((start, index + 1))
        if token in before:
            start = index + 1
    assert len(spans) == len(runs)
    return [(start, end, run) for (start, end), run in zip(spans, runs, strict=True)]


def find_spans_by_length(library, value, runs, ids):
    lengths = []
    encoder = copy.copy(library.instruct_tokenizer)

    def record(role):
        encode = getattr(library.instruct_tokenizer, f"encode_{role}_message")

        def encode_and_record(*arguments, **options):
            tokens = encode(*arguments, **options)
            lengths.append((role, len(tokens if role == "assistant" else tokens[0])))
            return tokens

        setattr(encoder, f"encode_{role}_message", encode_and_record)

    record("user")
    record("assistant")
    messages = [
        m for m in copy.deepcopy(value["messages"][: runs[-1][0]]) if m.pop("weight", 1) or 1
    ]
    request = ChatCompletionRequest(messages=messages)
    normalized = library._instruct_request_normalizer.from_chat_completion_request(request)
    assert encoder.encode_instruct(normalized).tokens == ids
    ends = list(itertools.accumulate((length for _, length in lengths), initial=1))
    spans = [
        (start, start + length)
        for start, (role, length) in zip(ends[:-1], lengths, strict=True)
        if role == "assistant"
    ]
    return [(start, end, run) for (start, end), run in zip(spans, runs, strict=True)]


@for_each_tokenizer()
def test_ids_masks_and_weights_of_random_conversations(tokenizer, library):
    expanded = 0
    for value in make_records(tokenizer):
        encode = functools.cache(functools.partial(encode_with_library, library, value))
        samples = tokenizer.encode(records.from_object("chat", value))
        expanded += len(samples) > 1
        trained = []
        for sample in samples:
            whole = encode(sample.stop)
            assert sample.input_ids == whole
            labels, weights = [IGNORED] * len(whole), [0.0] * len(whole)
            for start, end, (stop, weight, _) in find_spans(library, value, sample.stop, whole):
                history = len(samples) > 1 and stop != sample.stop
                if weight and not history:
                    labels[start:end] = whole[start:end]
                    weights[start:end] = [float(weight)] * (end - start)
                    trained.append(stop)
                    # the answer's context is the one that it has at inference
                    assert whole[:end] == encode(stop)
            assert sample.labels == labels
            assert (sample.weights or [float(label != IGNORED) for label in labels]) == weights
            assert (sample.weights is None) == (set(weights) <= {0.0, 1.0})
        assert trained == [stop for stop, weight, _ in find_runs(value["messages"]) if weight]
        faithful = all(encode(trained[-1])[: len(encode(stop))] == encode(stop) for stop in trained)
        # v2 is expanded a little too often: it leaves some calls out, wherever they stand
        assert len(samples) == (1 if faithful else len(trained)) or tokenizer.version == "v2"
    assert expanded > 30 or tokenizer.version in ("v1", "v13", "v15")


@for_each_tokenizer()
def test_counts_are_the_totals_of_the_samples(tokenizer):
    chats = [records.from_object("chat", value) for value in make_records(tokenizer)]
    items = [*chats, records.TextRecord(text="A document.\n"), records.TextRecord(text="")]
    expected = []
    for record in items:
        samples = tokenizer.encode(record)
        trained = sum(label != IGNORED for sample in samples for label in sample.labels)
        expected.append((sum(map(len, samples)), trained))
    assert tokenizer.count_many(items) == expected
    assert [tokenizer.count(record) for record in items[:20]] == expected[:20]
