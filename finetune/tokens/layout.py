"""The layout of a conversation, by mistral-common's own encoders.

The encoders of each version are run with a tokenizer that gives back a handle for each text
instead of its ids, and that marks where an assistant message begins and ends. So every control
token stands where mistral-common puts it, the spans are known without searching for them, and the
texts can be encoded (or only counted) by the fastest exact engine.

Only `load_tokenizer` imports this module: mistral-common takes 0.6 s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from mistral_common.exceptions import MistralCommonException
from mistral_common.protocol.instruct import chunk, messages, tool_calls
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from msgspec import UNSET

from finetune.errors import DataError
from finetune.records import (
    AssistantMessage,
    Message,
    SystemMessage,
    TextChunk,
    ThinkChunk,
    ToolCall,
    ToolMessage,
    Tools,
    UserMessage,
)

OPEN, CLOSE = -1, -2  # around the tokens of an assistant message
_FIRST_TEXT = -3  # text i has the handle _FIRST_TEXT - i
_KEPT_TOOLS = 512  # distinct lists of tools remembered, since records of one source share them
NO_ID = "null"  # how mistral-common says that a call has no id


class Outline(NamedTuple):
    """A conversation before its texts are encoded.

    Attributes:
        marks: Control ids (0 and above), `OPEN`, `CLOSE`, and handles of texts.
        texts: The texts, in order; handle h belongs to `texts[text_index(h)]`.
    """

    marks: list[int]
    texts: list[str]


def text_index(handle: int) -> int:
    """Return which text a handle stands for."""
    return _FIRST_TEXT - handle


class Layout:
    """Lays conversations out as a tokenizer's version does.

    Args:
        mistral: The tokenizer, in finetuning mode.
    """

    def __init__(self, mistral: MistralTokenizer[Any, Any, Any, Any, Any]) -> None:
        self._validator = mistral._chat_completion_request_validator  # noqa: SLF001
        self._normalizer = mistral._instruct_request_normalizer  # noqa: SLF001
        self._handles = _Handles(mistral.instruct_tokenizer.tokenizer)
        encoder = mistral.instruct_tokenizer
        marked: Any = type("Marked", (_Marked, type(encoder)), {})
        self._encoder: Any = marked.__new__(marked)  # its __init__ would ask for a Tekkenizer
        vars(self._encoder).update(vars(encoder), tokenizer=self._handles)
        self._tools: dict[bytes, list[tool_calls.Tool]] = {}

    def outline(
        self, conversation: Sequence[Message], tools: Tools = UNSET, *, bare: int | None = None
    ) -> Outline:
        """Return the outline of a conversation.

        Args:
            conversation: The messages.
            tools: The tools that it declares.
            bare: Index from which on calls carry no id, as Mistral trains them.

        Raises:
            DataError: This version cannot encode it (`encoding`).
        """
        bare = len(conversation) if bare is None else bare
        converted = [
            _convert(message, index, has_ids=index < bare)
            for index, message in enumerate(conversation)
        ]
        request: Any = ChatCompletionRequest.model_construct(
            messages=converted, tools=self._convert_tools(tools)
        )
        texts: list[str] = []
        self._handles.texts = texts
        try:
            normalized = self._normalizer.from_chat_completion_request(request)
            marks: list[int] = self._encoder.encode_instruct(normalized).tokens
        except _REFUSALS as error:
            raise _refusal(error) from None
        return Outline(marks, texts)

    def validate(self, conversation: Sequence[Message], tools: Tools, *, bare_calls: bool) -> None:
        """Check what mistral-common checks of a conversation to train on.

        Args:
            conversation: The messages.
            tools: The tools that it declares.
            bare_calls: The last message's calls are trained without ids, so none are needed.

        Raises:
            DataError: It refuses the conversation or its tools (`encoding`).
        """
        converted = [_convert(m, i, has_ids=True) for i, m in enumerate(conversation)]
        if bare_calls and converted:  # v11 would take several missing ids for the same one
            for number, call in enumerate(getattr(converted[-1], "tool_calls", None) or []):
                call.id = f"{number:09d}" if call.id == NO_ID else call.id
        try:
            self._validator.validate_messages(converted)
        except _REFUSALS as error:
            raise _refusal(error) from None
        self._convert_tools(tools)

    def _convert_tools(self, tools: Tools) -> list[tool_calls.Tool] | None:
        if tools is UNSET:
            return None
        key = msgspec.json.encode(tools)
        known = self._tools.get(key)
        if known is None:
            try:
                known = [
                    tool_calls.Tool.model_validate(msgspec.to_builtins(tool)) for tool in tools
                ]
                self._validator._validate_tools(known)  # noqa: SLF001 - once for each list of tools
            except _REFUSALS as error:
                raise _refusal(error) from None
            if len(self._tools) >= _KEPT_TOOLS:
                self._tools.clear()
            self._tools[key] = known
        return known


class _Handles:
    """A tokenizer that keeps each text and gives back a handle for it."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.texts: list[str] = []

    def encode(self, s: str, bos: bool, eos: bool) -> list[int]:
        self.texts.append(s)
        return [_FIRST_TEXT + 1 - len(self.texts)]

    def decode(self, *_: Any, **__: Any) -> str:
        return ""  # only for a text that mistral-common is about to remove

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


