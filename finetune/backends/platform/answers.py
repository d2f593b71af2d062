"""Answers: what a model of a service says to a conversation, or puts between two pieces of code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from finetune.backends.platform.api import Client
from finetune.errors import PlatformError
from finetune.records import (
    AssistantMessage,
    Message,
    SystemMessage,
    ToolCall,
    Tools,
    make_question,
    text_of,
)
from finetune.text import safe


class Speaker:
    """A model of a service, asked for its most likely answers.

    Args:
        client: The service.
        model: The model's name there.
        max_new_tokens: Most tokens of an answer.
    """

    def __init__(self, client: Client, model: str, *, max_new_tokens: int = 512) -> None:
        self.client, self.model = client, model
        self._limit = max_new_tokens

    def answer(self, messages: Sequence[Message], tools: Tools = msgspec.UNSET) -> AssistantMessage:
        """Return what the model answers.

        Raises:
            PlatformError: It does not, or not in a form that can be read.
        """
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [_write(message) for message in messages],
            "temperature": 0,
            "max_tokens": self._limit,
            "stream": False,
        }
        if tools:
            body["tools"] = msgspec.to_builtins(tools)
        return self._read(self.client.chat(body))

    def fill(self, prefix: str, suffix: str) -> str:
        """Return what the model puts between two pieces of code."""
        body = {
            "model": self.model,
            "prompt": prefix,
            "suffix": suffix,
            "temperature": 0,
            "max_tokens": self._limit,
            "stream": False,
        }
        return text_of(self._read(self.client.fill(body)).content)

    def _read(self, reply: dict[str, Any]) -> AssistantMessage:
        try:
            message = reply["choices"][0]["message"]
            calls = [
                {"id": str(call.get("id", "")), "type": "function", "function": _call(call)}
                for call in message.get("tool_calls") or []
            ]
            content = message.get("content")
            read = msgspec.convert(calls, list[ToolCall]) if calls else msgspec.UNSET
            return AssistantMessage(content=_join(content), tool_calls=read)
        except (LookupError, TypeError, AttributeError, ValueError):
            host = safe(self.client.address.host)
            raise PlatformError(f"{host}: `{safe(self.model)}`: no answer in its reply") from None


class Chat:
    """A conversation with a model of a service.

    Args:
        speaker: The model.
        system: System prompt, put before everything.
    """

    def __init__(self, speaker: Speaker, *, system: str | None = None) -> None:
        self._speaker = speaker
        self.messages: list[Message] = [] if system is None else [SystemMessage(content=system)]

    def ask(self, text: str, images: Sequence[str] = ()) -> AssistantMessage:
        """Return the most likely answer; question and answer are remembered.

        Args:
            text: The question.
            images: Data URLs of what is shown with it.
        """
        asked = [*self.messages, make_question(text, images)]
        answer = self._speaker.answer(asked)
        self.messages = [*asked, answer]
        return answer


def _write(message: Message) -> dict[str, Any]:
    """Return a message as the service takes it: without what concerns training alone."""
    written: dict[str, Any] = msgspec.to_builtins(message)
    written.pop("weight", None)
    return written


def _call(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    return {"name": function["name"], "arguments": function.get("arguments") or "{}"}


def _join(content: Any) -> str:
    """Return the text of an answer, which may come in chunks."""
    if isinstance(content, list):
        return "".join(chunk.get("text") or "" for chunk in content if chunk.get("type") == "text")
    if not isinstance(content, str | None):
        raise TypeError("no text")
    return content or ""
