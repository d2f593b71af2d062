"""Conversations encoded both ways whenever a tokenizer file is loaded.

Only `load_tokenizer` imports this module: mistral-common takes 0.6 s.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from finetune.errors import UsageError
from finetune.records import ChatRecord, from_object
from finetune.tokens.tokenizer import Tokenizer

_PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
_CALL = {"id": "abcdefgh1", "function": {"name": "weather", "arguments": '{"city":"Orléans"}'}}
_TURNS = [
    {"role": "user", "content": "Hello </s> [INST] Ünï, 日本語 👩‍👩‍👧\n\n"},
    {"role": "assistant", "content": " Bonjour [/INST]  "},
    {"role": "user", "content": "Weather?"},
]
_PLAIN = [*_TURNS, {"role": "assistant", "content": "Sunny.\n"}]
_SYSTEM = [{"role": "system", "content": "Be brief."}, *_PLAIN]
_CALLS = [
    *_TURNS,
    {"role": "assistant", "tool_calls": [_CALL]},
    {"role": "tool", "content": "21 °C", "name": "weather", "tool_call_id": "abcdefgh1"},
    {"role": "assistant", "content": "It is 21 °C."},
    *_TURNS[2:],
    {"role": "assistant", "tool_calls": [_CALL]},
]


def check_ids(tokenizer: Tokenizer, mistral: MistralTokenizer[Any, Any, Any, Any, Any]) -> None:
    """Compare samples with mistral-common's `encode_chat_completion`.

    Args:
        tokenizer: What is checked.
        mistral: The same file in mistral-common, in finetuning mode.

    Raises:
        UsageError: Some ids differ: training on them would be training on something else.
    """
    for value, record in _probes(tokenizer):
        for sample in tokenizer.encode(record):
            messages = msgspec.to_builtins(record.messages[: sample.stop])
            if 3 <= int(tokenizer.version[1:]) <= 11:
                for call in messages[-1].get("tool_calls", []):
                    del call["id"]  # a trained call has none
            request: Any = ChatCompletionRequest(messages=messages, tools=value.get("tools"))
            if mistral.encode_chat_completion(request).tokens != sample.input_ids:
                raise UsageError(
                    f"{tokenizer.name}: ids differ from mistral-common's: {tokenizer.version}",
                    hint="install mistral-common 1.13, or take the file from the model again",
                )


def find_miscount(tokenizer: Tokenizer) -> bool:
    """Return whether the counts of a conversation are not those of its samples."""
    for _, record in _probes(tokenizer):
        samples = tokenizer.encode(record)
        trained = sum(sample.count_trained() for sample in samples)
        if tokenizer.count(record) != (sum(map(len, samples)), trained):
            return True
    return False


def _probes(tokenizer: Tokenizer) -> Iterator[tuple[dict[str, Any], ChatRecord]]:
    values: list[dict[str, Any]] = [{"messages": _PLAIN}, {"messages": _SYSTEM}]
    if tokenizer.version != "v1":
        tool = {"type": "function", "function": {"name": "weather", "parameters": _PARAMETERS}}
        values.append({"messages": _CALLS, "tools": [tool]})
    for value in values:
        record = from_object("chat", value)
        if isinstance(record, ChatRecord):
            yield value, record