class _Marked:
    """Mixed into a version's encoder: marks the ids of each assistant message."""

    def encode_assistant_message(self, *arguments: Any, **options: Any) -> list[int]:
        ids = super().encode_assistant_message(*arguments, **options)  # type: ignore[misc]
        return [OPEN, *ids, CLOSE]


def _convert(message: Message, index: int, *, has_ids: bool) -> Any:
    # `model_construct`: the record is typed already, and pydantic would check it again.
    if isinstance(message, UserMessage):
        return messages.UserMessage.model_construct(content=_content(message.content, index))
    if isinstance(message, AssistantMessage):
        calls = message.tool_calls
        return messages.AssistantMessage.model_construct(
            content=None if message.content is UNSET else _content(message.content, index),
            tool_calls=[_call(c, has_ids=has_ids) for c in calls] if calls else None,
        )
    if isinstance(message, SystemMessage):
        return messages.SystemMessage.model_construct(content=_content(message.content, index))
    return _convert_result(message, index)


def _convert_result(message: ToolMessage, index: int) -> messages.ToolMessage:
    return messages.ToolMessage.model_construct(
        content=_content(message.content, index),
        tool_call_id=None if message.tool_call_id is UNSET else message.tool_call_id,
        name=None if message.name is UNSET else message.name,
    )


def _call(call: ToolCall, *, has_ids: bool) -> tool_calls.ToolCall:
    identifier = call.id if has_ids and call.id is not UNSET else NO_ID
    arguments: Any = call.function.arguments  # an object becomes a JSON text there
    function = tool_calls.FunctionCall(
        name=call.function.name,
        arguments=arguments,
    )
    return tool_calls.ToolCall.model_construct(id=identifier, function=function)


def _content(content: str | Sequence[Any], index: int) -> str | list[Any]:
    if isinstance(content, str):
        return content
    chunks: list[Any] = []
    for position, part in enumerate(content):
        if isinstance(part, TextChunk):
            chunks.append(chunk.TextChunk.model_construct(text=part.text))
        elif isinstance(part, ThinkChunk):
            thinking = "".join(text.text for text in part.thinking)
            chunks.append(chunk.ThinkChunk.model_construct(thinking=thinking, closed=part.closed))
        else:
            raise DataError(
                "images are not trained: only text is",
                path=f"messages[{index}].content[{position}]",
                rule="image",
                hint="leave images out of the record",
            )
    return chunks


# What mistral-common raises on a conversation: its own exceptions, and asserts of its encoders.
_REFUSALS = (MistralCommonException, ValueError, AssertionError, NotImplementedError)

_REASONS = {
    "InvalidMessageStructureException": "roles, or calls and results, are not in a valid order",
    "InvalidUserMessageException": "a user message has content that this version does not know",
    "InvalidSystemPromptException": "a system message has content that this version does not know",
    "InvalidAssistantMessageException": "an assistant message needs content or calls, not both",
    "InvalidFunctionCallException": "a tool call has an invalid name or id",
    "InvalidToolMessageException": "a tool message has an invalid name, id or content",
    "InvalidToolException": "a tool has an invalid name",
    "InvalidToolSchemaException": "a tool's parameters are not a JSON Schema (draft 7)",
    "UnsupportedTokenizerFeatureException": "several results for one assistant message",
}


def _refusal(error: Exception) -> DataError:
    # Their text quotes the record, so only the kind of refusal is told.
    reason = _REASONS.get(type(error).__name__, "something that this version has no tokens for")
    return DataError(
        f"the tokenizer refuses the conversation: {reason}",
        rule="encoding",
        hint="`finetune validate --for MODEL` names the message",
    )
