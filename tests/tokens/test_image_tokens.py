"""Images among the tokens, and the pixels of them."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from finetune.errors import DataError
from finetune.records import from_object
from finetune.tokens import IGNORED
from finetune.tokens.images import Picture, make_pixels, read_image
from tests.tokens.conftest import for_each_tokenizer


def encode(image, kind="PNG"):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def address(data, kind="png"):
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def picture(width, height, mode="RGB", kind="PNG"):
    noise = np.random.default_rng(0).integers(0, 256, (height, width, len(mode)), dtype=np.uint8)
    return address(encode(Image.fromarray(noise, mode), kind), kind.lower())


def talk(*addresses, text="What is this?", nested=False):
    parts = [
        {"type": "image_url", "image_url": {"url": one} if nested else one} for one in addresses
    ]
    messages = [
        {"role": "user", "content": [*parts, {"type": "text", "text": text}]},
        {"role": "assistant", "content": "A cat."},
    ]
    return from_object("chat", {"messages": messages})


# patches of 16 pixels, and 1024 at most on the longer side: (columns, rows) of an image
GRIDS = {
    (16, 16): (1, 1),
    (17, 16): (2, 1),
    (100, 50): (7, 4),
    (3, 200): (1, 13),
    (2048, 1024): (64, 32),
    (1000, 1500): (43, 64),
}


@for_each_tokenizer("v3-tekken-image", "v7-image")
@pytest.mark.parametrize("size", GRIDS, ids=str)
def test_an_image_is_rows_of_patches(tokenizer, size):
    columns, rows = GRIDS[size]
    (sample,) = tokenizer.encode(talk(picture(*size)))
    (text,) = tokenizer.encode(
        from_object(
            "chat",
            {
                "messages": [
                    {"role": "user", "content": "What is this?"},
                    {"role": "assistant", "content": "A cat."},
                ]
            },
        )
    )
    grid = (["[IMG]"] * columns + ["[IMG_BREAK]"]) * rows
    grid[-1] = "[IMG_END]"
    end = 2 + len(grid)
    assert tokenizer.image_id == 10
    assert tokenizer.pieces(sample.input_ids[2:end]) == grid
    assert sample.input_ids[:2] + sample.input_ids[end:] == text.input_ids
    assert sample.labels == [*text.labels[:2], *[IGNORED] * len(grid), *text.labels[2:]]
    assert [(one.width, one.height) for one in sample.images] == [(16 * columns, 16 * rows)]
    assert tokenizer.count(talk(picture(*size))) == (len(sample), sample.count_trained())


@for_each_tokenizer("v3-tekken-image", "v7-image")
def test_several_images_keep_their_order(tokenizer):
    record = talk(picture(32, 16), picture(16, 32), nested=True)
    (sample,) = tokenizer.encode(record)
    assert [(one.width, one.height) for one in sample.images] == [(32, 16), (16, 32)]
    assert sample.input_ids.count(tokenizer.image_id) == 2 + 2
    assert tokenizer.pieces(sample.input_ids).count("[IMG_END]") == 2


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_pixels_are_those_of_transformers_processor(kind):
    from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil

    data, _ = read_image(picture(100, 50, kind=kind))
    found = make_pixels(Picture(data, 112, 64))
    processor = PixtralImageProcessorPil(patch_size=16, size={"longest_edge": 1024})
    wanted = processor(Image.open(io.BytesIO(data)).convert("RGB"), return_tensors="np")
    assert found.shape == (3, 64, 112)
    np.testing.assert_allclose(found, np.asarray(wanted["pixel_values"])[0], atol=1e-5)


def test_transparent_places_are_white():
    clear = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    white = Image.new("RGB", (16, 16), "WHITE")
    pixels = [make_pixels(Picture(encode(image), 16, 16)) for image in (clear, white)]
    np.testing.assert_array_equal(*pixels)


WHOLE = encode(Image.new("RGB", (64, 64)), "PNG")
REFUSED = {
    "address": ("https://example.com/cat.png", "an address, not an image"),
    "base64": ("data:image/png;base64,%%%", "not base64"),
    "nothing": (address(b"x"), "no PNG, JPEG, WebP or GIF that can be decoded"),
    "torn": (address(WHOLE[:-30]), "no PNG, JPEG, WebP or GIF that can be decoded"),
    "tiff": (address(encode(Image.new("RGB", (9, 9)), "TIFF")), "no PNG, JPEG, WebP"),
    "bomb": (address(encode(Image.new("1", (9000, 9000)))), "9,000 x 9,000 pixels, at most"),
    "large": ("data:image/png;base64," + "A" * 14_000_000, "10.5 MB, the limit is 10.0 MB"),
}


@for_each_tokenizer("v7-image")
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_image_is_refused_by_its_place(tokenizer, name):
    given, fact = REFUSED[name]
    with pytest.raises(DataError) as caught:
        tokenizer.encode(talk(given))
    assert (caught.value.rule, caught.value.path) == ("image", "messages[0].content[0]")
    assert caught.value.fact.startswith(fact)


@for_each_tokenizer("v7-image")
def test_a_record_has_so_many_images_at_most(tokenizer):
    with pytest.raises(DataError, match="more than 64 images in a record"):
        tokenizer.encode(talk(*[picture(1, 1)] * 65))


@for_each_tokenizer("v7-image")
def test_a_prompt_and_a_classifiers_text_hold_no_image(tokenizer):
    messages = talk(picture(16, 16)).messages[:1]
    rows = [{"role": "user", "content": [{"type": "image_url", "image_url": picture(16, 16)}]}]
    labelled = from_object("classifier", {"messages": rows, "labels": {"animal": "cat"}})
    for read in (
        lambda: tokenizer.encode_prompt(messages),
        lambda: tokenizer.encode(labelled),
        lambda: tokenizer.count(labelled),
    ):
        with pytest.raises(DataError, match="only text is read here") as caught:
            read()
        assert (caught.value.rule, caught.value.path) == ("image", "messages[0].content[0]")
