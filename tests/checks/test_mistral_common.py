"""Our verdict beside that of mistral-common: its validator and encoder, in fine-tuning mode."""

from __future__ import annotations

import functools
import json
import os
import random
from pathlib import Path

import mistral_common
import pytest
from mistral_common.exceptions import MistralCommonException
from mistral_common.protocol.instruct.messages import FinetuningMessage
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.protocol.instruct.validator import ValidationMode, get_validator
from mistral_common.tokens.tokenizers.base import TokenizerVersion
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from pydantic import ValidationError

from finetune.checks import Checker
from tests.checks.cases import tool

FILES = {
    "v1": "tokenizer.model.v1",
    "v2": "mistral_instruct_tokenizer_240216.model.v2",
    "v3": "mistral_instruct_tokenizer_240323.model.v3",
    "v7": "mistral_instruct_tokenizer_241114.model.v7",
}
VALIDATED = ("v11", "v13", "v15")  # no file of these versions is shipped: validator alone
COUNT = int(os.environ.get("CONVERSATIONS", "1500"))

# Where we say error and mistral-common does not, on purpose.
STRICTER = {
    "arguments": "it quotes a text that is not a JSON object, and trains the model to write one",
    "empty-assistant": "it joins an empty answer with its neighbour, or v7+ fails in the encoder only",
    "joined-weights": "joined messages have one weight, and it drops weights when it joins",
    "joined-calls": "no weight and a weight of 1 are one weight to us, so that we join them",
    "nothing-to-train": "it has no notion of a record without a trained token",
    "no-tools": "v1 leaves declared tools out without a word",
    "call-first": "it does not look at the first message: a call there can never be answered",
    "call-count": "it does not look at the first message, so a result there answers nothing",
    "call-match": "the same",
    "parallel-results": "it looks only behind the last user message; expansion moves that",
    "function-name": "its pattern lets a final line feed through",
    "call-id": "the same",
}
# Where mistral-common says error and we do not, on purpose: fractions of weights are honoured by
# the local backend, which does not use its encoder for them.


@functools.cache
def tokenizer(version):
    path = Path(mistral_common.__file__).parent / "data" / FILES[version]
    return MistralTokenizer.from_file(str(path), mode=ValidationMode.finetuning)


def accepts(version, record):
    try:
        request = ChatCompletionRequest[FinetuningMessage](**json.loads(json.dumps(record)))
        if version in FILES:
            # Its normaliser asserts equal weights, and drops them: both are ours to judge.
            for message in request.messages:
                if getattr(message, "weight", None) is not None:
                    message.weight = 1
            tokenizer(version).encode_chat_completion(request)
        else:
            mode = ValidationMode.finetuning
            get_validator(TokenizerVersion(version), mode).validate_request(request)
    except (MistralCommonException, ValidationError, ValueError, AssertionError):
        return False
    return True


def conversation(rng):  # noqa: PLR0912 (each branch is one way to be wrong)
    """Make a conversation that is right more often than not."""
    good = rng.random() < 0.4
    messages, number = [], 0

    def word():
        return rng.choice(["a", "b c", "déjà", " x "]) if good or rng.random() < 0.9 else ""

    def name():
        nonlocal number
        number += 1
        usual = f"abcdefg{number:02}"
        return (
            usual
            if good
            else rng.choice([usual] * 8 + ["call_1", "", "null", usual + "\n", "abcdefg01"])
        )

    def called():
        made = {
            "function": {
                "name": rng.choice(["find", "f-2"]),
                "arguments": rng.choice(["{}", '{"a": 1}']),
            }
        }
        if not good and rng.random() < 0.05:
            made["function"]["name"] = rng.choice(["a b", "", "x" * 65, "find\n"])
        if not good and rng.random() < 0.1:
            made["function"]["arguments"] = rng.choice(["", "no", {"a": 1}, "[1]"])
        if good or rng.random() < 0.9:
            made["id"] = name()
        return made

    if rng.random() < 0.3:
        messages.append({"role": "system", "content": word()})
    for _ in range(rng.randint(1, 3)):
        if good or rng.random() < 0.95:
            messages.append({"role": "user", "content": word()})
        if rng.random() < 0.3:
            made = [called() for _ in range(rng.choice([1, 1, 2]))]
            messages.append({"role": "assistant", "tool_calls": made})
            if not good and rng.random() < 0.1:
                messages[-1]["content"] = word()
            for call in made:
                if good or rng.random() < 0.9:
                    answer = {"role": "tool", "content": word()}
                    if "id" in call:
                        answer["tool_call_id"] = call["id"]
                    messages.append(answer)
        if good or rng.random() < 0.95:
            messages.append({"role": "assistant", "content": word()})
            if rng.random() < 0.2:
                messages[-1]["weight"] = rng.choice([0, 1])
    if not good and rng.random() < 0.5:
        match rng.randrange(3):
            case 0:
                rng.shuffle(messages)
            case 1:
                messages.pop(rng.randrange(len(messages)))
            case 2:
                messages.append(rng.choice(messages))
    record = {"messages": messages}
    if rng.random() < 0.3:
        parameters = rng.choice(
            [{}, {"type": "object"}, {"type": "object"} if good else {"type": "x"}]
        )
        record["tools"] = [tool(rng.choice(["find", "f-2"]), parameters)]
    return record


@pytest.mark.parametrize("version", [*FILES, *VALIDATED])
def test_verdict_is_that_of_mistral_common(version):
    rng = random.Random(7)
    checker = Checker("chat", version)
    both = {True: 0, False: 0}
    seen = set()
    for _ in range(COUNT):
        record = conversation(rng)
        _, findings = checker.check_line(json.dumps(record).encode(), "f", 1)
        errors = {finding.rule for finding in findings if finding.severity == "error"}
        theirs = accepts(version, record)
        if theirs and errors:
            assert errors <= STRICTER.keys(), (errors, record)
            seen |= errors
        elif not theirs:
            assert errors, record
        both[theirs] += 1
    assert min(both.values()) > COUNT / 10
    assert seen, "no exception was met: the list has rotted"


def test_a_fraction_is_refused_there_and_taken_here():
    record = {
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b", "weight": 0.5},
        ]
    }
    request = ChatCompletionRequest[FinetuningMessage](**record)
    validator = get_validator(TokenizerVersion("v3"), ValidationMode.finetuning)
    with pytest.raises(MistralCommonException):
        validator.validate_request(request)
    line = json.dumps(record).encode()
    assert Checker("chat", "v3").check_line(line, "f", 1)[1] == []
    assert [f.rule for f in Checker("chat").check_line(line, "f", 1)[1]] == ["weight-fraction"]
