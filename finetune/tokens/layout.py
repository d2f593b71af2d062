"""The layout of a conversation, by mistral-common's own encoders.

The encoders of each version are run with a tokenizer that gives back a handle for each text
instead of its ids, and that marks where an assistant message begins and ends. So every control
token stands where mistral-common puts it, the spans are known without searching for them, and the
texts can be encoded (or only counted) by the fastest exact engine.

Only `load_tokenizer` imports this module: mistral-common takes 0.6 s.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from mistral_common.exceptions import MistralCommonException
from mistral_common.protocol.instruct import chunk, messages, tool_calls
from mistral_common.protocol.instruct.request import ChatCompletionRequest, InstructRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from msgspec import UNSET

from finetune.errors import DataError
from finetune.records import (
    AssistantMessage,
    Message,
    SystemMessage,
    TextChunk,
    ThinkChunk,
    Tool,
    ToolCall,
    Tools,
    UserMessage,
)
from finetune.tokens.images import ImageEncoder, Picture

OPEN, CLOSE = -1, -2  # around the tokens of an assistant message
_FIRST_TEXT = -3  # text i has the handle _FIRST_TEXT - i
_KEPT_TOOLS = 512  # distinct lists of tools remembered, since records of one source share them
NO_ID = "null"  # how mistral-common says that a call has no id


class Outline(NamedTuple):
    """A conversation before its texts are encoded.

    Attributes:
        marks: Control ids (0 and above), `OPEN`, `CLOSE`, and handles of texts.
        texts: The texts, in order; handle h belongs to `texts[text_index(h)]`.
        pictures: The images, in order.
    """

    marks: list[int]
    texts: list[str]
    pictures: list[Picture]


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
        self._normalizer: Any = copy.copy(mistral._instruct_request_normalizer)  # noqa: SLF001
        vars(self._normalizer).update(
            _user_message_class=_User,
            _system_message_class=_System,
            _assistant_message_class=_Assistant,
            _tool_message_class=_Result,
            _instruct_request_class=_Request,
        )
        encoder = mistral.instruct_tokenizer
        self._handles = _Handles(encoder.tokenizer)
        marked: Any = type("Marked", (_Marked, type(encoder)), {})
        self._encoder: Any = marked.__new__(marked)  # its __init__ would ask for a Tekkenizer
        own = getattr(encoder, "image_encoder", None)
        self._images = ImageEncoder(own)
        seen = mistral.version.value != "v1"  # whose encoder asserts that there is none
        vars(self._encoder).update(
            vars(encoder), tokenizer=self._handles, image_encoder=self._images if seen else None
        )
        self._tools: dict[bytes, tuple[list[tool_calls.Tool], str]] = {}
        self._request: Any = ChatCompletionRequest[Any](messages=[])

    def outline(
        self, conversation: Sequence[messages.BaseMessage], tools: Tools, *, bare: bool = False
    ) -> Outline:
        """Return the outline of a conversation.

        Args:
            conversation: What `convert` makes of its messages.
            tools: The tools that it declares.
            bare: The calls of the last answer carry no id, as Mistral trains them.

        Raises:
            DataError: This version cannot encode it (`encoding`), or one of its images
                (`image`).
        """
        request = self._request
        request.messages = _strip_ids(conversation) if bare else conversation
        request.tools = None if tools is UNSET else self._convert_tools(tools)[0]
        texts: list[str] = []
        self._handles.texts = texts
        pictures: list[Picture] = []
        self._images.pictures = pictures
        try:
            normalized = self._normalizer.from_chat_completion_request(request)
            marks: list[int] = self._encoder.encode_instruct(normalized).tokens
        except _REFUSALS as error:
            raise _refusal(error) from None
        return Outline(marks, texts, pictures)

    def validate(
        self, conversation: Sequence[messages.BaseMessage], tools: Tools, *, bare: bool
    ) -> None:
        """Check what mistral-common checks of a conversation to train on.

        Args:
            conversation: What `convert` makes of its messages.
            tools: The tools that it declares.
            bare: The last answer's calls are trained without ids, so none are needed.

        Raises:
            DataError: It refuses the conversation or its tools (`encoding`).
        """
        checked: list[Any] = list(conversation)
        if bare and isinstance(checked[-1], _Assistant) and checked[-1].tool_calls:
            # v11 would take several missing ids for the same one
            calls = enumerate(checked[-1].tool_calls)
            named = [_with_id(c, f"{i:09d}" if c.id == NO_ID else c.id) for i, c in calls]
            checked[-1] = _Assistant(checked[-1].content, named)
        try:
            self._validator.validate_messages(checked)
        except _REFUSALS as error:
            raise _refusal(error) from None
        if tools is not UNSET:
            self._convert_tools(tools)

    def dump_tools(self, tools: list[Tool]) -> str:
        """Return the JSON of tools as they are encoded, from v2 on.

        Raises:
            DataError: mistral-common refuses them (`encoding`).
        """
        return self._convert_tools(tools)[1]

    def _convert_tools(self, tools: list[Tool]) -> tuple[list[tool_calls.Tool], str]:
        key = msgspec.json.encode(tools)
        known = self._tools.get(key)
        if known is None:
            try:
                converted = [
                    tool_calls.Tool.model_validate(msgspec.to_builtins(tool)) for tool in tools
                ]
                self._validator._validate_tools(converted)  # noqa: SLF001 - once for each list
            except _REFUSALS as error:
                raise _refusal(error) from None
            if len(self._tools) >= _KEPT_TOOLS:
                self._tools.clear()
            shown = [tool.model_dump(exclude={"function": {"strict": True}}) for tool in converted]
            known = self._tools[key] = converted, json.dumps(shown, ensure_ascii=False)
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


def _fill(model: Any, **values: Any) -> None:
    # What `model_construct` does, but for working every default out again (10 µs a message).
    object.__setattr__(model, "__dict__", values)
    object.__setattr__(model, "__pydantic_fields_set__", set())
    object.__setattr__(model, "__pydantic_extra__", None)
    object.__setattr__(model, "__pydantic_private__", None)


# mistral-common's messages without pydantic's checks: a record is typed already. `weight` is None:
# its normalizer would not join messages of different weights, which `answers` refuses before.
class _User(messages.UserMessage):
    def __init__(self, content: Any) -> None:
        _fill(self, role="user", content=content, weight=None)


class _System(messages.SystemMessage):
    def __init__(self, content: Any) -> None:
        _fill(self, role="system", content=content, weight=None)


class _Assistant(messages.AssistantMessage):
    def __init__(self, content: Any, tool_calls: Any = None, prefix: bool = False) -> None:
        _fill(
            self,
            role="assistant",
            content=content,
            tool_calls=tool_calls,
            prefix=prefix,
            weight=None,
        )


class _Result(messages.ToolMessage):
    def __init__(self, content: Any, tool_call_id: str | None, name: str | None) -> None:
        _fill(self, role="tool", content=content, tool_call_id=tool_call_id, name=name, weight=None)


class _Request(InstructRequest[Any, Any]):
    def __init__(self, **values: Any) -> None:
        _fill(self, **values, truncate_at_max_tokens=None)


def convert(conversation: Sequence[Message]) -> list[messages.BaseMessage]:
    """Return messages as mistral-common's."""
    return [_convert(message, index) for index, message in enumerate(conversation)]


