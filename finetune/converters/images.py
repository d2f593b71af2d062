r"""Images of a row: put where the text has their place, as addresses; files are read elsewhere.

| row                                                     | record                                 |
|---------------------------------------------------------|----------------------------------------|
| `"images": ["a.png"]`, a user's text `<image>⏎What?`    | an image, then the text `What?`        |
| `"image": "a.png"` (LLaVA) and `<image>` in a text      | the same                               |
| `{"type": "image"}` in a list, and `images` beside it   | the image in its place                 |
| `{"type": "image_path", "content": "a.png"}` (oumi)     | the image in its place                 |
| `{"bytes": …}` or base64 text of `image_binary`         | a data URL, its type told by its bytes |
| more or fewer places than images                        | the row is rejected: `image-count`     |
| an image in an answer                                   | the row is rejected: `image-count`     |
| bytes that are no PNG, JPEG, WebP or GIF                | the row is rejected: `image-type`      |
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Any

from finetune.converters.reading import ConvertError, text_at, type_name
from finetune.records import ChatRecord, ImageChunk, Record, TextChunk, UserMessage
from finetune.text import plural

KEYS = ("images", "image")
PLACE = "<image>"
_PLACES = re.compile(rf"\n*{PLACE}\n*")  # line ends beside an image part it from the text
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)


def data_url(data: bytes, path: str) -> str:
    """Return an image as a data URL, its type told by its bytes.

    Raises:
        ConvertError: It is of no type that La Plateforme takes (`image-type`).
    """
    kind = next((kind for magic, kind in _MAGIC if data.startswith(magic)), None)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        kind = "image/webp"
    if kind is None:
        raise ConvertError("not a PNG, JPEG, WebP or GIF image", path=path, rule="image-type")
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def read_base64(text: str, path: str) -> str:
    """Return base64 text as a data URL.

    Raises:
        ConvertError: It is not base64, or no image.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ConvertError("not base64", path=path, rule="image-type") from None
    return data_url(data, path)


def read_part(part: dict[str, Any], path: str) -> str | None:
    """Return the address of an image in a list of contents; None where it is another part.

    These are oumi's parts, Qwen's, and the bare place of TRL, whose images stand beside.

    Raises:
        ConvertError: It holds no image.
    """
    kind = part.get("type")
    if kind == "image_binary":
        return read_base64(text_at(part, "content", path), f"{path}.content")
    if kind == "image_path" or (kind == "image_url" and "content" in part):
        return text_at(part, "content", path)
    if kind == "image" and "source" not in part:
        return PLACE if part.get("image") is None else _address(part["image"], f"{path}.image")
    return None


def has_parts(message: dict[str, Any]) -> bool:
    """Tell whether a message has parts that only `read_part` and this project's readers know."""
    content = message.get("content")
    return isinstance(content, list) and any(
        isinstance(part, dict)
        and (part.get("type") in ("image", "image_path", "image_binary") or "content" in part)
        for part in content
    )


def place_images(row: Any, records: list[Record]) -> bool:
    """Put the images of a row into its record, in place; tell whether it has any.

    Raises:
        ConvertError: They are not as many as their places, or one cannot be read.
    """
    if len(records) != 1 or not isinstance(record := records[0], ChatRecord):
        return False
    key, images = _images_of(row, record)
    if not key:
        return False
    addresses = [_address(image, f"{key}[{number}]") for number, image in enumerate(images)]
    places = iter(addresses)
    wanted = sum(map(_count, record.messages))
    usable = sum(_count(message) for message in record.messages if isinstance(message, UserMessage))
    if not usable == wanted == len(addresses):
        fact = f"{plural(len(addresses), 'image')} for {plural(usable, 'place')} in user messages"
        raise ConvertError(fact, path=key, rule="image-count")
    for message in record.messages:
        if isinstance(message, UserMessage) and _count(message):
            message.content = list(_fill(message.content, places))
    return True


def _images_of(row: Any, record: ChatRecord) -> tuple[str, list[Any]]:
    if not isinstance(row, dict):
        return "", []
    images = row.get("images")
    if isinstance(images, list):
        return "images", images
    image = row.get("image")
    if image and isinstance(image, str | dict) and any(map(_count, record.messages)):
        return "image", [image]
    return "", []


def _count(message: Any) -> int:
    content = message.content
    if isinstance(content, str):
        return content.count(PLACE)
    if not isinstance(content, list):
        return 0
    return sum(
        chunk.text.count(PLACE)
        if isinstance(chunk, TextChunk)
        else isinstance(chunk, ImageChunk) and chunk.image_url == PLACE
        for chunk in content
    )


def _fill(content: Any, places: Iterator[str]) -> Iterator[TextChunk | ImageChunk]:
    for chunk in [TextChunk(text=content)] if isinstance(content, str) else content:
        if isinstance(chunk, TextChunk):
            first, *others = _PLACES.split(chunk.text)
            if first:
                yield TextChunk(text=first)
            for text in others:
                yield ImageChunk(image_url=next(places))
                if text:
                    yield TextChunk(text=text)
        else:
            yield ImageChunk(image_url=next(places)) if chunk.image_url == PLACE else chunk


def _address(value: Any, path: str) -> str:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, dict):
        match value.get("bytes"):
            case bytes() as data:
                return data_url(data, path)
            case str() as text:
                return read_base64(text, path)
        for key in ("path", "url"):
            if isinstance(value.get(key), str) and value[key]:
                return str(value[key])
    fact = f"expected a path, an address or bytes, got {type_name(value)}"
    raise ConvertError(fact, path=path, rule="type")
