"""Tokenizer files: those of mistral-common's wheel, and later versions made from its vocabulary."""

from __future__ import annotations

import fcntl
import json
import os
from importlib.util import find_spec
from pathlib import Path

import pytest

from finetune.tokens import load_tokenizer

WHEEL = Path(find_spec("mistral_common").origin).parent / "data"
SHIPPED = {
    "v1": "tokenizer.model.v1",
    "v2": "mistral_instruct_tokenizer_240216.model.v2",
    "v3": "mistral_instruct_tokenizer_240323.model.v3",
    "v3-tekken": "tekken_240718.json",
    "v3-tekken-image": "tekken_240911.json",
    "v7": "mistral_instruct_tokenizer_241114.model.v7",
    "v7-image": "mistral_instruct_tokenizer_241114.model.v7m1",
}
BUILT = ("v7-tekken", "v11", "v13", "v15")
NAMES = (*SHIPPED, *BUILT)
# The special tokens that mistral-common's code asks for beyond those of v7.
LATER = ["[ARGS]", "[CALL_ID]", "[THINK]", "[/THINK]", "[MODEL_SETTINGS]", "[/MODEL_SETTINGS]"]


def build(folder: Path, name: str) -> None:
    """Write a tekken file of a version that no package holds."""
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

    data = json.loads((WHEEL / SHIPPED["v3-tekken"]).read_bytes())
    data["config"]["version"] = name.removesuffix("-tekken")
    special = [dict(token) for token in Tekkenizer.DEPRECATED_SPECIAL_TOKENS]
    for rank, text in enumerate(LATER, start=len(special)):
        special.append({"rank": rank, "token_str": text, "is_control": True})
    data["special_tokens"] = special
    if name == "v15":
        effort = {
            "type": "enum",
            "values": ["none", "high"],
            "default": "none",
            "accepts_none": True,
        }
        data["model_settings_builder"] = {"reasoning_effort": effort}
    path = folder / name / "tekken.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(data), encoding="utf-8")


def shared_folder(tmp_path_factory) -> Path:
    """Return a folder that all processes of this test session share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def tokenizer_path(tmp_path_factory):
    """Give the file of a tokenizer; built once for all processes of a test session."""
    folder = shared_folder(tmp_path_factory) / "tokenizers"
    folder.mkdir(exist_ok=True)

    def find(name: str) -> Path:
        if name in SHIPPED:
            return WHEEL / SHIPPED[name]
        path = folder / name / "tekken.json"
        with open(folder / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                build(folder, name)
        return path

    return find


@pytest.fixture(scope="session")  # pytest then runs the tests of one tokenizer together
def tokenizer(request, tokenizer_path):
    """The tokenizer that the test is parametrized with."""
    return load_tokenizer(tokenizer_path(request.param))


def for_each_tokenizer(*names: str):
    return pytest.mark.parametrize("tokenizer", names or NAMES, indirect=True)


@pytest.fixture(scope="session")
def chatml_folder(tmp_path_factory):
    """SmolLM2's own tokenizer and chat template as a Hugging Face folder, from its package."""
    folder = shared_folder(tmp_path_factory) / "chatml"
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            folder.mkdir()
            _write_chatml(folder)
    return folder


def _write_chatml(folder: Path) -> None:
    from gguf import GGUFReader

    from finetune.tokens.embedded import find_gguf

    fields = GGUFReader(find_gguf()).fields

    def strings(key: str) -> list[str]:
        field = fields[f"tokenizer.{key}"]
        return [bytes(field.parts[index]).decode() for index in field.data]

    tokens = strings("ggml.tokens")
    special = [
        {"id": index, "content": token, "special": True, "normalized": False}
        | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
        for index, token in enumerate(tokens[:17])
    ]
    digits = {"type": "Digits", "individual_digits": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    model = {
        "type": "BPE",
        "vocab": {token: index for index, token in enumerate(tokens)},
        "merges": [merge.split(" ") for merge in strings("ggml.merges")],
    }
    file = {
        "version": "1.0",
        "added_tokens": special,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, byte_level]},
        "decoder": byte_level,
        "model": model,
    }
    (folder / "tokenizer.json").write_text(json.dumps(file), encoding="utf-8")
    config = {
        "bos_token": "<|im_start|>",
        "eos_token": {"content": "<|im_end|>"},
        "pad_token": "<|im_end|>",
        "chat_template": strings("chat_template")[0],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
