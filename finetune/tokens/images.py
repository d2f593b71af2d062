"""Images of a record: decoded within limits, and made into the pixels that a vision tower takes.

Sizes and tokens are mistral-common's. Pixels are resized by Pillow (bicubic) and normalized as
transformers' own processor does it.
"""

from __future__ import annotations

import base64
import binascii
import functools
import io
import re
import warnings
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

from finetune.errors import DataError
from finetune.records import ImageChunk, Message
from finetune.text import plural, size

MAX_PIXELS = 50_000_000
"""The largest image, before it is made smaller; a file of some bytes can hold far more."""
MAX_IMAGES = 64
"""Most images of a sample."""
MAX_BYTES = 10**7
"""The largest image file."""

_URL = re.compile(r"data:image/[a-z]+;base64,")
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
_MEAN = (0.48145466, 0.4578275, 0.40821073)  # of the three colours, as mistral-common 1.13 has them
_DEVIATION = (0.26862954, 0.26130258, 0.27577711)


class Picture(NamedTuple):
    """An image of a sample.

    Attributes:
        data: Its file, as in the record.
        width: Pixels that the model sees of it.
        height: The same.
    """

    data: bytes
    width: int
    height: int


def find_image(messages: Sequence[Message]) -> str | None:
    """Return the place of the first image in messages, None where there is none."""
    for index, message in enumerate(messages):
        for place, part in enumerate(message.content if isinstance(message.content, list) else ()):
            if isinstance(part, ImageChunk):
                return f"messages[{index}].content[{place}]"
    return None


def refuse_images(messages: Sequence[Message]) -> None:
    """Refuse messages with an image, where only text is read.

    Raises:
        DataError: One holds an image (`image`).
    """
    if path := find_image(messages):
        raise DataError(
            "only text is read here, not images", path=path, rule="image", hint="leave images out"
        )


@functools.lru_cache(maxsize=16)
def read_image(address: str) -> tuple[bytes, tuple[int, int]]:
    """Return an image's file and its (width, height), decoded once to see that it is whole.

    Raises:
        DataError: It is not in the record, too large, or no image (`image`).
    """
    if not _URL.match(address):
        raise _refuse(
            "an address, not an image", "download it and name the file: see docs/vision.md"
        )
    text = address.partition(",")[2]
    if len(text) * 3 // 4 > MAX_BYTES:
        raise _refuse(f"{size(len(text) * 3 // 4)}, the limit is {size(MAX_BYTES)}")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _refuse("not base64") from None
    return data, _open(data).size


def make_pixels(picture: Picture) -> Any:
    """Return what a vision tower takes: float32, [3, height, width].

    Transparent places are white, as in mistral-common.
    """
    import numpy as np
    from PIL import Image

    image = _open(picture.data)
    if image.mode != "RGB":
        seen = image.convert("RGBA")
        white = Image.new("RGBA", seen.size, "WHITE")
        white.paste(seen, (0, 0), seen)
        image = white.convert("RGB")
    resized = image.resize((picture.width, picture.height), Image.Resampling.BICUBIC)
    mean, deviation = (np.array(x, dtype=np.float32) for x in (_MEAN, _DEVIATION))
    values = np.asarray(resized, dtype=np.float32) / np.float32(255)
    return ((values - mean) / deviation).transpose(2, 0, 1)


class ImageEncoder:
    """Gives images the tokens that mistral-common gives them, and keeps the images.

    Args:
        encoder: mistral-common's own, None where the tokenizer has no tokens for images.
    """

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder
        self.pictures: list[Picture] = []

    def __call__(self, chunk: Any) -> Any:
        """Return the chunk's tokens, and note the image in `pictures`."""
        try:
            return self._encode(chunk.image_url)
        except DataError as error:
            path = chunk.__dict__["place"]
            raise DataError(error.fact, path=path, rule=error.rule, hint=error.hint) from None

    def _encode(self, address: str) -> Any:
        import numpy as np
        from mistral_common.tokens.tokenizers.image import ImageEncoding

        if self._encoder is None:
            raise _refuse("the model's tokenizer has no tokens for images", "leave it out")
        if len(self.pictures) == MAX_IMAGES:
            raise _refuse(f"more than {plural(MAX_IMAGES, 'image')} in a record")
        data, seen = read_image(address)
        image: Any = SimpleNamespace(size=seen)  # all that counts
        columns, rows = self._encoder._image_to_num_tokens(image)  # noqa: SLF001 (no other name)
        ids, config = self._encoder.special_ids, self._encoder.image_config
        tokens = ([ids.img] * columns + [ids.img_break]) * rows
        tokens[-1] = ids.img_end
        side = config.image_patch_size * config.spatial_merge_size
        picture = Picture(data, columns * side, rows * side)
        self.pictures.append(picture)
        return ImageEncoding(tokens=tokens, image=np.empty(0))


def _open(data: bytes) -> Any:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the limit below is lower
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
            width, height = image.size
            if width * height <= MAX_PIXELS:
                image.load()
    except Exception as error:  # each decoder raises its own
        raise _refuse("no PNG, JPEG, WebP or GIF that can be decoded") from error
    if width * height > MAX_PIXELS:
        raise _refuse(f"{width:,} x {height:,} pixels, at most {MAX_PIXELS:,} in all")
    return image


def _refuse(fact: str, hint: str | None = None) -> DataError:
    return DataError(fact, rule="image", hint=hint)
