from types import SimpleNamespace

import pytest
from safetensors import safe_open

from finetune import records, runs
from finetune.backends.local.sft import identify, train
from finetune.errors import DataError, RunError
from finetune.recipe.tree import Recipe
from finetune.tokens import load_tokenizer
from tests.backends.local.conftest import make_model

TALK = [
    ("What is the capital of France?", "Paris."),
    ("And of Italy?", "Rome, of course."),
    ("Translate: good morning", "Bonjour !"),
    ("Say something long", "The quick brown fox jumps over the lazy dog, again and again."),
] * 3


@pytest.fixture
def setup(tmp_path):
    """A model folder with a tokenizer of its own, a dataset and a recipe."""
    folder = tmp_path / "model"
    tokenizer = load_tokenizer("v3")
    make_model(vocab_size=tokenizer.vocab_size).save_pretrained(folder)
    import mistral_common
    from pathlib import Path

    data = Path(mistral_common.__file__).parent / "data"
    name = "mistral_instruct_tokenizer_240323.model.v3"
    (folder / "tokenizer.model.v3").write_bytes((data / name).read_bytes())
    for name, talk in (("train-a", TALK), ("validation", TALK[:2])):
        lines = [
            records.encode(
                records.from_object(
                    "chat",
                    {
                        "messages": [
                            {"role": "user", "content": question},
                            {"role": "assistant", "content": answer},
                        ]
                    },
                )
            )
            for question, answer in talk
        ]
        (tmp_path / f"{name}.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    dataset = SimpleNamespace(
        folder=tmp_path,
        digest="d1",
        train=[SimpleNamespace(path=tmp_path / "train-a.jsonl", weight=1.0, records=len(TALK))],
        validation=tmp_path / "validation.jsonl",
    )
    return folder, dataset


def make_recipe(folder, **training):
    return Recipe.model_validate(
        {
            "name": "capitals",
            "model": str(folder),
            "data": {"train": [{"path": "a.jsonl"}]},
            "training": {"epochs": 2, "learning_rate": 1e-2} | training,
            "local": {"batch_tokens": 100, "dtype": "float32", "lora": {"rank": 4}},
        }
    )
