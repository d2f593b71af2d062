"""A model's own chat template, rendered from record and tokenizer only: no date, no files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NoReturn

import jinja2
import msgspec
from jinja2.ext import Extension
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from msgspec import UNSET

from finetune.errors import DataError, UsageError
from finetune.records import (
    AssistantMessage,
    Message,
    SystemMessage,
    TextChunk,
    ToolCall,
    ToolMessage,
    Tools,
    UserMessage,
    text_of,
)


class ChatTemplate:
    """Renders conversations as `apply_chat_template` of transformers does.

    Args:
        sources: Template sources by name: `default`, and `tool_use` where tools have their own.
        tokens: Special tokens by the names that templates know, such as `bos_token`.
        name: The model, for messages.

    Raises:
        UsageError: A source is no valid template.
    """

    def __init__(self, sources: dict[str, str], tokens: dict[str, str], *, name: str) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, "jinja2.ext.loopcontrols"],
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        try:
            self._templates = {key: environment.from_string(text) for key, text in sources.items()}
        except jinja2.TemplateError as error:
            raise UsageError(f"{name}: its chat template is broken: line {_line(error)}") from None
        self._tokens = tokens

    def render(
        self, messages: Sequence[dict[str, Any]], tools: Tools = UNSET, *, prompt: bool = False
    ) -> str:
        """Return the text of a conversation.

        Args:
            messages: What `describe` makes of messages.
            tools: The tools that the conversation declares.
            prompt: End with what stands before the next answer.

        Raises:
            DataError: The template refuses the conversation (`encoding`).
        """
        name = "tool_use" if tools and "tool_use" in self._templates else "default"
        try:
            return self._templates[name].render(
                messages=list(messages),
                tools=msgspec.to_builtins(tools) if tools else None,
                add_generation_prompt=prompt,
                **self._tokens,
            )
        except (jinja2.TemplateError, TypeError, ValueError, LookupError) as error:
            # The text may quote the record, so only the kind is told.
            raise DataError(
                f"the chat template refuses the conversation: {type(error).__name__}",
                rule="encoding",
                hint="many templates want user and assistant in turns, and no tools",
            ) from None


def describe(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return messages as templates expect them: text contents, arguments as objects.

    Raises:
        DataError: A message holds an image (`image`) or thinking (`encoding`).
    """
    return [_describe(message, index) for index, message in enumerate(messages)]


def _describe(message: Message, index: int) -> dict[str, Any]:
    value: dict[str, Any] = {"role": _ROLES[type(message)], "content": text_of(message.content)}
    if not isinstance(message.content, str) and message.content is not UNSET:
        for position, chunk in enumerate(message.content):
            if not isinstance(chunk, TextChunk):
                raise DataError(
                    "only text is encoded through a chat template",
                    path=f"messages[{index}].content[{position}]",
                    rule="image" if isinstance(message, UserMessage) else "encoding",
                )
    if isinstance(message, AssistantMessage) and message.tool_calls:
        value["tool_calls"] = [_describe_call(call) for call in message.tool_calls]
    if isinstance(message, ToolMessage):
        value |= {
            key: given
            for key, given in (("tool_call_id", message.tool_call_id), ("name", message.name))
            if given is not UNSET
        }
    return value


def _describe_call(call: ToolCall) -> dict[str, Any]:
    arguments = call.function.arguments
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            arguments = call.function.arguments
    value = {"type": "function", "function": {"name": call.function.name, "arguments": arguments}}
    return value if call.id is UNSET else {"id": call.id, **value}


_ROLES: dict[type, str] = {
    SystemMessage: "system",
    UserMessage: "user",
    AssistantMessage: "assistant",
    ToolMessage: "tool",
}


class _Generation(Extension):
    """`{% generation %}` of training templates: the body, as it is."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's way

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(value: Any, *, indent: int | None = None, **options: Any) -> str:
    # Not jinja2's own: that one escapes for HTML.
    return json.dumps(value, ensure_ascii=False, indent=indent, **options)


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _line(error: jinja2.TemplateError) -> Any:
    return getattr(error, "lineno", None) or "unknown"
