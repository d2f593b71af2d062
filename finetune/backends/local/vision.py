"""Images in a row of samples: through the frozen vision tower into the places of their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from finetune import files
from finetune.errors import UsageError
from finetune.tokens.images import make_pixels

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from finetune.tokens import Tokenizer
    from finetune.tokens.images import Picture


def check_vision(folder: Path, tokenizer: Tokenizer) -> None:
    """Refuse a model that cannot see the images of the data.

    Args:
        folder: The model's.
        tokenizer: Its tokenizer.

    Raises:
        UsageError: It has no vision tower, or another token for images than the tokenizer.
    """
    config = files.read_json(folder / "config.json")
    if "vision_config" not in config:
        raise UsageError(
            f"{folder}: the data hold images, and the model has no vision tower",
            hint="use a model that sees, such as ministral-3-8b, or leave the images out",
        )
    names = ("image_token_id", "image_token_index")
    known = [config[name] for name in names if name in config]
    if tokenizer.image_id not in known:
        raise UsageError(
            f"{folder}: the tokenizer's token for images is {tokenizer.image_id},"
            f" the model's {known[0] if known else 'not known'}",
            hint="the tokenizer is another model's: take it from the model again",
        )


def collate_images(pictures: Sequence[Picture]) -> dict[str, Any]:
    """Return the tensors of images.

    Returns:
        `pixel_values` float32 [images, 3, height, width], filled up with zeros to the largest of
        them, and `image_sizes` int64 [images, 2]: height and width of each.
    """
    import torch

    sizes = [(picture.height, picture.width) for picture in pictures]
    pixels = torch.zeros(len(pictures), 3, *(max(side) for side in zip(*sizes, strict=True)))
    for place, picture in enumerate(pictures):
        pixels[place, :, : picture.height, : picture.width] = torch.from_numpy(make_pixels(picture))
    return {"pixel_values": pixels, "image_sizes": torch.tensor(sizes)}


def embed(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Return the embeddings of rows, those of their images in the places of their tokens.

    Args:
        model: A model with a vision tower and a projector, both frozen.
        batch: `input_ids` int64 [rows, tokens], and what `collate_images` makes of the images of
            all rows in order.

    Returns:
        [rows, tokens, width].
    """
    import torch

    words = model.get_input_embeddings()(batch["input_ids"])
    with torch.no_grad():
        kind = next(model.get_input_embeddings().parameters()).dtype
        seen = model.get_image_features(
            pixel_values=batch["pixel_values"].to(kind), image_sizes=batch["image_sizes"]
        ).pooler_output
    places = batch["input_ids"] == model.config.image_token_id
    row: torch.Tensor = words.masked_scatter(
        places[..., None], torch.cat(list(seen)).to(words.dtype)
    )
    return row
