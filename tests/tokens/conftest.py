"""Tokenizer files: those of mistral-common's wheel, and later versions made from its vocabulary."""

from __future__ import annotations

import fcntl
import json
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


def _build(folder: Path, name: str) -> None:
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


@pytest.fixture(scope="session")
def tokenizer_path(tmp_path_factory):
    """Give the file of a tokenizer; built once for all processes of a test session."""
    folder = tmp_path_factory.getbasetemp().parent / "tokenizers"
    folder.mkdir(exist_ok=True)

    def find(name: str) -> Path:
        if name in SHIPPED:
            return WHEEL / SHIPPED[name]
        path = folder / name / "tekken.json"
        with open(folder / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                _build(folder, name)
        return path

    return find


@pytest.fixture
def tokenizer(request, tokenizer_path):
    """The tokenizer that the test is parametrized with."""
    return load_tokenizer(tokenizer_path(request.param))


def for_each_tokenizer(*names: str):
    # one xdist group a tokenizer: each process loads few of them
    marked = [
        pytest.param(n, marks=pytest.mark.xdist_group(f"tokenizer-{n}")) for n in names or NAMES
    ]
    return pytest.mark.parametrize("tokenizer", marked, indirect=True, ids=names or NAMES)
