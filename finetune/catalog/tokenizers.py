"""Tokenizer versions: which file of mistral-common's package holds which (1.13.1, 2026-11-22)."""

from __future__ import annotations

# version → file in mistral_common/data. v7-tekken, v11, v13 and v15 are in no package: the file
# lies in the model's own folder.
SHIPPED: dict[str, str] = {
    "v1": "tokenizer.model.v1",
    "v2": "mistral_instruct_tokenizer_240216.model.v2",
    "v3": "mistral_instruct_tokenizer_240323.model.v3",
    "v7": "mistral_instruct_tokenizer_241114.model.v7",
    "v3-tekken": "tekken_240718.json",
}

# Where the version itself is not shipped: the shipped one whose vocabulary is nearest. The text is
# cut alike, only the control tokens around it differ, so counts from it are estimates.
STAND_INS: dict[str, str] = {
    "v7-tekken": "v3-tekken",
    "v11": "v3-tekken",
    "v13": "v3-tekken",
    "v15": "v3-tekken",
}


def shipped_file(version: str) -> str | None:
    """Return the file in mistral-common's package that holds a tokenizer version, else None."""
    return SHIPPED.get(version)
