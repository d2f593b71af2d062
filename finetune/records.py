"""Records: one struct is one JSONL line. No I/O.

Decoding a line into its struct is the structural check in bulk. The published contract of the
same records is `data_schemas/*.schema.json`; a test holds the two together. A key is there with a
value or it is absent (`UNSET`): null is refused, as La Plateforme asks for absent keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

Weight = Annotated[float, Meta(ge=0, le=1)]


class _Strict(Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, gc=False):
    pass


class TextChunk(_Strict, tag_field="type", tag="text"):
    """A piece of text in a list of contents."""

    text: str


class ImageChunk(_Strict, tag_field="type", tag="image_url"):
    """An image: a data URL (`data:image/png;base64,…`), an https URL, or `{"url": …}`."""

    image_url: str | dict[str, str]


class ThinkChunk(_Strict, tag_field="type", tag="thinking"):
    """A reasoning chunk, for tokenizers from v13 on."""

    thinking: list[TextChunk]
    closed: bool = True


class FunctionCall(_Strict):
    """What a model calls: `arguments` is a JSON text (as La Plateforme shows it) or an object."""

    name: str
    arguments: str | dict[str, Any]


class ToolCall(_Strict, omit_defaults=False, kw_only=True):
    """One call of an assistant message."""

    id: str | UnsetType = UNSET
    type: Literal["function"] = "function"
    function: FunctionCall


class SystemMessage(_Strict, tag_field="role", tag="system"):
    """Instructions for the whole conversation; v13 tokenizers take reasoning chunks here too."""

    content: str | list[TextChunk | ThinkChunk]


class UserMessage(_Strict, tag_field="role", tag="user"):
    """What the person says."""

    content: str | list[TextChunk | ImageChunk]


class AssistantMessage(_Strict, tag_field="role", tag="assistant"):
    """What the model answers: the only role that is trained.

    `weight` scales the loss of this message, 0 (not trained) to 1.
    """

    content: str | list[TextChunk | ThinkChunk] | UnsetType = UNSET
    tool_calls: list[ToolCall] | UnsetType = UNSET
    weight: Weight | UnsetType = UNSET


class ToolMessage(_Strict, tag_field="role", tag="tool"):
    """The result of one tool call; v15 tokenizers take images here too."""

    content: str | list[TextChunk | ImageChunk]
    tool_call_id: str | UnsetType = UNSET
    name: str | UnsetType = UNSET


ROLES = ("system", "user", "assistant", "tool")
Message = SystemMessage | UserMessage | AssistantMessage | ToolMessage


class Function(_Strict, kw_only=True):
    """A function that the model may call; `parameters` is a JSON Schema (draft 7)."""

    name: str
    description: str = ""
    parameters: dict[str, Any]
    strict: bool = False


class Tool(_Strict, omit_defaults=False, kw_only=True):
    """A declared tool."""

    type: Literal["function"] = "function"
    function: Function


Tools = list[Tool] | UnsetType


class ChatRecord(_Strict):
    """A conversation; the assistant's messages are trained."""

    messages: list[Message]
    tools: Tools = UNSET


class TextRecord(_Strict):
    """A document: every token is trained."""

    text: str


class ClassifierRecord(_Strict, kw_only=True):
    """A text or a conversation with its labels: one value (or several) a target."""

    text: str | UnsetType = UNSET
    messages: list[Message] | UnsetType = UNSET
    labels: dict[str, str | list[str]]


class PreferenceRecord(_Strict):
    """A prompt with a better and a worse answer."""

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    tools: Tools = UNSET


class RatingRecord(_Strict):
    """A prompt with one answer that was good or not."""

    prompt: list[Message]
    completion: list[Message]
    label: bool
    tools: Tools = UNSET


Record = ChatRecord | TextRecord | ClassifierRecord | PreferenceRecord | RatingRecord
Compared = PreferenceRecord | RatingRecord

KINDS: dict[str, type[Record]] = {
    "chat": ChatRecord,
    "text": TextRecord,
    "classifier": ClassifierRecord,
    "preference": PreferenceRecord,
    "rating": RatingRecord,
}

_DECODERS = {kind: msgspec.json.Decoder(struct) for kind, struct in KINDS.items()}
_ENCODER = msgspec.json.Encoder()


def decode(kind: str, line: bytes) -> Record:
    """Return the record of one JSONL line.

    Raises:
        msgspec.ValidationError: The line is JSON but not a record of this kind.
        msgspec.DecodeError: The line is not JSON (or not UTF-8).
    """
    return _DECODERS[kind].decode(line)


def decoder(kind: str) -> msgspec.json.Decoder[Record]:
    """Return the decoder of a kind, for loops over many lines."""
    return _DECODERS[kind]


def from_object(kind: str, value: Any) -> Record:
    """Return the record made of plain Python objects.

    Raises:
        msgspec.ValidationError: It is not a record of this kind.
    """
    record: Record = msgspec.convert(value, KINDS[kind])
    return record


def encode(record: Record) -> bytes:
    """Return the record's JSONL line, without its line end."""
    return _ENCODER.encode(record)


def kind_of(value: Any) -> str | None:
    """Return the kind that an object's keys say it is, else None."""
    if not isinstance(value, dict):
        return None
    keys = value.keys()
    if "labels" in keys:
        return "classifier"
    if "chosen" in keys or "rejected" in keys:
        return "preference"
    if "completion" in keys and "label" in keys:
        return "rating"
    if "messages" in keys:
        return "chat"
    return "text" if "text" in keys else None


def text_of(content: Any) -> str:
    """Return the text of a message's content: a string, a list of chunks, or nothing."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "\n\n".join(chunk.text for chunk in content if isinstance(chunk, TextChunk))


def make_question(text: str, images: Sequence[str] = ()) -> UserMessage:
    """Return what a person asks, behind the images that it is about (data URLs)."""
    if not images:
        return UserMessage(content=text)
    shown = [ImageChunk(image_url=address) for address in images]
    return UserMessage(content=[*shown, TextChunk(text=text)])
