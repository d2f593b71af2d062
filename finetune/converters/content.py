"""Contents of messages: the parts of OpenAI's and Anthropic's lists as our chunks."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET

from finetune.converters.images import read_part
from finetune.converters.reading import ConvertError, as_object, optional_text, text_at, type_name
from finetune.records import ImageChunk, TextChunk, ThinkChunk

Chunk = TextChunk | ImageChunk | ThinkChunk

_TEXTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}


def read_content(value: Any, role: str, path: str) -> Any:
    """Return the content of a message: a text, or chunks where there is more than one text.

    Args:
        value: A text or a list of parts; null is the empty text, as results can have none.
        role: Whose message it is, since not all can hold all.
        path: Where it stands, for errors.

    Raises:
        ConvertError: It is something else, or a part that this role cannot hold.
    """
    if isinstance(value, str):
        return value
    if value is None and role == "tool":
        return ""
    if not isinstance(value, list):
        fact = "nothing" if value is None else type_name(value)
        rule = "missing-key" if value is None else "type"
        raise ConvertError(f"expected text or a list, got {fact}", path=path, rule=rule)
    chunks = [read_chunk(part, f"{path}[{number}]") for number, part in enumerate(value)]
    return settle(chunks, role, path)


def settle(chunks: list[Chunk], role: str, path: str) -> Any:
    """Return chunks as a message holds them: one text as that text, none as the empty text.

    Raises:
        ConvertError: There is one that this role cannot hold.
    """
    if not chunks:
        return ""
    if len(chunks) == 1 and isinstance(chunks[0], TextChunk):
        return chunks[0].text
    refused = ThinkChunk if role in {"user", "tool"} else ImageChunk
    for number, chunk in enumerate(chunks):
        if isinstance(chunk, refused):
            kind = "an image" if refused is ImageChunk else "reasoning"
            fact = f"{kind} in a `{role}` message"
            raise ConvertError(fact, path=f"{path}[{number}].type", rule="chunk-type")
    return chunks


def thought(text: str, content: Any) -> list[Any]:
    """Return the content of an answer with the reasoning before it."""
    first = ThinkChunk(thinking=[TextChunk(text=text)])
    if isinstance(content, list):
        return [first, *content]
    return [first] if content is UNSET or not content else [first, TextChunk(text=content)]


def read_chunk(value: Any, path: str) -> Chunk:
    """Return the chunk of a part.

    Raises:
        ConvertError: It is of a kind that a record cannot hold, such as audio.
    """
    if isinstance(value, str):
        return TextChunk(text=value)
    part = as_object(value, path)
    kind = part.get("type")
    if kind is not None and not isinstance(kind, str):
        raise ConvertError(
            f"expected text, got {type_name(kind)}", path=f"{path}.type", rule="type"
        )
    if (address := read_part(part, path)) is not None:
        return ImageChunk(image_url=address)
    if kind == "text" and "content" in part and "text" not in part:  # oumi
        return TextChunk(text=text_at(part, "content", path))
    if kind in _TEXTS:
        return TextChunk(text=text_at(part, _TEXTS[kind], path))
    if kind in {"image_url", "input_image"}:
        return ImageChunk(image_url=_read_address(part.get("image_url"), f"{path}.image_url"))
    if kind == "image" and "source" in part:
        return ImageChunk(image_url=_read_source(as_object(part["source"], f"{path}.source"), path))
    if kind == "thinking":
        return _read_thinking(part, path)
    fact = "nothing" if kind is None else "a kind of content that a record does not have"
    raise ConvertError(fact, path=f"{path}.type", rule="missing-key" if kind is None else "value")


def _read_address(value: Any, path: str) -> str | dict[str, str]:
    if isinstance(value, str):
        return value
    address = as_object(value, path)
    found = {"url": text_at(address, "url", path)}
    if detail := optional_text(address, "detail", path):
        found["detail"] = detail
    return found


def _read_source(source: dict[str, Any], path: str) -> str:
    """Return the address of an image as Anthropic has it."""
    path = f"{path}.source"
    match source.get("type"):
        case "base64":
            kind, data = (text_at(source, key, path) for key in ("media_type", "data"))
            return f"data:{kind};base64,{data}"
        case "url":
            return text_at(source, "url", path)
    raise ConvertError("an image that is neither base64 nor a URL", path=path, rule="value")


def _read_thinking(part: dict[str, Any], path: str) -> ThinkChunk:
    value = part.get("thinking")
    if not isinstance(value, list):
        return ThinkChunk(thinking=[TextChunk(text=text_at(part, "thinking", path))])
    texts = [read_chunk(item, f"{path}.thinking[{n}]") for n, item in enumerate(value)]
    if not all(isinstance(text, TextChunk) for text in texts):
        raise ConvertError("not a text", path=f"{path}.thinking", rule="value")
    return ThinkChunk(thinking=texts, closed=part.get("closed", True) is True)  # type: ignore[arg-type]