def _convert(message: Message, index: int) -> messages.BaseMessage:
    if isinstance(message, UserMessage):
        return _User(_content(message.content, index))
    if isinstance(message, AssistantMessage):
        content = None if message.content is UNSET else _content(message.content, index)
        return _Assistant(content, [_call(c) for c in message.tool_calls or []] or None)
    if isinstance(message, SystemMessage):
        return _System(_content(message.content, index))
    return _Result(
        _content(message.content, index),
        None if message.tool_call_id is UNSET else message.tool_call_id,
        None if message.name is UNSET else message.name,
    )


def _call(call: ToolCall) -> tool_calls.ToolCall:
    arguments: Any = call.function.arguments  # an object becomes a JSON text there
    function = tool_calls.FunctionCall(name=call.function.name, arguments=arguments)
    identifier = NO_ID if call.id is UNSET else call.id
    return tool_calls.ToolCall.model_construct(id=identifier, function=function)


def _with_id(call: tool_calls.ToolCall, identifier: str) -> tool_calls.ToolCall:
    return tool_calls.ToolCall.model_construct(id=identifier, function=call.function)


def _strip_ids(conversation: Sequence[messages.BaseMessage]) -> list[messages.BaseMessage]:
    """Take the ids off the calls of the last answer, which may be several messages."""
    stripped = list(conversation)
    for index in range(len(stripped) - 1, -1, -1):
        message = stripped[index]
        if not isinstance(message, _Assistant):
            break
        if message.tool_calls:
            calls = [_with_id(call, NO_ID) for call in message.tool_calls]
            stripped[index] = _Assistant(message.content, calls)
    return stripped


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
            url = (
                part.image_url if isinstance(part.image_url, str) else part.image_url.get("url", "")
            )
            image = chunk.ImageURLChunk.model_construct(image_url=url)
            vars(image)["place"] = f"messages[{index}].content[{position}]"  # for its faults
            chunks.append(image)
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
    if isinstance(error, DataError):
        return error  # an image's own
    # Their text quotes the record, so only the kind of refusal is told.
    reason = _REASONS.get(type(error).__name__, "something that this version has no tokens for")
    return DataError(
        f"the tokenizer refuses the conversation: {reason}",
        rule="encoding",
        hint="`finetune validate --for MODEL` names the message",
    )
